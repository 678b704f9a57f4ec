"""How the small models learn: AdamW, with a learning rate that rises and falls once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

BATCH_ROWS, LEARNING_RATE, WARM_UP = 64, 1e-3, 0.1


def train(model: Any, count: int, epochs: int, loss_of: Callable[[list[int]], Tensor]) -> None:
    """Train a model on so many rows, and leave it in evaluation mode.

    Args:
        model: a Hugging Face classifier.
        count: rows to learn from.
        epochs: how many times each of them is learnt from.
        loss_of: returns the model's loss on the rows at these places.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    steps = epochs * math.ceil(count / BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP)
    for batch in _batches(count, epochs):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def _batches(count: int, epochs: int) -> Iterator[list[int]]:
    """Yield the places of the rows of each batch, every epoch in an order of its own."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        yield from (batch.tolist() for batch in torch.randperm(count, generator=generator).split(BATCH_ROWS))
