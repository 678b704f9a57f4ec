"""Greedy paths: thresholds of ever faster policies over some exits, each step saving most time per error added.

It knows only scores of rows at every exit, which ways out are wrong, and the seconds that each way out costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.statistics.calibration import wrong_curve

#: Share of the count in an estimate of errors; the rest is expected from scores. A count is noisy where rows are few;
#: an expectation does not know which rows have left before: those who come later are the harder ones.
_COUNTED = 0.5


@dataclass(frozen=True)
class GreedyPath:
    """P policies over E exits and G groups, from "no row leaves" to "all leave at once".

    A policy differs from the one before in one threshold.

    Attributes:
        steps: (P - 1, 2) int64, the exit and the group whose threshold each policy but the first lowers.
        levels: (P - 1,) float32, the threshold's new value.
        errors: (P,) float64, estimated share of rows that get another answer: half of it counted, half expected.
        seconds: (P,) float64, mean seconds of a row.
        shape: (E, G).
    """

    steps: NDArray[np.int64]
    levels: NDArray[np.float32]
    errors: NDArray[np.float64]
    seconds: NDArray[np.float64]
    shape: tuple[int, int]

    def thresholds(self, place: int) -> NDArray[np.float32]:
        """Return the thresholds (E, G) float32 of a policy, by its index."""
        thresholds = np.full(self.shape, np.inf, np.float32)
        exits, groups = self.steps[:place].T
        thresholds[exits, groups] = self.levels[:place]  # of several to one entry the last stays
        return thresholds


def expected_errors(
    scores: ExitScores, num_groups: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Estimate the chance that a row's answer is wrong, by exit, weighted: (E, n); 0 where the score is not finite.

    One logistic curve over the score for each exit and group smooths it: raw counts of the few errors among the
    surest rows would be noise. A row whose score is not finite cannot leave, so its chance does not matter.

    Args:
        scores: those of the ordering rows.
        num_groups: G.
        weights: (n,) what a wrong answer of each row weighs; None: 1. An exit's wrong answers of a group weigh what
            they do on average, for which row will be wrong is not known.
    """
    risk = np.zeros(scores.score.shape)
    for exit, (groups, score) in enumerate(zip(scores.group, scores.score, strict=True)):
        for group in range(num_groups):
            rows = np.flatnonzero((groups == group) & np.isfinite(score))
            if len(rows):
                wrong = scores.wrong[exit, rows]
                risk[exit, rows] = wrong_curve(score[rows], wrong)
                if weights is not None and wrong.any():
                    risk[exit, rows] *= weights[rows[wrong]].mean()
    return risk


def find_path(
    scores: ExitScores,
    risk: NDArray[np.float64],
    seconds: NDArray[np.float64],
    num_groups: int,
    policies: int,
    weights: NDArray[np.float64] | None = None,
) -> GreedyPath:
    """Build thresholds of ever faster policies, greedily: next comes the step that saves most time per error added.

    A step lowers one threshold, of one exit and group. Rows that leave earlier than before trade one exit's chance of
    an error for another's. What a row that runs to the end costs in errors is counted, but steers no step: that the
    model which runs is wrong there is no reason to let a row leave.

    Args:
        scores: those of the rows that order the path; the certificate must come from other rows.
        risk: (E, n), see `expected_errors`.
        seconds: (n, E + 1), cost of each row by the exit where it leaves; last: it runs to the end.
        num_groups: G.
        policies: about how many policies to build.
        weights: (n,), see `expected_errors`.
    """
    exits, n = scores.score.shape
    levels = max(10, policies // max(1, exits * num_groups))
    wrong = scores.wrong * (np.ones(n) if weights is None else weights)
    risk = np.vstack([risk, np.zeros(n)])
    steps: dict[tuple[int, int], list[tuple[np.float32, NDArray[np.int64]]]] = {}
    for exit in range(exits):
        for group in range(num_groups):
            rows = np.flatnonzero((scores.group[exit] == group) & np.isfinite(scores.score[exit]))
            if len(rows):
                steps[exit, group] = _levels(rows, scores.score[exit, rows], risk[exit, rows], levels)
    exit_of_row = np.full(n, exits)
    taken: list[tuple[int, int]] = []
    thresholds: list[np.float32] = []
    errors, times = [float(wrong[-1].sum())], [float(seconds[:, -1].sum())]

    def change(key: tuple[int, int]) -> tuple[float, float]:
        """Seconds saved, and errors added, by the next step of an exit and group."""
        rows = steps[key][0][1]
        rows = rows[exit_of_row[rows] > key[0]]
        saved = float((seconds[rows, exit_of_row[rows]] - seconds[rows, key[0]]).sum())
        return saved, float((risk[key[0], rows] - risk[exit_of_row[rows], rows]).sum())

    def worth(key: tuple[int, int]) -> float:
        saved, added = change(key)
        return saved / max(added, 1e-9)

    # Lazy greedy. The worth of a step depends only on its own rows and on where these leave at present. A step of exit
    # e and group g moves some rows, and each moved row is part of the steps of just one group at every exit: its own
    # group there. Only those (exit, group) pairs, and the pair whose next step is a new one, can have another worth
    # now; all others keep theirs.
    worths = {key: worth(key) for key in steps}
    while worths:
        best = max(worths, key=lambda key: worths[key])
        saved, expected = change(best)
        level, rows = steps[best].pop(0)
        moved = rows[exit_of_row[rows] > best[0]]
        counted = float((wrong[best[0], moved] - wrong[exit_of_row[moved], moved]).sum())
        expected -= float(wrong[-1, moved[exit_of_row[moved] == exits]].sum())
        exit_of_row[moved] = best[0]
        taken.append(best)
        thresholds.append(level)
        errors.append(errors[-1] + _COUNTED * counted + (1 - _COUNTED) * expected)
        times.append(times[-1] - saved)
        if not steps[best]:
            del steps[best], worths[best]
        touched = {(exit, group) for exit in range(exits) for group in np.unique(scores.group[exit, moved]).tolist()}
        for key in {best, *touched} & steps.keys():
            worths[key] = worth(key)
    return GreedyPath(
        np.array(taken, np.int64).reshape(-1, 2),
        np.array(thresholds, np.float32),
        np.array(errors) / n,
        np.array(times) / n,
        (exits, num_groups),
    )


def _levels(
    rows: NDArray[np.int64], score: NDArray[np.float32], risk: NDArray[np.float64], count: int
) -> list[tuple[np.float32, NDArray[np.int64]]]:
    """Return about `count` thresholds from "never" to "always", each with the rows that it adds to those above it.

    Every step adds equally much to the share of rows plus the share of expected errors: steps are fine where errors
    are.
    """
    order = np.argsort(-score, kind="stable")
    rows_so_far, errors_so_far = np.arange(1, len(rows) + 1) / len(rows), np.cumsum(risk[order])
    weigh = errors_so_far[-1] > 0  # where nothing is promised of any of the rows, no error weighs anything
    share = (rows_so_far + (errors_so_far / errors_so_far[-1] if weigh else rows_so_far)) / 2
    ends = np.unique(np.searchsorted(share, np.arange(1, count) / count) + 1)
    levels, start = [], 0
    for end in [*ends[ends < len(rows)].tolist(), len(rows)]:
        last = end == len(rows)
        between = np.float32(-np.inf) if last else (score[order[end - 1]] + score[order[end]]) / np.float32(2)
        levels.append((between, rows[order[start:end]]))
        start = end
    return levels
