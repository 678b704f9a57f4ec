"""The promise about these rows: how many of them to draw, which policy the others are run with, and what that shows.

The number that is drawn is fixed before any row is looked at. The draw then decides as `statistics.finite_rows` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.rows_certificate import RowsCertificate
from moco_rt.statistics.arguments import check_share, whole_number
from moco_rt.statistics.finite_rows import allowed_found, finite_sequence, most_differing, rows_to_draw
from moco_rt.statistics.guarantee import Guarantee


@dataclass(frozen=True)
class RowsWish:
    """The promise that is asked for about these rows.

    Attributes:
        agreement: the share of their answers that are to be the given model's, inside (0, 1).
        confidence: the probability over the draw, inside (0, 1).
        seed: of the draw, at least 0.

    Raises:
        ValueError: a number is none of these.
    """

    agreement: float
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "agreement", check_share("certify", self.agreement))
        object.__setattr__(self, "confidence", check_share("confidence", self.confidence))
        object.__setattr__(self, "seed", whole_number("seed", self.seed))

    @property
    def guarantee(self) -> Guarantee:
        """The same as the statement that is tested."""
        return Guarantee.of_agreement(self.agreement, self.confidence)


@dataclass(frozen=True, eq=False)
class PoliciesToCompare:
    """P policies in the order of their path, from the safe end, and what is known of them before the draw.

    Attributes:
        shares: (P,) float64, share of rows that each is expected to change.
        seconds: (P,) float64, mean seconds of a row.
        full: seconds of a row that the given model runs.
        drawn: seconds of a row that is drawn: the given model's, and those of finding out what the policies do to it.
        steps: (P,) int64, their indices on the certified path; None: it is one policy, and no path's.
    """

    shares: NDArray[np.float64]
    seconds: NDArray[np.float64]
    full: float
    drawn: float
    steps: NDArray[np.int64] | None = None

    @classmethod
    def unknown(cls, wish: RowsWish) -> PoliciesToCompare:
        """Return one policy of which nothing is known: it is taken to be fast, and to use half of what it may."""
        shares = np.array([wish.guarantee.max_disagreement / 2])
        return cls(shares, seconds=np.zeros(1), full=1.0, drawn=1.0)

    def rows_to_draw(self, rows: int, wish: RowsWish) -> int:
        """Return how many of these rows to draw for the whole run to take least; 0: to run all in full does.

        For each policy it is as many as it needs to pass, see `statistics.finite_rows.rows_to_draw`, if it changes the
        share of rows that is expected; the number of the policy with which the run is expected to be shortest is taken.
        """
        needed = np.array([rows_to_draw(rows, wish.guarantee, share) for share in self.shares.tolist()])
        seconds = needed * self.drawn + (rows - needed) * self.seconds
        best = int(seconds.argmin())
        return int(needed[best]) if seconds[best] < rows * self.full else 0

    def certify(self, found: NDArray[np.int64], drawn: int, rows: int, wish: RowsWish) -> tuple[RowsCertificate, int]:
        """Choose the policy that rows are run with which were not drawn, and say what is shown of all answers then.

        Args:
            found: (P,) drawn rows that differ under each policy or one before it, see `ever_differing`.
            drawn: rows that were drawn.
            rows: all of them.
            wish: the promise.

        Returns:
            The certificate, and the place of the policy among the P: the fastest up to the last that passes. -1: not
            even the first passes, or none is faster than the given model, which then runs all rows.
        """
        guarantee = wish.guarantee
        last = finite_sequence(found, drawn, rows, guarantee)
        taken = int(self.seconds[: last + 1].argmin()) if last >= 0 else -1
        if taken < 0 or self.seconds[taken] >= self.full:
            return in_full(rows, wish, drawn, int(found[0])), -1
        # The drawn rows chose among several policies, so that the count of the one they chose is too low by chance more
        # often than delta: what holds of all that pass at once is the bound that goes with the most they may have.
        counted = int(found[0]) if len(found) == 1 else allowed_found(drawn, rows, guarantee)
        wrong = most_differing(counted, drawn, rows, guarantee.delta) - counted
        step = None if self.steps is None else int(self.steps[taken])
        certificate = RowsCertificate(
            rows, drawn, int(found[taken]), wrong / rows, wish.agreement, wish.confidence, step, False, wish.seed
        )
        return certificate, taken


def draw_rows(rows: int, drawn: int, seed: int) -> NDArray[np.bool_]:
    """Draw rows at random without replacement: a mask (rows,) bool. It depends on these three numbers alone.

    Every row gets 64 random bits, and those with the least are drawn. The bits are the same in every version of NumPy,
    as what its generators make of them need not be: an interrupted run may go on after an update.
    """
    mask = np.zeros(rows, bool)
    mask[np.argsort(np.random.PCG64(seed).random_raw(rows), kind="stable")[:drawn]] = True
    return mask


def in_full(rows: int, wish: RowsWish, drawn: int = 0, disagreements: int = 0) -> RowsCertificate:
    """Return the certificate of rows that were all run by the model as it was given, some of them as drawn ones."""
    return RowsCertificate(rows, drawn, disagreements, 0.0, wish.agreement, wish.confidence, None, True, wish.seed)
