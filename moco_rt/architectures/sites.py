"""The places where rows may leave, and their names.

`tokens` (before anything is embedded, in models that take texts), `embeddings`, then for every layer i from 0
`encoder.{i}.attention` (after the attention sub-layer with its residual and LayerNorm) and `encoder.{i}.output` (after
the feed-forward sub-layer with its own).
"""

TOKENS = "tokens"
EMBEDDINGS = "embeddings"


def attention_site(layer: int) -> str:
    """The site after the attention sub-layer of a layer."""
    return f"encoder.{layer}.attention"


def layer_of_attention(site: str) -> int | None:
    """The number of the layer after whose attention a site is; None: it is elsewhere."""
    return int(site.split(".")[1]) if site.endswith(".attention") else None


def output_site(layer: int) -> str:
    """The site after a layer."""
    return f"encoder.{layer}.output"


def layer_sites(layer: int) -> tuple[str, str]:
    """Both sites of a layer, in the order a batch meets them."""
    return attention_site(layer), output_site(layer)


def all_sites(num_layers: int) -> tuple[str, ...]:
    """The sites where there are hidden states, in the order a batch meets them."""
    return (EMBEDDINGS, *(site for layer in range(num_layers) for site in layer_sites(layer)))


def exit_sites(num_layers: int, *, of_texts: bool) -> tuple[str, ...]:
    """The sites of a model; `exit_site` numbers are places in this tuple.

    `tokens`, which a batch meets first, stands last: the numbers of the others are older than that site.
    """
    return (*all_sites(num_layers), TOKENS) if of_texts else all_sites(num_layers)


def sites_that_read_mean(site: str) -> tuple[str, ...]:
    """The sites whose feature `cls+mean` reads the mean of the hidden states as they are on the way to `site`.

    Both sites of a layer read the mean of what enters the layer, so that a peek can decide them; `embeddings` reads its
    own.
    """
    if site.endswith(".attention"):
        return site, site.removesuffix("attention") + "output"
    return (site,) if site == EMBEDDINGS else ()
