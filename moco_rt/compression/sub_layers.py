"""Two models side by side, one sub-layer after the other: what the units of a sub-layer give, over all real tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moco_rt.architectures import architecture_of
from moco_rt.architectures.compressed.layers import head_size, layer_parts

#: A padded batch: `input_ids`, `attention_mask` and, where texts are pairs, `token_type_ids`, all (rows, S).
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class SubLayer:
    """Half a layer of a model, whose units (heads or neurons) can be left out.

    Attributes:
        layer: its number.
        path: of the linear layer that reads what the units give.
        unit: how many of its inputs a unit gives: the size of a head, or 1.
        units: how many units there are.
        step: how many units are left out at a time.
        unit_weights: weights of the layer's products that a unit takes.
    """

    layer: int
    path: str
    unit: int
    units: int
    step: int
    unit_weights: int

    def inputs_of(self, units: Tensor) -> Tensor:
        """Return which inputs of the linear layer some units give: (units * unit,) int64."""
        return (units[:, None] * self.unit + torch.arange(self.unit, device=units.device)).flatten()


def sub_layers(model: Any, heads: int, neurons: int) -> list[SubLayer]:
    """Return the attention and the feed-forward network of each layer, in the order in which they run.

    Args:
        model: a classifier of a family whose layers can be made narrower.
        heads: how many are left out at a time.
        neurons: the same of neurons.

    Raises:
        ValueError: its layers cannot be made narrower.
    """
    size, hidden = head_size(model.config), model.config.hidden_size
    found = []
    for layer, part in enumerate(layer_parts(model)):
        all_heads = model.get_submodule(part.query).out_features // size
        found.append(SubLayer(layer, part.output, size, all_heads, heads, 4 * hidden * size))
        found.append(SubLayer(layer, part.down, 1, model.get_submodule(part.up).out_features, neurons, 2 * hidden))
    return found


class Walk:
    """Hidden states of batches on their way through a model, which is run one sub-layer at a time.

    Args:
        model: the classifier.
        batches: what it is run on.
    """

    def __init__(self, model: Any, batches: Sequence[Batch]):
        self._model = model
        self._architecture = architecture_of(model)
        self._steps = self._architecture.steps()
        next(self._steps)  # the embeddings, which are computed here
        self.masks = [batch["attention_mask"].bool() for batch in batches]
        with torch.no_grad():
            self.hidden = [self._architecture.embed(each["input_ids"], each.get("token_type_ids")) for each in batches]

    def take_step(self) -> None:
        """Go on to the next sub-layer, which `run` then runs."""
        _, self._step = next(self._steps)

    @torch.no_grad()
    def run(self, batch: int) -> Tensor:
        """Return the hidden states of a batch after the sub-layer: (rows, S, D)."""
        hidden = self.hidden[batch]
        context = self._architecture.context(self.masks[batch].long(), hidden)
        after: Tensor = self._step(hidden, context)
        return after

    def advance(self) -> None:
        """Keep what the sub-layer gives as the hidden states of all batches."""
        self.hidden = [self.run(batch) for batch in range(len(self.hidden))]


@contextmanager
def watch(linear: torch.nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep the inputs and outputs of the last call of a linear layer, for as long as the block runs."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[:] = [(inputs[0], output)]

    handle = linear.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def with_one(x: Tensor) -> Tensor:
    """Append an input that is always 1, for the bias: (tokens, inputs + 1) float32."""
    return torch.cat([x.float(), x.new_ones(len(x), 1, dtype=torch.float32)], dim=1)
