"""Texts to batches: tokenised, sorted by length, padded on the right to the longest of each batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: One text, or a pair.
Text = str | tuple[str, str] | list[str]

#: Tokens in one batch. All of it goes through a layer before any goes through the next, so that the rows that are left
#: deep in the network are still many. Its hidden states (25 MB at D = 384) should stay in a last-level cache.
TOKENS = 16_384

#: What a tokenizer makes of one text: `input_ids` and, where the model has segments, `token_type_ids`.
Encoded = Mapping[str, Sequence[int]]

#: Tokenizers are not made for two threads: each call sets how it truncates.
_ENCODING = threading.Lock()


def length_limit(tokenizer: Any, max_seqlen: int, max_length: int | None) -> int:
    """How many tokens a text may have: what model and tokenizer allow, or max_length where that is less.

    Raises:
        ValueError: max_length leaves no room for a text.
    """
    specials: int = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= specials:
        raise ValueError(f"max_length must be more than the {specials} special tokens (got {max_length})")
    limit: int = min(max_seqlen, tokenizer.model_max_length, max_length or max_seqlen)
    return limit


def encode(tokenizer: Any, texts: Sequence[Text], max_length: int) -> list[Encoded]:
    """Tokenise without padding, truncated to max_length tokens as the tokenizer truncates."""
    with _ENCODING:
        encoded = tokenizer(
            [text if isinstance(text, str) else tuple(text) for text in texts],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
    return [{name: values[i] for name, values in encoded.items()} for i in range(len(texts))]


def by_length(rows: Sequence[Encoded], batch_rows: int) -> Iterator[list[int]]:
    """The places of all rows, shortest first, in batches of batch_rows."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]


def by_tokens(rows: Sequence[Encoded], tokens: int | None = None) -> Iterator[list[int]]:
    """The places of all rows, shortest first, in batches of at most so many tokens (`TOKENS`), padding counted."""
    tokens = TOKENS if tokens is None else tokens
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    first = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or len(rows[order[i]]["input_ids"]) * (i + 1 - first) > tokens:
            yield order[first:i]
            first = i


def pad(rows: Sequence[Encoded], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """`attention_mask` and what the rows hold, each (B, S) int64, S the length of the longest row."""
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
    tokenizer: Any, texts: Sequence[Text], max_length: int, batch_rows: int, device: torch.device | str = "cpu"
) -> tuple[list[dict[str, Tensor]], list[int]]:
    """All texts as padded batches, shortest first, and the place of each of their rows among the texts."""
    rows = encode(tokenizer, texts, max_length)
    places = list(by_length(rows, batch_rows))
    return [pad([rows[i] for i in batch], device) for batch in places], [i for batch in places for i in batch]
