"""Texts to batches: tokenised, sorted by length, padded on the right to the longest of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import Encoded, encode

#: Tokens in one batch. All of it goes through a layer before any goes through the next, so that the rows that are left
#: deep in the network are still many. Its hidden states (25 MB at D = 384) should stay in a last-level cache.
BATCH_TOKENS = 16_384


def by_length(rows: Sequence[Encoded], batch_rows: int) -> Iterator[list[int]]:
    """Yield the places of all rows, shortest first, in batches of batch_rows."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]


def by_tokens(rows: Sequence[Encoded], tokens: int | None = None) -> Iterator[list[int]]:
    """Yield the places of all rows, shortest first, in batches of at most `tokens` tokens with padding.

    Args:
        rows: tokenised texts.
        tokens: None: `BATCH_TOKENS`.
    """
    tokens = BATCH_TOKENS if tokens is None else tokens
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    first = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or len(rows[order[i]]["input_ids"]) * (i + 1 - first) > tokens:
            yield order[first:i]
            first = i


def pad(rows: Sequence[Encoded], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Pad rows on the right to (B, S) int64 tensors, S the length of the longest; adds their `attention_mask`."""
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    inputs = {"attention_mask": mask.long().to(device)}
    for name in rows[0]:
        # A tensor for each row would take as long as tokenising them.
        values = np.fromiter(chain.from_iterable(row[name] for row in rows), np.int64, count=int(lengths.sum()))
        padded = torch.zeros(mask.shape, dtype=torch.int64)
        padded[mask] = torch.from_numpy(values)
        inputs[name] = padded.to(device)
    return inputs


def length_sorted_batches(
    tokenizer: Any, texts: Sequence[TextInput], max_length: int, batch_rows: int, device: torch.device | str = "cpu"
) -> tuple[list[dict[str, Tensor]], list[int]]:
    """Tokenise texts into padded batches, shortest first.

    Args:
        tokenizer: see `encode`.
        texts: N texts or pairs.
        max_length: in tokens.
        batch_rows: rows of a batch.
        device: of the batches.

    Returns:
        The batches, and for each of their rows in order the index of its text: N numbers.
    """
    rows = encode(tokenizer, texts, max_length)
    places = list(by_length(rows, batch_rows))
    return [pad([rows[i] for i in batch], device) for batch in places], [i for batch in places for i in batch]
