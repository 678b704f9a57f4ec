"""What off-ramps say of rows, what a policy makes of that, and how far along a path of policies it can be certified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.bounds import fixed_sequence, upper_bound
from moco_rt.certification.certificate import ExitCount


@dataclass(frozen=True)
class ExitScores:
    """What E off-ramps say of n rows, in the order in which a row meets them.

    Attributes:
        predicted: (E, n) classes.
        score: (E, n) float32, the higher the surer.
        label: (n,) the full model's.
    """

    predicted: NDArray[np.int64]
    score: NDArray[np.float32]
    label: NDArray[np.int64]

    def exit_of_row(self, thresholds: NDArray[np.float32], patience: int = 1) -> NDArray[np.int64]:
        """Where every row leaves under thresholds (E, C): (n,), E where it runs to the end.

        patience: so many sites in a row, the one where it leaves included, must have predicted the same class.
        """
        fires = self.score > np.take_along_axis(thresholds, self.predicted, axis=1)
        if patience > 1:
            streak = np.ones_like(self.predicted)
            for site in range(1, len(streak)):
                streak[site] += np.where(self.predicted[site] == self.predicted[site - 1], streak[site - 1], 0)
            fires &= streak >= patience
        left: NDArray[np.int64] = np.vstack([fires, np.ones(fires.shape[1], bool)]).argmax(axis=0)
        return left

    def disagrees(self, exits: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows get another label than the full model's, leaving there: (n,)."""
        answers = np.vstack([self.predicted, self.label])
        wrong: NDArray[np.bool_] = answers[exits, np.arange(len(exits))] != self.label
        return wrong

    def at(self, places: Sequence[int]) -> ExitScores:
        """The answers of some of the off-ramps."""
        return ExitScores(self.predicted[list(places)], self.score[list(places)], self.label)


def last_certified(leaving: Iterable[NDArray[np.int64]], answers: ExitScores, alpha: float, confidence: float) -> int:
    """The place of the last policy along a path that calibration rows certify; -1: not even the first.

    Args:
        leaving: where the rows leave, (n,), by policy; the path was ordered on other rows.
        answers: of the calibration rows.
        alpha: see `Certificate`.
        confidence: 1 - delta.
    """
    disagreements = np.array([answers.disagrees(exits).sum() for exits in leaving])
    return fixed_sequence(disagreements, len(answers.label), alpha, confidence)


def count_exits(
    answers: ExitScores, thresholds: NDArray[np.float32], sites: Sequence[str], confidence: float
) -> tuple[ExitCount, ...]:
    """Rows that left and rows that left wrongly, by exit and class; the bounds share out 1 - confidence."""
    exits = answers.exit_of_row(thresholds)
    wrong = answers.disagrees(exits)
    counted = []
    for place, site in enumerate(sites):
        for c in range(thresholds.shape[1]):
            left = (exits == place) & (answers.predicted[place] == c)
            if left.any():
                counted.append((site, c, int(left.sum()), int(wrong[left].sum())))
    each = 1 - (1 - confidence) / max(1, thresholds.size)
    return tuple(ExitCount(*count, upper_bound(count[3], count[2], each)) for count in counted)
