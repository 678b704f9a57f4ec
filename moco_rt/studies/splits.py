"""Texts shared out between the three jobs of a search: fitting, ordering, calibration. Equal rows share one job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.selection import RowsInAll
from moco_rt.encoding import Encoded

#: Shares of the distinct rows that train off-ramps and that order the path; the rest certifies.
_FIT, _ORDERING = 0.5, 0.15
#: Share that trains off-ramps where the certificate has texts of its own; the rest orders the path.
_FIT_OF_OTHERS = 0.8
#: Distinct rows that each of the three jobs needs to make sense at all.
_FEWEST = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """N texts with distinct tokens, in the order of their jobs, and what became of their copies.

    `[:ordering_start]` train off-ramps, those up to `calibration_start` order the policies, the rest certify.

    Attributes:
        texts: N texts, pairs or images; each stands for all texts with the same tokens, or images with the same pixels.
        rows: N rows, as the model whose labels count takes them.
        ordering_start: index of the first ordering row.
        calibration_start: index of the first calibration row.
        calibration_in_all: the calibration rows with their copies and, where known, true classes.
    """

    texts: Sequence[Any]
    rows: Sequence[Any]
    ordering_start: int
    calibration_start: int
    calibration_in_all: RowsInAll

    @property
    def fit(self) -> slice:
        """Places of the rows that train off-ramps."""
        return slice(0, self.ordering_start)

    @property
    def ordering(self) -> slice:
        """Places of the rows that order the policies."""
        return slice(self.ordering_start, self.calibration_start)

    @property
    def calibration(self) -> slice:
        """Places of the rows that certify."""
        return slice(self.calibration_start, len(self.rows))


def split_texts(
    texts: Sequence[Any],
    encode: Callable[[Sequence[Any]], Sequence[Any]],
    *,
    calibration: Sequence[Any] | None = None,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
    find_equals: Callable[[Sequence[Any]], NDArray[np.int64]] | None = None,
    of: str = "text",
) -> Split:
    """Share out texts, or images, in a random order.

    Texts with equal tokens are one unit: they do one job, and the first of them stands for all. A certificate from
    rows that off-ramps have learnt from, or that counts copies as if they were new, promises what nobody has seen.
    Texts that also stand in `calibration` certify only, and the log says how many.

    Args:
        texts: texts or pairs.
        encode: tokenises texts as the model whose labels count takes them.
        calibration: texts for the certificate alone; None: 35% of the distinct `texts`.
        labels: (n,) class numbers of `calibration`, or of `texts` where there is none.
        seed: of the order.
        find_equals: returns for each row the index of the first that equals it, (n,) int64; None: `first_of_equals`.
        of: what is shared out, for errors.

    Raises:
        ValueError: there are too few distinct texts, or not as many labels as texts.
    """
    expected = len(texts if calibration is None else calibration)
    if labels is not None and len(labels) != expected:
        raise ValueError(f"labels must be one for each of the {expected} {of}s (got {len(labels)})")
    # Calibration texts stand first: where others have the same tokens, the calibration text is the first of them.
    certifying = [] if calibration is None else list(calibration)
    everything = [*certifying, *texts]
    rows = encode(everything) if everything else []
    first = (find_equals or first_of_equals)(rows)
    distinct = np.flatnonzero(first == np.arange(len(rows)))
    shuffled = distinct[np.searchsorted(distinct, len(certifying)) :]
    shuffled = shuffled[np.random.default_rng(seed).permutation(len(shuffled))]
    if calibration is None:
        fit, start = int(_FIT * len(shuffled)), int((_FIT + _ORDERING) * len(shuffled))
        places = shuffled
    else:
        fit, start = int(_FIT_OF_OTHERS * len(shuffled)), len(shuffled)
        places = np.concatenate([shuffled, distinct[: len(distinct) - len(shuffled)]])
        if shared := int((first[len(certifying) :] < len(certifying)).sum()):
            _log.warning("%d %ss also stand in calibration: they certify, and are left out of the fitting", shared, of)
    if min(fit, start - fit, len(places) - start) < _FEWEST:
        raise ValueError(
            f"{of}s must leave at least {_FEWEST} distinct rows to fit, to search and to certify on "
            f"(got {fit}, {start - fit} and {len(places) - start})"
        )
    place_of = np.full(len(rows), -1)
    place_of[places[start:]] = np.arange(len(places) - start)
    copies = place_of[first[:expected]]  # rows of `calibration` or, where there is none, of `texts`
    in_all = RowsInAll(copies[copies >= 0], None if labels is None else labels[copies >= 0])
    return Split([everything[i] for i in places], [rows[i] for i in places], fit, start, in_all)


def first_of_equals(rows: Sequence[Encoded]) -> NDArray[np.int64]:
    """Return for each tokenised row the index of the first row with the same tokens and token types: (n,) int64."""
    seen: dict[tuple[tuple[str, bytes], ...], int] = {}
    keys = (tuple((name, np.asarray(row[name], np.int64).tobytes()) for name in sorted(row)) for row in rows)
    return np.array([seen.setdefault(key, place) for place, key in enumerate(keys)], dtype=np.int64)


def without_copies(
    first: NDArray[np.int64], labels: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], RowsInAll]:
    """Return the places of distinct rows (n,) int64, and all rows as copies of these.

    Args:
        first: (M,) for each row the index of the first that is equal.
        labels: (M,) true classes, or None.

    Raises:
        ValueError: there are more labels than rows, or fewer.
    """
    if labels is not None and len(labels) != len(first):
        raise ValueError(f"labels must be one for each of the {len(first)} inputs (got {len(labels)})")
    distinct, copy_of = np.unique(first, return_inverse=True)
    return distinct, RowsInAll(copy_of.astype(np.int64), labels)
