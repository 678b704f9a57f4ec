"""Rows to batches: sorted by length, packed as they are or padded on the right to the longest of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.encoding import Encoded, EncodedTexts
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import encode

#: Tokens in one batch. All of it goes through a layer before any goes through the next, so that the rows that are left
#: deep in the network are still many. Its hidden states (25 MB at D = 384) should stay in a last-level cache.
BATCH_TOKENS = 16_384


def by_length(rows: Sequence[Encoded], batch_rows: int) -> Iterator[list[int]]:
    """Yield the places of all rows, shortest first, in batches of batch_rows."""
    order = np.argsort(row_lengths(rows), kind="stable").tolist()
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]


def by_tokens(rows: Sequence[Encoded], tokens: int | None = None) -> Iterator[list[int]]:
    """Yield the places of all rows, shortest first, in batches of at most `tokens` tokens with padding.

    Args:
        rows: tokenised texts.
        tokens: None: `BATCH_TOKENS`.
    """
    yield from by_lengths(row_lengths(rows), tokens)


def by_lengths(lengths: NDArray[np.int64], tokens: int | None = None) -> Iterator[list[int]]:
    """Yield what `by_tokens` yields, of rows of which only the lengths in tokens are known: (N,) int64."""
    order = np.argsort(lengths, kind="stable")
    for batch in _batches(lengths[order], tokens):
        yield order[batch].tolist()


def packed_batches(rows: EncodedTexts, tokens: int | None = None) -> Iterator[tuple[NDArray[np.int64], EncodedTexts]]:
    """Yield the batches of `by_tokens`: the places of their rows, and the rows."""
    order = np.argsort(rows.lengths, kind="stable")
    ordered = rows.take(order)
    for batch in _batches(ordered.lengths, tokens):
        yield order[batch], ordered[batch]


def pad(rows: Sequence[Encoded], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Pad rows on the right to (B, S) int64 tensors, S the length of the longest; adds their `attention_mask`."""
    encoded = EncodedTexts.of(rows)
    lengths = torch.from_numpy(encoded.lengths)
    mask = torch.arange(int(lengths.max()), device="cpu") < lengths[:, None]
    inputs = {"attention_mask": mask.long().to(device)}
    for name, values in (("input_ids", encoded.ids), ("token_type_ids", encoded.types)):
        if values is not None:
            padded = torch.zeros(mask.shape, dtype=torch.int64, device="cpu")
            padded[mask] = torch.from_numpy(values).long()
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
    return [pad(rows.take(np.array(batch)), device) for batch in places], [i for batch in places for i in batch]


def row_lengths(rows: Sequence[Encoded]) -> NDArray[np.int64]:
    """Return how many tokens each row has: (N,) int64."""
    if isinstance(rows, EncodedTexts):
        return rows.lengths
    return np.fromiter((len(row["input_ids"]) for row in rows), np.int64, count=len(rows))


def _batches(lengths: NDArray[np.int64], tokens: int | None) -> Iterator[slice]:
    """Yield runs of rows, shortest first, with at most so many tokens when they are padded; one row may have more."""
    tokens = BATCH_TOKENS if tokens is None else tokens
    first = 0
    while first < len(lengths):
        padded = lengths[first:] * np.arange(1, len(lengths) - first + 1)
        end = first + max(1, int(np.searchsorted(padded, tokens, side="right")))
        yield slice(first, end)
        first = end
