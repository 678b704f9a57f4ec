"""A linear layer with int8 weights whose inputs are quantised token by token: what the int8 kernels compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
#: The layout of stored weights: outputs in a panel, and inputs of one output that lie side by side.
_PANEL, _WORD = 64, 4


class Int8Linear(torch.nn.Module):
    """Stands in place of a `torch.nn.Linear`: x @ weight.T + bias, with weight and x in 8 bits.

    Weights are symmetric, with a scale for each output channel; inputs affine, with a scale for each token, computed
    from that token alone, so that a token's answer does not depend on others. The large values of an input channel may
    be moved into the weights first: (x / smooth) @ (weight * smooth).T is the same (SmoothQuant, arXiv:2211.10438).

    Args:
        inputs: number of input channels.
        outputs: number of output channels.

    Attributes:
        weight: (outputs / 64, inputs / 4, 64, 4) int8, both rounded up and filled with zeros: the panels that the
            kernels read in place; see `unpacked`.
        bias: (outputs) float32.
        scale: (outputs) float32: scale[n] * weight[n] is about the weights of output n, times smooth.
        smooth: (inputs) float32.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    smooth: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        panels, words = -(-outputs // _PANEL), -(-inputs // _WORD)
        self.register_buffer("weight", torch.zeros(panels, words, _PANEL, _WORD, dtype=torch.int8))
        for name, size in (("bias", outputs), ("scale", outputs), ("smooth", inputs)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float32))

    @classmethod
    def of(cls, linear: torch.nn.Linear, smooth: Tensor) -> Int8Linear:
        """Quantise the weights of a linear layer, rounded to the nearest.

        Args:
            linear: the layer; it is not changed.
            smooth: (inputs), positive: what inputs are divided by.
        """
        layer = cls(linear.in_features, linear.out_features)
        weight = linear.weight.detach().float() * smooth
        layer.scale = (weight.abs().amax(dim=1) / 127).clamp(min=_TINY)
        values = (weight / layer.scale[:, None]).round().to(torch.int8)
        values = torch.nn.functional.pad(values, (0, -linear.in_features % _WORD, 0, -linear.out_features % _PANEL))
        panels = values.unflatten(0, (-1, _PANEL)).unflatten(2, (-1, _WORD))
        layer.weight = panels.transpose(1, 2).contiguous()
        layer.smooth = smooth.detach().float().clone()  # safetensors refuses shared memory
        if linear.bias is not None:
            layer.bias = linear.bias.detach().float().clone()
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in x's dtype."""
        smoothed = x.double() / self.smooth  # in float64 sums of products of bytes are exact, as the kernels' are
        least = smoothed.amin(dim=-1, keepdim=True).clamp(max=0)
        step = (smoothed.amax(dim=-1, keepdim=True).clamp(min=0) - least) / 255
        values = ((smoothed - least) / step.clamp(min=_TINY)).round()
        weight = self.unpacked().double()
        sums = step * (values @ weight.T) + least * weight.sum(dim=1)
        return (sums * self.scale + self.bias).to(x.dtype)

    def unpacked(self) -> Tensor:
        """The weights: (outputs, inputs) int8."""
        return self.weight.transpose(1, 2).flatten(2).flatten(0, 1)[: len(self.scale), : len(self.smooth)]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Int8Linear:
        """`.to` and its like move it, and leave its dtypes."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, *args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]
