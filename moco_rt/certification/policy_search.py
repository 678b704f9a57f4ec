"""Search for one ordered path of policies, from "no row leaves" to the fastest; a certificate is looked for along it.

It knows only scores of rows at every exit, the full model's labels, and the seconds that each way out costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.calibration import wrong_curve
from moco_rt.certification.exit_scores import ExitScores

#: About how many policies a path has, shared by all thresholds: a step may add no more errors than a certificate can
#: tell apart. Fewer are enough to compare choices of off-ramps.
_POLICIES, _FEWER = 4000, 1000


class Timing(Protocol):
    """Seconds that rows cost by the exit they leave at; see `Costs.seconds`."""

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Return seconds (n, len(chosen) + 1) of rows that leave by one of the chosen exits, or run to the end."""
        ...


def expected_errors(scores: ExitScores, num_classes: int) -> NDArray[np.float64]:
    """Estimate the chance that a row's prediction is wrong, by exit: (E, n); 0 where the score is not finite.

    One logistic curve over the score for each exit and class smooths it: raw counts of the few errors among the
    surest rows would be noise. A row whose score is not finite cannot leave, so its chance does not matter.

    Args:
        scores: those of the ordering rows.
        num_classes: C.
    """
    risk = np.zeros(scores.score.shape)
    for exit, (predicted, score) in enumerate(zip(scores.predicted, scores.score, strict=True)):
        for c in range(num_classes):
            rows = np.flatnonzero((predicted == c) & np.isfinite(score))
            if len(rows):
                risk[exit, rows] = wrong_curve(score[rows], scores.label[rows] != c)
    return risk


