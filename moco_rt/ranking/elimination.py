"""Elimination: which candidates of a query cannot reach its first ones, and what that does to them.

The same function decides on recorded estimates and while a query is ranked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def eliminated(
    estimates: NDArray[np.float32], alive: NDArray[np.bool_], keep_top: int, margin: np.float32
) -> NDArray[np.bool_]:
    """Return which candidates leave: their estimate is further than the margin below the query's `keep_top`-th best.

    At least `keep_top` candidates stay. An estimate that is not a number eliminates nobody.

    Args:
        estimates: (Q, n) of the candidates' scores.
        alive: (Q, n), which of them are still there.
        keep_top: k.
        margin: at least 0; infinite: all stay.

    Returns:
        (Q, n).
    """
    if estimates.shape[1] <= keep_top or np.isposinf(margin):
        return np.zeros(estimates.shape, bool)
    among = np.where(alive & ~np.isnan(estimates), estimates, -np.inf)
    # Minus infinity itself, where fewer are left than are kept, has nobody below it.
    best = np.partition(among, -keep_top, axis=1)[:, -keep_top, None]
    leave: NDArray[np.bool_] = alive & (estimates < best - margin)
    return leave


@dataclass(frozen=True, eq=False)
class RankScores:
    """Scores of the candidates of Q queries, and estimates of them at E exits, in the order of their sites.

    Queries with fewer candidates than the largest, n, are filled up with minus infinity, which is never among the
    first.

    Attributes:
        estimates: (E, Q, n) float32.
        final: (Q, n) float32 scores of the model that runs, to its end.
        given: (Q, n) float32 scores of the model as it was given.
        keep_top: k, how many of a query's candidates must stay the first ones.
    """

    estimates: NDArray[np.float32]
    final: NDArray[np.float32]
    given: NDArray[np.float32]
    keep_top: int

    def exit_of_candidate(self, margins: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the exit by which each candidate leaves under margins (E,): (Q, n) int64, E: it runs to the end."""
        exits = np.full(self.final.shape, len(self.estimates))
        alive = np.ones(self.final.shape, bool)
        for place, (estimates, margin) in enumerate(zip(self.estimates, margins, strict=True)):
            leave = eliminated(estimates, alive, self.keep_top, margin)
            exits[leave] = place
            alive &= ~leave
        return exits

    def differs(self, exits: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for which queries the set of the first k is another than the given model's: (Q,)."""
        stay = np.where(exits == len(self.estimates), self.final, -np.inf)
        another: NDArray[np.bool_] = (first(stay, self.keep_top) != first(self.given, self.keep_top)).any(axis=1)
        return another

    def take(self, queries: slice) -> RankScores:
        """Return the same of some queries."""
        return RankScores(self.estimates[:, queries], self.final[queries], self.given[queries], self.keep_top)


def ranks(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rank of each candidate of a query, 0 for the highest score; of equal ones the first ranks first.

    Args:
        scores: (..., n).
    """
    found: NDArray[np.int64] = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1, kind="stable")
    return found


def first(scores: NDArray[np.float32], keep_top: int) -> NDArray[np.int64]:
    """Return the places of each query's `keep_top` highest scores, ascending: (Q, k); of equal ones the first wins.

    Args:
        scores: (Q, n).
        keep_top: k.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :keep_top]
    return np.sort(order, axis=1)
