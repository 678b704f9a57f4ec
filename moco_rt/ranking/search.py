"""Search: a path of margins, from "all candidates run to the end" to the fastest, in the order of their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.ranking.elimination import RankScores
from moco_rt.studies.costs import Costs

#: Margins that are tried at each exit: quantiles of how far candidates lie below the last that is kept.
_LEVELS = 48
#: Steps along these that are tried at a time: a large one passes a place where a small one gains nothing.
_STEPS = (1, 4)
#: Errors are counted at the margins, and at these shares of them too: what would err if estimates were a little worse.
#: Of policies without an error among few queries this tells the safe ones from the lucky ones.
_TIGHTER = (1.0, 0.85, 0.7)
#: Errors that count for a step which adds none among the ordering queries.
_FEWEST_ERRORS = 0.25
#: Policies that change more queries than this share are of no use.
_MOST_ERRORS = 0.4
#: A policy has about so many times the errors of the one before it, at least.
_RATIO = 1.03


@dataclass(frozen=True, eq=False)
class Margins:
    """A policy of a path: the margin of each exit.

    Attributes:
        margins: (E,) float32; infinite: nobody leaves there.
        errors: share of the ordering queries whose first candidates change, a mean over tighter margins.
        seconds: mean seconds of a query, on the ordering queries.
    """

    margins: NDArray[np.float32]
    errors: float
    seconds: float


@dataclass(frozen=True, eq=False)
class RankedForm:
    """One form of a model as a search sees it.

    Attributes:
        scores: those of the queries.
        lengths: (Q, n) int64 tokens of the candidates; 0: there is none.
        costs: of leaving by its exits.
    """

    scores: RankScores
    lengths: NDArray[np.int64]
    costs: Costs

    def seconds(self, margins: NDArray[np.float32], exits: NDArray[np.int64]) -> float:
        """Return the mean seconds of a query whose candidates leave by these exits, (Q, n), under these margins."""
        used = np.flatnonzero(~np.isposinf(margins)).tolist()
        by_exit = self.costs.seconds(self.lengths.ravel(), used)
        way = np.searchsorted([*used, len(margins)], exits.ravel())
        of_candidate = by_exit[np.arange(by_exit.shape[0]), way] * (self.lengths.ravel() > 0)
        return float(of_candidate.sum() / len(exits))


def search_margins(form: RankedForm) -> list[Margins]:
    """Return a path of policies: each is faster than all with fewer errors; the first has no exits.

    Margins are lowered one at a time, the one whose seconds saved are the most for each error that it adds: a greedy
    search over a grid. The path is the Pareto front of what it passes, thinned (Pareto Testing, arXiv:2210.07913).

    Args:
        form: of the model, on the ordering queries.
    """
    found = _greedy(form)
    path = [found[0]]
    for policy in sorted(found, key=lambda policy: (policy.errors, policy.seconds)):
        if policy.seconds < path[-1].seconds and (len(path) == 1 or policy.errors >= _RATIO * path[-1].errors):
            path.append(policy)
    return path


def _greedy(form: RankedForm) -> list[Margins]:
    """Return all policies that a greedy search passes, the first without exits."""
    levels = [_levels(estimates, form.scores) for estimates in form.scores.estimates]
    places = [-1] * len(levels)
    margins = np.full(len(levels), np.inf, np.float32)
    queries = len(form.scores.final)

    def policy(margins: NDArray[np.float32]) -> Margins:
        exits = [form.scores.exit_of_candidate(np.float32(share) * margins) for share in _TIGHTER]
        errors = np.mean([form.scores.differs(of_share) for of_share in exits])
        return Margins(margins, float(errors), form.seconds(margins, exits[0]))

    found = [policy(margins)]
    while True:
        now, best = found[-1], None
        for exit, of_exit in enumerate(levels):
            for step in _STEPS:
                if places[exit] + step >= len(of_exit):
                    continue
                changed = margins.copy()
                changed[exit] = of_exit[places[exit] + step]
                tried = policy(changed)
                saved = now.seconds - tried.seconds
                gain = saved / (max(tried.errors - now.errors, 0) + _FEWEST_ERRORS / queries)
                if saved > 0 and tried.errors <= _MOST_ERRORS and (best is None or gain > best[0]):
                    best = gain, exit, step, tried
        if best is None:
            return found
        _, exit, step, tried = best
        places[exit] += step
        margins = tried.margins
        found.append(tried)


def _levels(estimates: NDArray[np.float32], scores: RankScores) -> NDArray[np.float32]:
    """Return the margins to try at an exit, from the one by which hardly anybody leaves down to 0."""
    if estimates.shape[1] <= scores.keep_top:
        return np.empty(0, np.float32)
    best = np.partition(estimates, -scores.keep_top, axis=1)[:, -scores.keep_top, None]
    there = np.isfinite(estimates) & (estimates < best)
    below = np.broadcast_to(best, estimates.shape)[there] - estimates[there]
    if len(below) == 0:
        return np.empty(0, np.float32)
    levels: NDArray[np.float32] = np.quantile(below, np.linspace(1, 0, _LEVELS)).astype(np.float32)
    return levels
