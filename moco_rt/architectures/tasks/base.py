"""Task: what "the same answer" means of a row by itself, asked wherever it matters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Task(ABC):
    """Base of what "the same answer" means of a row by itself. Everything that depends on it is asked here.

    Attributes:
        name: what files call it.
        scores: the scores by which an off-ramp may settle it; the first is the one that `accelerate` uses.
        has_labels: whether an answer is the number of a class: an off-ramp then has a threshold for each, else one.
    """

    name: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    has_labels: ClassVar[bool] = False

    @property
    @abstractmethod
    def answer(self) -> str:
        """Name of what stays the same, as a certificate says it."""

    @abstractmethod
    def for_model(self, config: Any) -> Task:
        """Return the task with all that it needs of a model; raises ValueError where the model is for another one."""

    @abstractmethod
    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where the answers of two models to n rows are the same: (n,) bool. Both: (n, C) logits."""

    def labels(self, logits: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the class of each row, where an answer is one: (n,) int64; logits: (n, C)."""
        labels: NDArray[np.int64] = logits.argmax(axis=1)
        return labels

    def outputs(self, num_classes: int) -> int:
        """Return how many outputs an off-ramp has; num_classes: C."""
        return num_classes

    def groups(self, num_classes: int) -> int:
        """Return how many thresholds an off-ramp has; num_classes: C."""
        return num_classes if self.has_labels else 1

    def holds_from(self, num_classes: int) -> tuple[float, ...]:  # noqa: ARG002
        """Return the probability from which each of C labels holds, where several may hold at once; else nothing."""
        return ()

    def levels(self, num_classes: int) -> tuple[float, ...]:
        """Return the logits of `holds_from`."""
        return tuple(math.log(value / (1 - value)) for value in self.holds_from(num_classes))

    def stored(self) -> str | dict[str, Any]:
        """Return the form on disk: the name, with parameters where it has any."""
        return {"name": self.name, **vars(self)} if vars(self) else self.name


def same_nan(given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where the logits of two models, (n, C) each, are NaN in the same places: NaN is nobody's answer."""
    same: NDArray[np.bool_] = (np.isnan(given) == np.isnan(logits)).all(axis=1)
    return same


def check_thresholds(values: Any) -> None:
    """Raise ValueError unless all thresholds of classes are numbers inside (0, 1)."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"threshold must be a number inside (0, 1), or a dict of such (got {value!r})")


def names_of_classes(config: Any, threshold: Mapping[str, float]) -> list[str]:
    """Return the names of a model's classes, by number.

    Args:
        config: the model's.
        threshold: by the names of some of them.

    Raises:
        ValueError: two classes have one name, or none has a name of the thresholds.
    """
    names = [str(config.id2label[c]) for c in range(config.num_labels)]
    if len(set(names)) < len(names) or not set(threshold) <= set(names):
        raise ValueError(f"threshold must map some of the classes {', '.join(names)} to numbers (got {threshold})")
    return names
