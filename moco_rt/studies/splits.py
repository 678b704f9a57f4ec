"""Texts shared out between the three jobs of a search: fitting, ordering, calibration. Equal rows share one job.

Tiers of a cascade may tell texts apart that the last tier, whose labels count, takes for one. Two relations follow:

| relation | texts that are           | what for                                               |
|----------|--------------------------|--------------------------------------------------------|
| unit     | equal for the last tier  | count once; one of them, drawn at random, is looked at |
| copies   | equal for all tiers      | get one answer: what holds of one holds of all         |

For one model both are the same. Units that an earlier tier takes for one are shared out as any others: calibration must
be a random draw of the units.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.selection import RowsInAll

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
        texts: N texts, pairs or images; each stands for all texts with the same tokens, or images with the same pixels,
            of which it was drawn where tiers before the last tell them apart.
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


@dataclass(frozen=True)
class Equals:
    """Which of N texts are equal, for the model whose labels count and for tiers before it.

    Attributes:
        unit: (N,) int64, for each text the index of the first that is equal for the model whose labels count.
        copies: (N,) int64 likewise, for all tiers.
    """

    unit: NDArray[np.int64]
    copies: NDArray[np.int64]

    @classmethod
    def of(cls, unit: NDArray[np.int64], others: Sequence[NDArray[np.int64]] = ()) -> Equals:
        """Build it from the index of the first equal text: for the model whose labels count, and for each other tier.

        Args:
            unit: (N,) int64.
            others: (N,) int64 each.
        """
        if len(unit) == 0 or not others:
            return cls(unit, unit)
        _, start, same = np.unique(np.stack([unit, *others]), axis=1, return_index=True, return_inverse=True)
        return cls(unit, start[same.ravel()])

    def draw(self, among: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Draw one of the texts of each unit, those at some places, and return it by its first copy, in units' order.

        The first text of a unit would not do for all: what an earlier tier makes of texts may go by their order.
        """
        mixed = np.random.default_rng([seed, 1]).permutation(among)
        drawn: NDArray[np.int64] = self.copies[mixed[np.unique(self.unit[mixed], return_index=True)[1]]]
        return drawn


def split_texts(
    texts: Sequence[Any],
    encode: Callable[[Sequence[Any]], Sequence[Any]],
    *,
    calibration: Sequence[Any] | None = None,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
    find_equals: Callable[[Sequence[Any]], NDArray[np.int64]] | None = None,
    of: str = "text",
    before: Sequence[Callable[[Sequence[Any]], Sequence[Any]]] = (),
) -> Split:
    """Share out texts, or images, in a random order.

    Texts with equal tokens are one unit: they do one job, and one of them stands for all. A certificate from rows that
    off-ramps have learnt from, or that counts copies as if they were new, promises what nobody has seen. Texts that
    also stand in `calibration` certify only, and the log says how many.

    Args:
        texts: texts or pairs.
        encode: tokenises texts as the model whose labels count takes them.
        calibration: texts for the certificate alone; None: 35% of the distinct `texts`.
        labels: (n,) class numbers of `calibration`, or of `texts` where there is none.
        seed: of the order.
        find_equals: returns for each row the index of the first that equals it, (n,) int64; None: `first_of_equals`.
        of: what is shared out, for errors.
        before: what tiers before the last make of texts: rows with tokens, or texts.

    Raises:
        ValueError: there are too few distinct texts, or not as many labels as texts.
    """
    expected = len(texts if calibration is None else calibration)
    if labels is not None and len(labels) != expected:
        raise ValueError(f"labels must be one for each of the {expected} {of}s (got {len(labels)})")
    # Calibration texts stand first: where others are in their unit, a calibration text is the first of it.
    certifying = [] if calibration is None else list(calibration)
    everything = [*certifying, *texts]
    rows = encode(everything) if everything else []
    others = [first_of_equals(tier(everything)) for tier in before] if everything else []
    equals = Equals.of((find_equals or first_of_equals)(rows), others)
    free = np.flatnonzero(equals.unit >= len(certifying))
    shuffled = equals.draw(free, seed)
    shuffled = shuffled[np.random.default_rng(seed).permutation(len(shuffled))]
    if calibration is None:
        fit, start = int(_FIT * len(shuffled)), int((_FIT + _ORDERING) * len(shuffled))
        places = shuffled
    else:
        fit, start = int(_FIT_OF_OTHERS * len(shuffled)), len(shuffled)
        places = np.concatenate([shuffled, equals.draw(np.arange(len(certifying)), seed)])
        if shared := len(texts) - len(free):
            _log.warning("%d %ss also stand in calibration: they certify, and are left out of the fitting", shared, of)
    if min(fit, start - fit, len(places) - start) < _FEWEST:
        raise ValueError(
            f"{of}s must leave at least {_FEWEST} distinct rows to fit, to search and to certify on "
            f"(got {fit}, {start - fit} and {len(places) - start})"
        )
    in_all = _in_all(equals.copies[:expected], places[start:], labels)  # of `calibration` or, without, of `texts`
    return Split([everything[i] for i in places], [rows[i] for i in places], fit, start, in_all)


def _in_all(copies: NDArray[np.int64], places: NDArray[np.int64], labels: NDArray[np.int64] | None) -> RowsInAll:
    """Return the rows that are copies of those at some places; of others nothing is known."""
    place_of = np.full(int(max(copies.max(initial=-1), places.max(initial=-1))) + 1, -1)
    place_of[places] = np.arange(len(places))
    found = place_of[copies]
    return RowsInAll(found[found >= 0], None if labels is None else labels[found >= 0])


def first_of_equals(rows: Sequence[Any]) -> NDArray[np.int64]:
    """Return for each row the index of the first that is equal: (n,) int64.

    Args:
        rows: tokenised, which are equal if tokens and token types are, or texts and pairs as they are.
    """
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(_key(row), place) for place, row in enumerate(rows)], dtype=np.int64)


def _key(row: Any) -> Any:
    """Return what equal rows have in common."""
    if isinstance(row, Mapping):
        return tuple((name, np.asarray(row[name], np.int64).tobytes()) for name in sorted(row))
    return row if isinstance(row, str) else tuple(row)


def without_copies(
    unit: NDArray[np.int64], labels: NDArray[np.int64] | None = None, others: Sequence[NDArray[np.int64]] = ()
) -> tuple[NDArray[np.int64], RowsInAll]:
    """Return the places of distinct rows (n,) int64, and all rows that are copies of these.

    Args:
        unit: (M,) for each row the index of the first that is equal, for the model whose labels count.
        labels: (M,) true classes, or None.
        others: (M,) each, the same for tiers before the last, see `Equals`.

    Raises:
        ValueError: there are more labels than rows, or fewer.
    """
    if labels is not None and len(labels) != len(unit):
        raise ValueError(f"labels must be one for each of the {len(unit)} inputs (got {len(labels)})")
    equals = Equals.of(unit, others)
    places = equals.draw(np.arange(len(unit)), seed=0)
    return places, _in_all(equals.copies, places, labels)
