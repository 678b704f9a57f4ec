"""The layers of a model that can be made narrower: where their linear layers are, and how wide each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

#: Within a layer, by the names of `LayerParts`.
_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_DISTILBERT = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
}
#: By the model type of a configuration: where the list of layers is, and what they look like inside.
_FAMILIES = {
    "bert": ("bert.encoder.layer", _BERT),
    "camembert": ("roberta.encoder.layer", _BERT),
    "distilbert": ("distilbert.transformer.layer", _DISTILBERT),
    "electra": ("electra.encoder.layer", _BERT),
    "roberta": ("roberta.encoder.layer", _BERT),
    "xlm-roberta": ("roberta.encoder.layer", _BERT),
}


@dataclass(frozen=True)
class LayerParts:
    """The linear layers of one layer, as paths within the model."""

    query: str
    key: str
    value: str
    output: str
    up: str
    down: str


@dataclass(frozen=True)
class Widths:
    """The widths of the L layers of a model.

    Attributes:
        heads: attention heads of each layer, at least one.
        neurons: what each layer's feed-forward network has between its two products, at least one.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, model: Any) -> Widths:
        """Read them off the weights of a classifier of a covered family."""
        size = head_size(model.config)
        parts = layer_parts(model)
        heads = [model.get_submodule(part.query).out_features // size for part in parts]
        return cls(tuple(heads), tuple(model.get_submodule(part.up).out_features for part in parts))


def layer_parts(model: Any) -> list[LayerParts]:
    """Return where the linear layers of each layer are.

    Args:
        model: a Hugging Face `...ForSequenceClassification`.

    Raises:
        ValueError: its layers cannot be made narrower.
    """
    kind = model.config.model_type
    if kind not in _FAMILIES:
        raise ValueError(f"model must be of a type that can be made narrower: {', '.join(_FAMILIES)} (got {kind})")
    stack, inside = _FAMILIES[kind]
    count = len(model.get_submodule(stack))
    return [LayerParts(**{name: f"{stack}.{i}.{path}" for name, path in inside.items()}) for i in range(count)]


def head_size(config: Any) -> int:
    """Return the numbers that a head has of each token, which stay as many in a narrower layer."""
    size: int = config.hidden_size // config.num_attention_heads
    return size


def resize(model: Any, widths: Widths) -> None:
    """Give the layers of a model new linear layers of these widths, whose weights are not set.

    The model's own attention takes as many heads as its products have.

    Raises:
        ValueError: the model cannot be made narrower, or has another number of layers.
    """
    parts, size = layer_parts(model), head_size(model.config)
    if not len(parts) == len(widths.heads) == len(widths.neurons):
        raise ValueError(
            f"widths must be given for each of {len(parts)} layers (got {len(widths.heads)} numbers of heads and "
            f"{len(widths.neurons)} of neurons)"
        )
    for part, heads, neurons in zip(parts, widths.heads, widths.neurons, strict=True):
        for path in (part.query, part.key, part.value):
            _replace(model, path, outputs=heads * size)
        _replace(model, part.output, inputs=heads * size)
        _replace(model, part.up, outputs=neurons)
        _replace(model, part.down, inputs=neurons)


def product_weights(widths: Widths, hidden: int, size: int) -> int:
    """Return how many weights the products of all layers have: as many as the multiply-adds of a token in them."""
    return hidden * (4 * size * sum(widths.heads) + 2 * sum(widths.neurons))


def _replace(model: Any, path: str, *, inputs: int | None = None, outputs: int | None = None) -> None:
    old = model.get_submodule(path)
    new = torch.nn.Linear(
        old.in_features if inputs is None else inputs,
        old.out_features if outputs is None else outputs,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    model.set_submodule(path, new)
