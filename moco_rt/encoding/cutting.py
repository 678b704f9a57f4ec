"""Cutting texts, and the pairs of them, to a length, and framing them with special tokens, as Hugging Face does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.encoding.encoded_texts import EncodedTexts, runs


@dataclass(frozen=True)
class Frame:
    """The special tokens around the parts of a text: one part, or the two of a pair.

    Attributes:
        specials: the ids before the first part, behind it, and so on: one more than there are parts.
        types: the segments of the specials and of the parts between them, in their order.
    """

    specials: tuple[tuple[int, ...], ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, encoding: Any) -> Frame | None:
        """Read the frame off an `Encoding` of a text or a pair; None: it has another form."""
        sequences, types = encoding.sequence_ids, encoding.type_ids
        parts = len({sequence for sequence in sequences if sequence is not None})
        # Runs of equal sequences: specials before part 0, part 0, specials behind it, ...
        bounds = [0]
        for part in range(parts):
            first = sequences.index(part)
            bounds += [first, first + sequences.count(part)]
        bounds.append(len(sequences))
        stretches = [slice(first, end) for first, end in pairwise(bounds)]
        whose = [None if place % 2 == 0 else place // 2 for place in range(len(stretches))]
        for stretch, sequence in zip(stretches, whose, strict=True):
            if set(sequences[stretch]) - {sequence} or len(set(types[stretch])) > 1:
                return None
        kinds = tuple(types[stretch][0] if types[stretch] else 0 for stretch in stretches)
        return cls(tuple(tuple(encoding.ids[stretch]) for stretch in stretches[::2]), kinds)

    def put_around(
        self, ids: NDArray[Any], lengths: NDArray[np.int64], max_length: int, *, from_left: bool = False
    ) -> EncodedTexts:
        """Cut texts to max_length tokens with their specials, the longer part of a pair first, and frame them.

        Args:
            ids: the ids of all parts, end to end.
            lengths: (texts * parts,) tokens of each part.
            max_length: in tokens.
            from_left: tokens are cut from the beginning of a part.
        """
        parts = len(self.specials) - 1
        room = max_length - sum(map(len, self.specials))
        whole = lengths.reshape(-1, parts)
        kept = np.minimum(whole, room) if parts == 1 else longest_first(whole, room)
        first = (np.cumsum(lengths) - lengths).reshape(-1, parts)
        if from_left:
            first = first + whole - kept
        # Every text is 2 * parts + 1 runs of one array: that of all parts, with the specials behind them.
        source = np.concatenate([ids, *(np.array(special, ids.dtype) for special in self.specials)])
        starts = np.empty((len(whole), 2 * parts + 1), np.int64)
        sizes = np.empty_like(starts)
        sizes[:, ::2] = [len(special) for special in self.specials]
        starts[:, ::2] = len(ids) + np.cumsum(sizes[:1, ::2]) - sizes[:1, ::2] if len(whole) else 0
        starts[:, 1::2], sizes[:, 1::2] = first, kept
        types = None
        if any(self.types):
            types = np.repeat(np.tile(np.array(self.types, np.int32), len(whole)), sizes.ravel())
        found = source[runs(starts.ravel(), sizes.ravel())].astype(np.int32, copy=False)
        return EncodedTexts(found, sizes.sum(axis=1), types)


def longest_first(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the lengths that pairs are cut to, (n, 2): the longer part down to the other one, then both alike."""
    short = lengths.min(axis=1)
    kept_long = np.where(short > room, short, np.maximum(short, room - short))
    both = short + kept_long > room
    kept = np.stack([np.where(both, room // 2, short), np.where(both, room // 2 + room % 2, kept_long)])
    swapped = lengths[:, 0] > lengths[:, 1]
    cut = np.where(swapped[:, None], kept[::-1].T, kept.T)
    return np.where((lengths.sum(axis=1) > room)[:, None], cut, lengths)
