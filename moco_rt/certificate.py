"""What is promised of a policy, and the counts that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.calibrate import fixed_sequence, upper_bound
from moco_rt.search import Answers


@dataclass(frozen=True)
class ExitCount:
    """What the calibration rows say of one exit and one class.

    Attributes:
        site: where.
        predicted_class: the class the rows leave with.
        fired: rows that left there with it.
        wrong: of these, rows with another label than the full model's.
        upper_bound: the share of wrong labels among such rows is at most this (Clopper-Pearson; all exits and classes
            together hold with the certificate's confidence).
    """

    site: str
    predicted_class: int
    fired: int
    wrong: int
    upper_bound: float


@dataclass(frozen=True)
class Certificate:
    """P(label differs from the full model's) <= alpha, with confidence 1 - delta, on rows like the calibration rows.

    Attributes:
        alpha: the share of labels that may differ.
        delta: the chance, over the choice of calibration rows, that this does not hold.
        rows: calibration rows.
        disagreements: how many of them got another label.
        seconds_full: expected time of a row without exits, on the machine where the policy was found.
        seconds: expected time of a row with them.
        exits: by exit and class, those where a calibration row left.
        accuracy_full: share of right labels without exits on the calibration rows; None where labels were not given.
        accuracy: with exits.
    """

    alpha: float
    delta: float
    rows: int
    disagreements: int
    seconds_full: float
    seconds: float
    exits: tuple[ExitCount, ...]
    accuracy_full: float | None = None
    accuracy: float | None = None

    @property
    def speedup(self) -> float:
        """Expected time of a row without exits over the time with them."""
        return self.seconds_full / self.seconds


def certified(leaving: Sequence[NDArray[np.int64]], answers: Answers, alpha: float, confidence: float) -> int:
    """The place of the last policy along a path that calibration rows certify; -1: not even the first.

    Args:
        leaving: where the rows leave, (n,), by policy; the path was ordered on other rows.
        answers: of the calibration rows.
        alpha: see `Certificate`.
        confidence: 1 - delta.
    """
    disagreements = np.array([answers.wrong(exits).sum() for exits in leaving])
    return fixed_sequence(disagreements, len(answers.label), alpha, confidence)


def count_exits(
    answers: Answers, thresholds: NDArray[np.float32], sites: Sequence[str], confidence: float
) -> tuple[ExitCount, ...]:
    """Rows that left and rows that left wrongly, by exit and class."""
    exits = answers.leaves(thresholds)
    wrong = answers.wrong(exits)
    counted = []
    for place, site in enumerate(sites):
        for c in range(thresholds.shape[1]):
            left = (exits == place) & (answers.predicted[place] == c)
            if left.any():
                counted.append((site, c, int(left.sum()), int(wrong[left].sum())))
    each = 1 - (1 - confidence) / max(1, len(counted))
    return tuple(ExitCount(*count, upper_bound(count[3], count[2], each)) for count in counted)
