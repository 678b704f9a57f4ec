"""PolicyPath: all policies that a certificate was looked for along, compact enough to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PolicyPath:
    """P policies over E exits and C classes, from "no row leaves" to the fastest, with what they did to n rows.

    A policy differs from the one before in one threshold at most, so the P tensors (E, C) are stored as the first,
    which is infinite everywhere, and one step each. With the counts, another policy can be chosen, for another
    guarantee too, without any data: `fixed_sequence(disagreements, rows, guarantee)` is all that the test needs.

    Attributes:
        shape: (E, C).
        steps: (P, 2) int64, the exit and the class whose threshold a policy changes.
        levels: (P,) float32, the threshold's new value; infinite in the first policy, which changes nothing.
        disagreements: (P,) int64, distinct calibration rows whose label differs.
        seconds: (P,) float64, their mean seconds.
        rows: n, distinct calibration rows.
        certified: index of the last policy that fulfils the guarantee; all before it do as well.
        chosen: index of the policy that was taken.
    """

    shape: tuple[int, int]
    steps: NDArray[np.int64]
    levels: NDArray[np.float32]
    disagreements: NDArray[np.int64]
    seconds: NDArray[np.float64]
    rows: int
    certified: int
    chosen: int

    @classmethod
    def of(
        cls,
        thresholds: Sequence[NDArray[np.float32]],
        disagreements: NDArray[np.int64],
        seconds: NDArray[np.float64],
        rows: int,
        certified: int,
        chosen: int,
    ) -> PolicyPath:
        """Build a path from the thresholds (E, C) of its policies, see `find_path`, and their counts."""
        steps, levels = [(0, 0)], [np.float32(np.inf)]
        for before, after in pairwise(thresholds):
            changed = np.argwhere(before != after)
            exit, c = changed[0] if len(changed) else (0, 0)
            steps.append((int(exit), int(c)))
            levels.append(after[exit, c])
        exits, classes = thresholds[0].shape
        return cls((exits, classes), np.array(steps), np.array(levels), disagreements, seconds, rows, certified, chosen)

    def thresholds(self, place: int) -> NDArray[np.float32]:
        """Return the thresholds (E, C) float32 of one policy, by its index."""
        thresholds = np.full(self.shape, np.inf, np.float32)
        for (exit, c), level in zip(self.steps[: place + 1], self.levels[: place + 1], strict=True):
            thresholds[exit, c] = level
        return thresholds

    def operating_points(self) -> NDArray[np.float64]:
        """Return mean seconds and share of differing rows of every policy: (P, 2) float64."""
        return np.column_stack([self.seconds, self.disagreements / self.rows])
