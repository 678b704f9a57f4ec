"""SingleLabel: the task of one label of many; and that of comparing its probabilities with thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.special import softmax as softmax_of
from torch import Tensor

from moco_rt.architectures.tasks.base import Task, check_thresholds, names_of_classes, same_nan


@dataclass(frozen=True)
class SingleLabel(Task):
    """The task of a model that chooses one label of at least two: the same answer is the same label.

    Attributes:
        threshold: of the user's own: a dict from names of some classes to probabilities inside (0, 1). The same answer
            is then that the same of these classes have at least that probability, whatever the label is.

    Raises:
        ValueError: the dict is empty, or a threshold is not a number inside (0, 1).
    """

    threshold: Mapping[str, float] | None = None
    name: ClassVar[str] = "single_label"
    scores: ClassVar[tuple[str, ...]] = ("max_prob", "entropy")
    has_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.threshold is None:
            return
        if not isinstance(self.threshold, Mapping) or not self.threshold:
            raise ValueError(f"threshold must map names of classes to numbers (got {self.threshold!r})")
        check_thresholds(self.threshold.values())

    @property
    def answer(self) -> str:
        """Name of what stays the same."""
        return "label"

    def for_model(self, config: Any) -> Task:
        """Return the task itself, or where there are thresholds that of comparing with them.

        Raises:
            ValueError: see `check_single_label`; or the model has no class of a name.
        """
        check_single_label(config)
        if self.threshold is None:
            return self
        threshold = dict(self.threshold)
        return Flags({name: threshold.get(name) for name in names_of_classes(config, threshold)})

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where the highest logits are of the same class; NaN must be so in both."""
        same: NDArray[np.bool_] = (self.labels(given) == self.labels(logits)) & same_nan(given, logits)
        return same

    def stored(self) -> str:
        """Return the form on disk, without thresholds: with them it is another task of a model."""
        return self.name


@dataclass(frozen=True)
class Flags(Task):
    """The task of comparing probabilities of one label of many with thresholds: the same answer is the same flags.

    Attributes:
        threshold: by the names of all classes in their order: the probability, softmax of the logits, from which the
            class is flagged; None: nobody compares it.
    """

    threshold: Mapping[str, float | None]
    name: ClassVar[str] = "flags"
    scores: ClassVar[tuple[str, ...]] = ("odds",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", dict(self.threshold))
        check_thresholds(value for value in self.threshold.values() if value is not None)

    @property
    def answer(self) -> str:
        """Name of what stays the same."""
        return "side of the thresholds"

    def for_model(self, config: Any) -> Flags:
        """Return the task itself; raises ValueError where the model has other classes."""
        check_single_label(config)
        if names_of_classes(config, {}) != list(self.threshold):
            raise ValueError(f"threshold must name the model's classes (got {', '.join(self.threshold)})")
        return self

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where each class that is compared is flagged in both or in neither; NaN must be so in both."""
        same: NDArray[np.bool_] = (self.flagged(given) == self.flagged(logits)).all(axis=1) & same_nan(given, logits)
        return same

    def flagged(self, logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which classes reach their thresholds: (n, C) bool; those that nobody compares do not."""
        return np.stack([log_odds(logits, c) >= level for c, level in enumerate(self.levels(logits.shape[1]))], axis=1)

    def levels(self, num_classes: int) -> tuple[float, ...]:  # noqa: ARG002
        """Return the log-odds from which each class is flagged; infinite: never."""
        thresholds = self.threshold.values()
        return tuple(math.inf if value is None else math.log(value / (1 - value)) for value in thresholds)


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax of logits (n, C), on the CPU, in float32, computed in the caller's thread alone.

    `torch.softmax` wakes torch's own threads for however few rows; they then look for more work for milliseconds, on
    the cores that the kernels' threads need. In float64, so that no bit depends on a row's place in memory.
    """
    with np.errstate(invalid="ignore"):  # of infinite logits it is NaN, as torch's is
        probs: NDArray[np.float64] = softmax_of(logits.numpy().astype(np.float64), axis=1)
    return torch.from_numpy(probs.astype(np.float32))


def log_odds(logits: NDArray[np.floating], classes: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) of a class, p = softmax(logits): (n,); logits: (n, C); classes: (n,), or one of all."""
    others = logits.astype(np.float64)
    rows = np.arange(len(others))
    own = others[rows, classes]
    others[rows, classes] = -np.inf
    odds: NDArray[np.float64] = own - logsumexp(others, axis=1)
    return odds


def check_single_label(config: Any) -> None:
    """Refuse exits, and looking for them, for a model that does not choose one label of at least two.

    Args:
        config: the model's, with `num_labels` and `problem_type`.

    Raises:
        ValueError: the model has one label, several that may hold at once, or predicts numbers.
    """
    if (config.num_labels or 0) < 2 or config.problem_type in ("regression", "multi_label_classification"):
        raise ValueError(
            "model must choose one label of at least two: a row may leave when its label is settled "
            f"(got num_labels={config.num_labels}, problem_type={config.problem_type})"
        )
