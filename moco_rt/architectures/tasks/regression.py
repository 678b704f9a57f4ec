"""Regression: the task of numbers, which may differ by a tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moco_rt.architectures.tasks.base import Task


@dataclass(frozen=True)
class Regression(Task):
    """The task of a model that gives numbers: the same answer is a number that differs by at most a tolerance.

    Of a model with several numbers each of them must.

    Attributes:
        tolerance: in the units of the model's own scores, its logits as they are; above 0.

    Raises:
        ValueError: tolerance is not a number above 0.
    """

    tolerance: float
    name: ClassVar[str] = "regression"
    scores: ClassVar[tuple[str, ...]] = ("deviation",)

    def __post_init__(self) -> None:
        value = self.tolerance
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"tolerance must be a number above 0, in the score's own units (got {value!r})")

    @property
    def answer(self) -> str:
        """Name of what stays the same."""
        return f"score within {self.tolerance:g}"

    def for_model(self, config: Any) -> Regression:
        """Return the task itself.

        Raises:
            ValueError: the model gives probabilities of labels.
        """
        if config.num_labels != 1 and config.problem_type != "regression":
            raise ValueError(
                "model must have problem_type='regression', or one label, for Regression "
                f"(got num_labels={config.num_labels}, problem_type={config.problem_type})"
            )
        return self

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where no number differs by more than the tolerance; one that is not finite must be so in both."""
        a, b = given.astype(np.float64), logits.astype(np.float64)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= self.tolerance
        same: NDArray[np.bool_] = (near | (a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
        return same

    def outputs(self, num_classes: int) -> int:
        """Return 2 * C: estimates, and how far they may be off."""
        return 2 * num_classes
