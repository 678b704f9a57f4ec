"""Tokenised texts, their ids end to end in one array: neither lists nor padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

#: One tokenised text: `input_ids` and, where texts are pairs, `token_type_ids`.
Encoded = Mapping[str, Sequence[int] | NDArray[Any]]


class EncodedTexts(Sequence[Encoded]):
    """N tokenised texts; each of them can be read as a mapping, too.

    Attributes:
        ids: (T,) int32, the ids of all texts.
        lengths: (N,) int64, tokens of each text.
        types: (T,) int32, the segments that the tokens belong to; None: all 0.
    """

    def __init__(self, ids: NDArray[np.int32], lengths: NDArray[np.int64], types: NDArray[np.int32] | None = None):
        self.ids = ids
        self.lengths = lengths
        self.types = types
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> EncodedTexts:
        """Lay rows end to end; those that have no segments among others that have get segment 0."""
        if isinstance(rows, EncodedTexts):
            return rows
        lengths = np.fromiter((len(row["input_ids"]) for row in rows), np.int64, count=len(rows))
        types = None
        if any("token_type_ids" in row for row in rows):
            types = _end_to_end([row.get("token_type_ids", np.zeros(len(row["input_ids"]))) for row in rows])
        return cls(_end_to_end([row["input_ids"] for row in rows]), lengths, types)

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Join parts in their order."""
        if len(parts) == 1:
            return parts[0]
        types = None
        if any(part.types is not None for part in parts):
            types = _end_to_end([np.zeros_like(part.ids) if part.types is None else part.types for part in parts])
        lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)])
        return cls(_end_to_end([part.ids for part in parts]), lengths, types)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> EncodedTexts: ...
    def __getitem__(self, place: int | slice) -> Encoded | EncodedTexts:
        if isinstance(place, slice):
            first, end, step = place.indices(len(self))
            if step != 1:
                return self.take(np.arange(first, end, step))
            end = max(first, end)
            tokens = slice(self._starts[first], self._starts[end])
            types = None if self.types is None else self.types[tokens]
            return EncodedTexts(self.ids[tokens], self.lengths[first:end], types)
        if not -len(self) <= place < len(self):
            raise IndexError(f"place must be from {-len(self)} to {len(self) - 1} (got {place})")
        place %= len(self)
        tokens = slice(self._starts[place], self._starts[place + 1])
        row = {"input_ids": self.ids[tokens]}
        return row if self.types is None else {**row, "token_type_ids": self.types[tokens]}

    def take(self, places: NDArray[np.int64]) -> EncodedTexts:
        """Return some of the texts, or all in another order."""
        lengths = self.lengths[places]
        tokens = runs(self._starts[places], lengths)
        return EncodedTexts(self.ids[tokens], lengths, None if self.types is None else self.types[tokens])


def runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places start, start + 1, ... of runs of these lengths, end to end."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _end_to_end(rows: Sequence[Sequence[int] | NDArray[Any]]) -> NDArray[np.int32]:
    return np.concatenate([np.empty(0, np.int32), *(np.asarray(row, np.int32) for row in rows)])
