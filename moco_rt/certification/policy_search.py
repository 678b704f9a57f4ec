"""One ordered path of policies, from "nobody leaves" to the fastest: what a certificate is then looked for along.

Rows with scores at every site, the full model's labels and the time each way out costs are all it knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.calibration import wrong_curve
from moco_rt.certification.exit_scores import ExitScores

#: Policies along a path, about, shared by all thresholds: a step may add no more errors than a certificate can tell
#: apart. To compare choices of off-ramps fewer do.
_POLICIES, _FEWER = 4000, 1000


class Timing(Protocol):
    """What it takes to leave; see `Costs.seconds`."""

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Seconds (n, len(chosen) + 1) of rows that leave by one of the chosen ways out, or run to the end."""
        ...


def expected_errors(answers: ExitScores, num_classes: int) -> NDArray[np.float64]:
    """The chance that a row's answer is wrong, by off-ramp: (E, n); 0 where its score is not finite: it cannot leave.

    By a logistic curve over the score, one for each off-ramp and class: counts of the few errors among the surest rows
    would be noise.

    Args:
        answers: of the rows.
        num_classes: C.
    """
    risk = np.zeros(answers.score.shape)
    for site, (predicted, score) in enumerate(zip(answers.predicted, answers.score, strict=True)):
        for c in range(num_classes):
            rows = np.flatnonzero((predicted == c) & np.isfinite(score))
            if len(rows):
                risk[site, rows] = wrong_curve(score[rows], answers.label[rows] != c)
    return risk


def find_path(
    answers: ExitScores,
    risk: NDArray[np.float64],
    seconds: NDArray[np.float64],
    num_classes: int,
    policies: int = _POLICIES,
) -> list[NDArray[np.float32]]:
    """Thresholds (E, C) of ever faster policies: greedily, the step with most time saved per disagreement added next.

    Rows that leave earlier than before trade one exit's chance of an error for another's.

    Args:
        answers: of the rows that order the path; the certificate must come from others.
        risk: (E, n), see `expected_errors`.
        seconds: (n, E + 1), what each row costs that leaves at a site, or runs to the end.
        num_classes: C.
        policies: about so many.
    """
    sites, n = answers.score.shape
    levels = max(10, policies // (sites * num_classes))
    risk = np.vstack([risk, np.zeros(n)])  # who runs to the end is never wrong
    thresholds = np.full((sites, num_classes), np.inf, np.float32)
    steps: dict[tuple[int, int], list[tuple[np.float32, NDArray[np.int64]]]] = {}
    for site in range(sites):
        for c in range(num_classes):
            rows = np.flatnonzero((answers.predicted[site] == c) & np.isfinite(answers.score[site]))
            if len(rows) == 0:
                continue
            steps[site, c] = _levels(rows, answers.score[site, rows], risk[site, rows], levels)
    exits = np.full(n, sites)
    path = [thresholds.copy()]

    def worth(key: tuple[int, int]) -> float:
        rows = steps[key][0][1]
        rows = rows[exits[rows] > key[0]]
        saved = float((seconds[rows, exits[rows]] - seconds[rows, key[0]]).sum())
        added = float((risk[key[0], rows] - risk[exits[rows], rows]).sum())
        return saved / max(added, 1e-9)

    worths = {key: worth(key) for key in steps}
    while worths:
        best = max(worths, key=lambda key: worths[key])
        threshold, rows = steps[best].pop(0)
        thresholds[best] = threshold
        path.append(thresholds.copy())
        moved = rows[exits[rows] > best[0]]
        exits[moved] = best[0]
        if not steps[best]:
            del steps[best], worths[best]
        touched = {(site, c) for site in range(sites) for c in np.unique(answers.predicted[site, moved]).tolist()}
        for key in {best, *touched} & steps.keys():
            worths[key] = worth(key)
    return path


def search(
    answers: ExitScores,
    sites: Sequence[str],
    costs: Timing,
    lengths: NDArray[np.int64],
    alpha: float,
    num_classes: int,
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The off-ramps that pay, at most one at each site, and the path of policies over them.

    From one on, a site at a time is given an off-ramp, another one, or none, whichever takes most from the time at a
    disagreement of alpha on the path's own rows: every off-ramp costs every row that reaches it.

    Args:
        answers: of the rows that order the path, by E off-ramps.
        sites: where each of these stands.
        costs: of leaving by them.
        lengths: (n,) of the rows, or whatever else of them `costs` wants.
        alpha: share of labels that may differ.
        num_classes: C.
        groups: of off-ramps: the best choice within one of them is where a choice among all of theirs starts from;
            None: one of all.

    Returns:
        Places of the off-ramps, at least one, and thresholds (chosen, C) of ever faster policies.
    """
    risk = expected_errors(answers, num_classes)

    def fastest(choices: list[list[int]]) -> tuple[float, list[int]]:
        times = [
            _time_along(answers.at(some), risk[some], costs.seconds(lengths, some), alpha, num_classes)
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
    return chosen, find_path(answers.at(chosen), risk[chosen], costs.seconds(lengths, chosen), num_classes)


def _neighbours(chosen: list[int], sites: Sequence[str], among: set[int]) -> list[list[int]]:
    """Choices of some off-ramps, at most one at each site, that differ at one site."""
    apart = {site: [place for place in chosen if sites[place] != site] for site in sites}
    choices = [*apart.values(), *(sorted([*apart[sites[place]], place]) for place in sorted(among))]
    return [choice for choice in choices if choice and choice != chosen]


def _time_along(
    answers: ExitScores, risk: NDArray[np.float64], seconds: NDArray[np.float64], alpha: float, num_classes: int
) -> float:
    """The time of a row where the path reaches alpha, between two policies."""
    rows = np.arange(len(seconds))
    error, time = 0.0, float(seconds[:, -1].mean())
    for thresholds in find_path(answers, risk, seconds, num_classes, _FEWER):
        exits = answers.exit_of_row(thresholds)
        before, error = (error, time), float(answers.disagrees(exits).mean())
        time = float(seconds[rows, exits].mean())
        if error > alpha:
            return float(np.interp(alpha, [before[0], error], [before[1], time]))
    return time


def _levels(
    rows: NDArray[np.int64], score: NDArray[np.float32], risk: NDArray[np.float64], count: int
) -> list[tuple[np.float32, NDArray[np.int64]]]:
    """So many thresholds from "never" to "always", each with the rows that it adds to those above it.

    Every step adds as much to the share of rows and the share of expected errors together: fine where errors are.
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
