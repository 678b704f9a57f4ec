"""MultiLabel: the task of labels that may hold at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.architectures.tasks.base import Task, check_thresholds, names_of_classes, same_nan


@dataclass(frozen=True)
class MultiLabel(Task):
    """The task of a model whose labels may hold at once: the same answer is the same set of labels.

    A label holds where its probability, sigmoid of its logit, is at least its threshold.

    Attributes:
        threshold: inside (0, 1), of all labels; or a dict from names of classes to those, 0.5 for the others.

    Raises:
        ValueError: a threshold is not a number inside (0, 1).
    """

    threshold: float | Mapping[str, float] = 0.5
    name: ClassVar[str] = "multi_label"
    scores: ClassVar[tuple[str, ...]] = ("sides",)

    def __post_init__(self) -> None:
        if isinstance(self.threshold, Mapping):
            object.__setattr__(self, "threshold", dict(self.threshold))
        check_thresholds(self._values())

    def _values(self) -> Sequence[float]:
        return list(self.threshold.values()) if isinstance(self.threshold, Mapping) else [self.threshold]

    @property
    def answer(self) -> str:
        """Name of what stays the same."""
        return "set of labels"

    def for_model(self, config: Any) -> MultiLabel:
        """Return the task; where thresholds differ, with that of every class, in their order.

        Raises:
            ValueError: not several labels of the model may hold at once, or it has no class of a name.
        """
        if config.problem_type != "multi_label_classification":
            raise ValueError(
                "model must have problem_type='multi_label_classification' for MultiLabel "
                f"(got num_labels={config.num_labels}, problem_type={config.problem_type})"
            )
        if not isinstance(self.threshold, Mapping):
            return self
        threshold = dict(self.threshold)
        return MultiLabel({name: threshold.get(name, 0.5) for name in names_of_classes(config, threshold)})

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where each label holds in both or in neither; NaN must be so in both."""
        same: NDArray[np.bool_] = (self._holds(given) == self._holds(logits)).all(axis=1) & same_nan(given, logits)
        return same

    def _holds(self, logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which labels hold, by the probabilities that `predict` gives: (n, C) bool."""
        probs = probabilities(torch.from_numpy(logits)).double().numpy()
        holds: NDArray[np.bool_] = probs >= np.array(self._values())
        return holds

    def holds_from(self, num_classes: int) -> tuple[float, ...]:
        """Return the threshold of each label."""
        return tuple(np.broadcast_to(np.array(self._values()), num_classes).tolist())


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return sigmoid(logits) in float32, by way of float64: in float32 its last bit depends on the place in memory."""
    return logits.double().sigmoid().float()
