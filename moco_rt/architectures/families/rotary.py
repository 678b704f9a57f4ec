"""Rotary positions as the packed kernels want them, for the families that have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Those that are other ones where a batch is longer.
_CHANGING = ("dynamic", "longrope")


def rotary_tables(rotary: Any, positions: int, *kind: str) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of so many positions, (positions, half of the turned values) float32.

    Args:
        rotary: the model's module.
        positions: how many.
        kind: the type of a layer, where each has its own.

    Raises:
        ValueError: they depend on the length of a batch.
    """
    rope_type = rotary.rope_type[kind[0]] if kind else rotary.rope_type
    if rope_type in _CHANGING:
        raise ValueError(f"rotary positions must be the same in every batch (got rope_type {rope_type})")
    hidden = torch.empty(0, dtype=torch.float32, device="cpu")  # whose dtype and device the tables get
    tables: tuple[Tensor, Tensor] = rotary(hidden, torch.arange(positions, device="cpu")[None], *kind)
    cos, sin = (table[0, :, : table.shape[2] // 2].contiguous() for table in tables)
    return cos, sin
