"""The places where rows may leave, and their names.

`embeddings`, then for every layer i from 0 `encoder.{i}.attention` (after the attention sub-layer with its
residual and LayerNorm) and `encoder.{i}.output` (after the feed-forward sub-layer with its own).
"""

EMBEDDINGS = "embeddings"


def attention_site(layer: int) -> str:
    """The site after the attention sub-layer of a layer."""
    return f"encoder.{layer}.attention"


def output_site(layer: int) -> str:
    """The site after a layer."""
    return f"encoder.{layer}.output"


def layer_sites(layer: int) -> tuple[str, str]:
    """Both sites of a layer, in the order a batch meets them."""
    return attention_site(layer), output_site(layer)


def all_sites(num_layers: int) -> tuple[str, ...]:
    """The sites of a model in the order a batch meets them; `exit_site` numbers are places in this tuple."""
    return (EMBEDDINGS, *(site for layer in range(num_layers) for site in layer_sites(layer)))
