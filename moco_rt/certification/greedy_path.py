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
    ladders: list[_Ladder] = []
    for exit in range(exits):
        for group in range(num_groups):
            rows = np.flatnonzero((scores.group[exit] == group) & np.isfinite(scores.score[exit]))
            if len(rows):
                steps = _levels(rows, scores.score[exit, rows], risk[exit, rows], levels)
                ladders.append(_Ladder(exit, group, steps, seconds[:, exit], risk[exit]))
    exit_of_row, seconds_of_row, risk_of_row = np.full(n, exits), seconds[:, -1].copy(), np.zeros(n)
    taken: list[tuple[int, int]] = []
    thresholds: list[np.float32] = []
    errors, times = [float(wrong[-1].sum())], [float(seconds[:, -1].sum())]
    while ladders:
        # What every ladder's next step would change, for the rows that leave later at present: all at once.
        rows = np.concatenate([ladder.rows for ladder in ladders])
        starts = np.cumsum([0, *(len(ladder.rows) for ladder in ladders[:-1])])
        exit_of_step = np.repeat([ladder.exit for ladder in ladders], [len(ladder.rows) for ladder in ladders])
        moves = exit_of_row[rows] > exit_of_step
        seconds_there = np.concatenate([ladder.seconds for ladder in ladders])
        risk_there = np.concatenate([ladder.risk for ladder in ladders])
        saved = np.add.reduceat((seconds_of_row[rows] - seconds_there) * moves, starts)
        added = np.add.reduceat((risk_there - risk_of_row[rows]) * moves, starts)
        best = int(np.argmax(saved / np.maximum(added, 1e-9)))
        ladder = ladders[best]
        moved = ladder.rows[exit_of_row[ladder.rows] > ladder.exit]
        counted = float((wrong[ladder.exit, moved] - wrong[exit_of_row[moved], moved]).sum())
        expected = float(added[best]) - float(wrong[-1, moved[exit_of_row[moved] == exits]].sum())
        exit_of_row[moved] = ladder.exit
        seconds_of_row[moved], risk_of_row[moved] = seconds[moved, ladder.exit], risk[ladder.exit, moved]
        taken.append((ladder.exit, ladder.group))
        thresholds.append(ladder.level)
        errors.append(errors[-1] + _COUNTED * counted + (1 - _COUNTED) * expected)
        times.append(times[-1] - float(saved[best]))
        if not ladder.climb():
            ladders.pop(best)
    return GreedyPath(
        np.array(taken, np.int64).reshape(-1, 2),
        np.array(thresholds, np.float32),
        np.array(errors) / n,
        np.array(times) / n,
        (exits, num_groups),
    )


class _Ladder:
    """The steps that lower one threshold, of one exit and group, from the first on.

    Attributes:
        level: the threshold's value after the next step.
        rows: (k,) rows that this step adds.
        seconds: (k,) what they cost by this exit.
        risk: (k,) their chance of an error by it.
    """

    def __init__(
        self,
        exit: int,
        group: int,
        steps: list[tuple[np.float32, NDArray[np.int64]]],
        seconds: NDArray[np.float64],
        risk: NDArray[np.float64],
    ):
        self.exit, self.group = exit, group
        self._steps = iter([(level, rows, seconds[rows], risk[rows]) for level, rows in steps])
        self.climb()

    def climb(self) -> bool:
        """Go on to the next step, if there is one."""
        step = next(self._steps, None)
        if step is not None:
            self.level, self.rows, self.seconds, self.risk = step
        return step is not None


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
