"""Scores of exits by row, the exit that each row takes, counts of rows by exit, and the last certified policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import ExitCount
from moco_rt.statistics.bounds import fixed_sequence, upper_bound
from moco_rt.statistics.guarantee import Guarantee


@dataclass(frozen=True)
class ExitScores:
    """Scores of E exits on n rows, exits in the order in which a row meets them, and what each way out comes to.

    What "the same answer" means is the task's affair: here a way out is right or wrong. The last way out, after the E
    exits, is to run to the end, which is never wrong where the model that runs is the one that was given.

    Attributes:
        group: (E, n) int64, which of an exit's thresholds the row must pass: the class that it predicts; 0 where there
            is one threshold.
        score: (E, n) float32, the higher the surer.
        wrong: (E + 1, n) bool, whether the row's answer, by way out, differs from that of the given model.
        labels: (E + 1, n) int64, the row's label by way out; None: the task has none.
        given: (n,) int64 labels of the given model; None likewise.
    """

    group: NDArray[np.int64]
    score: NDArray[np.float32]
    wrong: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None
    given: NDArray[np.int64] | None = None

    @classmethod
    def of_labels(
        cls,
        predicted: NDArray[np.int64],
        score: NDArray[np.float32],
        given: NDArray[np.int64],
        full: NDArray[np.int64] | None = None,
        nan: NDArray[np.bool_] | None = None,
    ) -> ExitScores:
        """Build the scores of exits that settle one label of many.

        Args:
            predicted: (E, n) classes that the exits predict.
            score: (E, n).
            given: (n,) labels of the given model.
            full: (n,) labels of the model that runs, to its end; None: those of the given model.
            nan: (2, n) where logits of the given model, and of the one that runs, are NaN: labels are no answers there.
        """
        labels = np.vstack([predicted, given if full is None else full])
        wrong = labels != given
        if nan is not None:
            wrong[:-1] |= nan[0]
            wrong[-1] |= nan[0] != nan[1]
        return cls(predicted, score, wrong, labels, given)

    @classmethod
    def of_answers(cls, score: NDArray[np.float32], wrong: NDArray[np.bool_]) -> ExitScores:
        """Build the scores of exits with one threshold each: score (E, n), wrong (E + 1, n)."""
        return cls(np.zeros(score.shape, np.int64), score, wrong)

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return len(self.wrong[-1])

    def exit_of_row(self, thresholds: NDArray[np.float32], patience: int = 1) -> NDArray[np.int64]:
        """Return the index of the exit by which each row leaves: (n,) int64; E: it runs to the end.

        Args:
            thresholds: (E, G) float32, by exit and group: what the score must exceed.
            patience: how many exits in a row, the one taken included, must have predicted the same class.
        """
        fires = self.score > np.take_along_axis(thresholds, self.group, axis=1)
        if patience > 1:
            streak = np.ones_like(self.group)
            for site in range(1, len(streak)):
                streak[site] += np.where(self.group[site] == self.group[site - 1], streak[site - 1], 0)
            fires &= streak >= patience
        left: NDArray[np.int64] = np.vstack([fires, np.ones(fires.shape[1], bool)]).argmax(axis=0)
        return left

    def label_of_row(self, exit_of_row: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the label that each row gets when it leaves by these exits: (n,) int64; None: the task has none."""
        return None if self.labels is None else self.labels[exit_of_row, np.arange(len(exit_of_row))]

    def disagrees(self, exit_of_row: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows, leaving by these exits, get another answer than the given model's: (n,) bool."""
        wrong: NDArray[np.bool_] = self.wrong[exit_of_row, np.arange(len(exit_of_row))]
        return wrong

    def at(self, places: Sequence[int]) -> ExitScores:
        """Return the same of some of the exits, by their indices."""
        chosen = list(places)
        ways = [*chosen, -1]
        labels = None if self.labels is None else self.labels[ways]
        return ExitScores(self.group[chosen], self.score[chosen], self.wrong[ways], labels, self.given)


def join_rows(parts: Sequence[ExitScores], places: NDArray[np.int64]) -> ExitScores:
    """Return the scores of the rows of all parts, by the same exits; places: (n,) of each row, part after part."""
    order = places.argsort()
    group, score, wrong = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)[:, order]
        for name in ("group", "score", "wrong")
    )
    labels = [part.labels for part in parts if part.labels is not None]
    given = [part.given for part in parts if part.given is not None]
    if not labels:
        return ExitScores(group, score, wrong)
    return ExitScores(group, score, wrong, np.concatenate(labels, axis=1)[:, order], np.concatenate(given)[order])


def last_certified(exits_of_policies: Iterable[NDArray[np.int64]], scores: ExitScores, guarantee: Guarantee) -> int:
    """Return the index of the last policy along a path that calibration rows certify; -1: not even the first.

    Args:
        exits_of_policies: for each policy the exit of each row, (n,); the path was ordered on other rows.
        scores: those of the calibration rows, each row distinct.
        guarantee: the statement to be shown.
    """
    disagreements = np.array([scores.disagrees(exit_of_row).sum() for exit_of_row in exits_of_policies])
    return fixed_sequence(disagreements, scores.rows, guarantee)


def count_ways_out(
    exits: NDArray[np.int64], differs: NDArray[np.bool_], places: Sequence[int], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count rows that left, and rows that left wrongly, by exit: two arrays (count,) int64.

    Args:
        exits: (n,) the exit of each row, an index in `places`; len(places): it runs to the end.
        differs: (n,) whether its answer is wrong.
        places: the number of each exit, below `count`.
        count: how many exits there are to count by.
    """
    left = exits < len(places)
    numbers = np.array(places, np.int64)[exits[left]]
    return np.bincount(numbers, minlength=count), np.bincount(numbers[differs[left]], minlength=count)


def count_exits(
    scores: ExitScores, thresholds: NDArray[np.float32], sites: Sequence[str], delta: float
) -> tuple[ExitCount, ...]:
    """Count rows that left, and rows that left wrongly, by exit and class, or by exit where there are no classes.

    Args:
        scores: those of the calibration rows.
        thresholds: (E, G) float32, by exit and class; G is 1 where there are none.
        sites: names of the E exits.
        delta: the chance that any of the upper bounds is wrong; E * G bounds share it.
    """
    exits = scores.exit_of_row(thresholds)
    wrong = scores.disagrees(exits)
    counted = []
    for place, site in enumerate(sites):
        for c in range(thresholds.shape[1]):
            left = (exits == place) & (scores.group[place] == c)
            if left.any():
                counted.append((site, c, int(left.sum()), int(wrong[left].sum())))
    each = 1 - delta / max(1, thresholds.size)
    return tuple(ExitCount(*count, upper_bound(count[3], count[2], each)) for count in counted)
