"""A linear layer with int8 weights whose inputs are quantised token by token: what the int8 kernels compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
#: The layout of stored weights: outputs in a block, and inputs of one output that lie side by side. Inputs are filled
#: up to a multiple of `_GROUP`.
_BLOCK, _WORD, _GROUP = 16, 4, 8
#: Tokens are from 0 to `_TOKEN`. Processors without VNNI sum the products of four inputs in 16 bits (0, 1, 4, 5 of a
#: group and 2, 3, 6, 7), so of an output's weights for those neither the positive nor the negative ones may exceed
#: `_SUM` together.
_TOKEN, _SUM = 255, 128


class Int8Linear(torch.nn.Module):
    """Stands in place of a `torch.nn.Linear`: x @ weight.T + bias, with weight and x in 8 bits.

    Weights are symmetric, with a scale for each output channel; inputs affine, with a scale for each token, computed
    from that token alone, so that a token's answer does not depend on others. The large values of an input channel may
    be moved into the weights first: (x / smooth) @ (weight * smooth).T is the same (SmoothQuant, arXiv:2211.10438).

    The integers and their sums are the same on every processor. Those without VNNI sum the products of four inputs in
    16 bits, so an output's weights for 0, 1, 4, 5 and for 2, 3, 6, 7 of eight inputs are kept small enough for it.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        device: of its tensors; None: torch's default.

    Attributes:
        weight: (outputs / 16, inputs / 4, 16, 4) int8, outputs rounded up to a multiple of 16 and inputs to one of 8,
            filled with zeros: the blocks that the kernels read in place; see `unpacked`.
        bias: (outputs) float32.
        scale: (outputs) float32: scale[n] * weight[n] is about the weights of output n, times smooth.
        smooth: (inputs) float32.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    smooth: Tensor

    def __init__(self, inputs: int, outputs: int, device: torch.device | None = None):
        super().__init__()
        blocks, words = -(-outputs // _BLOCK), -(-inputs // _GROUP) * _GROUP // _WORD
        self.register_buffer("weight", torch.zeros(blocks, words, _BLOCK, _WORD, dtype=torch.int8, device=device))
        for name, size in (("bias", outputs), ("scale", outputs), ("smooth", inputs)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32, device=device))

    @classmethod
    def of(cls, linear: torch.nn.Linear, smooth: Tensor) -> Int8Linear:
        """Quantise the weights of a linear layer.

        Args:
            linear: the layer; it is not changed.
            smooth: (inputs), positive: what inputs are divided by.
        """
        layer = cls(linear.in_features, linear.out_features, linear.weight.device)
        weight = linear.weight.detach().float() * smooth
        weight = torch.nn.functional.pad(weight, (0, -linear.in_features % _GROUP))
        layer.scale = _scales(weight)
        layer.weight = _in_blocks((weight / layer.scale[:, None]).round().to(torch.int8))
        layer.smooth = smooth.detach().float().clone()  # safetensors refuses shared memory
        if linear.bias is not None:
            layer.bias = linear.bias.detach().float().clone()
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in x's dtype."""
        smoothed = x.double() / self.smooth  # in float64 sums of products of bytes are exact, as the kernels' are
        least = smoothed.amin(dim=-1, keepdim=True).clamp(max=0)
        step = ((smoothed.amax(dim=-1, keepdim=True).clamp(min=0) - least) / _TOKEN).clamp(min=_TINY)
        zero = (-least / step).round()
        values = ((smoothed / step).round() + zero).clamp(max=_TOKEN)
        sums = step * ((values - zero) @ self.unpacked().double().T)
        return (sums * self.scale + self.bias).to(x.dtype)

    def part(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight, bias, scale and smooth of some outputs; the weight is this layer's own where whole blocks are."""
        if first % _BLOCK == 0 and (last % _BLOCK == 0 or last == len(self.scale)):
            weight = self.weight[first // _BLOCK : -(-last // _BLOCK)]
        else:
            weight = _in_blocks(torch.nn.functional.pad(self.unpacked(), (0, -len(self.smooth) % _GROUP))[first:last])
        return weight, self.bias[first:last], self.scale[first:last], self.smooth

    def outputs(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight, bias, scale and smooth of the outputs at these places, in their order."""
        weight = torch.nn.functional.pad(self.unpacked(), (0, -len(self.smooth) % _GROUP))[places]
        return _in_blocks(weight), self.bias[places], self.scale[places], self.smooth

    def unpacked(self) -> Tensor:
        """The weights: (outputs, inputs) int8."""
        return self.weight.transpose(1, 2).flatten(2).flatten(0, 1)[: len(self.scale), : len(self.smooth)]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Int8Linear:
        """`.to` and its like move it, and leave its dtypes."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, *args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]


def _in_blocks(values: Tensor) -> Tensor:
    """(outputs, inputs) int8, inputs a multiple of `_GROUP`, as `Int8Linear.weight` lies."""
    values = torch.nn.functional.pad(values, (0, 0, 0, -len(values) % _BLOCK))
    blocks: Tensor = values.unflatten(0, (-1, _BLOCK)).unflatten(2, (-1, _WORD)).transpose(1, 2).contiguous()
    return blocks


def _scales(weight: Tensor) -> Tensor:
    """The smallest scales with which an output's weights fit 8 bits and their sums 16: (outputs).

    Args:
        weight: (outputs, inputs) float32, inputs a multiple of `_GROUP`.
    """

    def largest_sum(sizes: Tensor) -> Tensor:
        grouped: Tensor = sizes.unflatten(1, (-1, 2, 2, 2))
        return grouped.sum(dim=(2, 4)).flatten(1).amax(dim=1)

    sums = torch.maximum(largest_sum(weight.clamp(min=0)), largest_sum((-weight).clamp(min=0)))
    # Rounding makes a sum of four at most 2 larger.
    return torch.maximum(weight.abs().amax(dim=1) / 127, sums / (_SUM - 2)).clamp(min=_TINY)