def find_path(
    scores: ExitScores,
    risk: NDArray[np.float64],
    seconds: NDArray[np.float64],
    num_classes: int,
    policies: int = _POLICIES,
) -> list[NDArray[np.float32]]:
    """Build thresholds of ever faster policies, greedily: next comes the step that saves most time per error added.

    A step lowers one threshold, of one exit and class. Rows that leave earlier than before trade one exit's chance of
    an error for another's.

    Args:
        scores: those of the rows that order the path; the certificate must come from other rows.
        risk: (E, n), see `expected_errors`.
        seconds: (n, E + 1), cost of each row by the exit where it leaves; last: it runs to the end.
        num_classes: C.
        policies: about how many policies to build.

    Returns:
        (E, C) float32 thresholds of each policy; each differs from the one before in one entry at most.
    """
    exits, n = scores.score.shape
    levels = max(10, policies // (exits * num_classes))
    risk = np.vstack([risk, np.zeros(n)])  # a row that runs to the end is never wrong
    thresholds = np.full((exits, num_classes), np.inf, np.float32)
    steps: dict[tuple[int, int], list[tuple[np.float32, NDArray[np.int64]]]] = {}
    for exit in range(exits):
        for c in range(num_classes):
            rows = np.flatnonzero((scores.predicted[exit] == c) & np.isfinite(scores.score[exit]))
            if len(rows) == 0:
                continue
            steps[exit, c] = _levels(rows, scores.score[exit, rows], risk[exit, rows], levels)
    exit_of_row = np.full(n, exits)
    path = [thresholds.copy()]

    def worth(key: tuple[int, int]) -> float:
        """Seconds saved per error added by the next step of an exit and class."""
        rows = steps[key][0][1]
        rows = rows[exit_of_row[rows] > key[0]]
        saved = float((seconds[rows, exit_of_row[rows]] - seconds[rows, key[0]]).sum())
        added = float((risk[key[0], rows] - risk[exit_of_row[rows], rows]).sum())
        return saved / max(added, 1e-9)

    # Lazy greedy. The worth of a step depends only on its own rows and on where these leave at present. A step of exit
    # e and class c moves some rows, and each moved row is part of the steps of just one class at every exit: the class
    # that the exit predicts for it. Only those (exit, class) pairs, and the pair whose next step is a new one, can
    # have another worth now; all others keep theirs.
    worths = {key: worth(key) for key in steps}
    while worths:
        best = max(worths, key=lambda key: worths[key])
        threshold, rows = steps[best].pop(0)
        thresholds[best] = threshold
        path.append(thresholds.copy())
        moved = rows[exit_of_row[rows] > best[0]]
        exit_of_row[moved] = best[0]
        if not steps[best]:
            del steps[best], worths[best]
        touched = {(exit, c) for exit in range(exits) for c in np.unique(scores.predicted[exit, moved]).tolist()}
        for key in {best, *touched} & steps.keys():
            worths[key] = worth(key)
    return path


def search(
    scores: ExitScores,
    sites: Sequence[str],
    costs: Timing,
    lengths: NDArray[np.int64],
    max_disagreement: float,
    num_classes: int,
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Choose the off-ramps that pay, at most one at each site, and build the path of policies over them.

    A local search over sets of off-ramps: it starts with the best single one; each step adds, swaps or removes one and
    keeps the change that cuts the expected time at a disagreement of max_disagreement most. An off-ramp that saves
    little is dropped because it costs every row that reaches it.

    Args:
        scores: those of E off-ramps on the rows that order the path.
        sites: site of each off-ramp.
        costs: cost of leaving by them.
        lengths: (n,) tokens of the rows, in whatever form `costs` takes them.
        max_disagreement: share of labels that may differ on these rows.
        num_classes: C.
        groups: sets of off-ramps; the best choice within any of them is where the search over their union starts.
            None: one set of all off-ramps.

    Returns:
        Indices of the chosen off-ramps, at least one, and thresholds (chosen, C) of ever faster policies.
    """
    risk = expected_errors(scores, num_classes)

    def fastest(choices: list[list[int]]) -> tuple[float, list[int]]:
        times = [
            _time_along(scores.at(some), risk[some], costs.seconds(lengths, some), max_disagreement, num_classes)
            for some in choices
        ]
        return min(zip(times, choices, strict=True), default=(math.inf, []))

    def climb(best: tuple[float, list[int]], among: set[int]) -> tuple[float, list[int]]:
        while (better := fastest(_neighbours(best[1], sites, among)))[0] < best[0]:
            best = better
        return best

    within = [set(group) for group in groups or [range(len(sites))]]
    best = min(climb((math.inf, []), group) for group in within)
    chosen = (best if len(within) == 1 else climb(best, set().union(*within)))[1]
    return chosen, find_path(scores.at(chosen), risk[chosen], costs.seconds(lengths, chosen), num_classes)


def _neighbours(chosen: list[int], sites: Sequence[str], among: set[int]) -> list[list[int]]:
    """List the choices of off-ramps, at most one at each site, that differ from a choice at one site."""
    without = {site: [place for place in chosen if sites[place] != site] for site in sites}
    choices = [*without.values(), *(sorted([*without[sites[place]], place]) for place in sorted(among))]
    return [choice for choice in choices if choice and choice != chosen]


def _time_along(
    scores: ExitScores,
    risk: NDArray[np.float64],
    seconds: NDArray[np.float64],
    max_disagreement: float,
    num_classes: int,
) -> float:
    """Return the mean seconds of a row where the path reaches max_disagreement, interpolated between two policies."""
    rows = np.arange(len(seconds))
    error, time = 0.0, float(seconds[:, -1].mean())
    for thresholds in find_path(scores, risk, seconds, num_classes, _FEWER):
        exits = scores.exit_of_row(thresholds)
        before, error = (error, time), float(scores.disagrees(exits).mean())
        time = float(seconds[rows, exits].mean())
        if error > max_disagreement:
            return float(np.interp(max_disagreement, [before[0], error], [before[1], time]))
    return time


def _levels(
    rows: NDArray[np.int64], score: NDArray[np.float32], risk: NDArray[np.float64], count: int
) -> list[tuple[np.float32, NDArray[np.int64]]]:
    """Return about `count` thresholds from "never" to "always", each with the rows that it adds to those above it.

    Every step adds equally much to the share of rows plus the share of expected errors: steps are fine where errors
    are.
    """
    order = np.argsort(-score, kind="stable")
    share = (np.arange(1, len(rows) + 1) / len(rows) + np.cumsum(risk[order]) / risk.sum()) / 2
    ends = np.unique(np.searchsorted(share, np.arange(1, count) / count) + 1)
    levels, start = [], 0
    for end in [*ends[ends < len(rows)].tolist(), len(rows)]:
        last = end == len(rows)
        between = np.float32(-np.inf) if last else (score[order[end - 1]] + score[order[end]]) / np.float32(2)
        levels.append((between, rows[order[start:end]]))
        start = end
    return levels
