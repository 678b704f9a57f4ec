"""Tasks: what a model's logits mean, and when two answers are the same; exits keep them the same."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """The task of a reranker, a model with one label: which of a query's candidates are the first.

    Two answers are the same if the set of the first `keep_top` candidates is. The unit that is split, counted and
    promised is the query with all its candidates.

    Attributes:
        keep_top: how many candidates must stay the first ones, at least 1.

    Raises:
        ValueError: keep_top is not an integer of at least 1.
    """

    keep_top: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.keep_top, bool) or not isinstance(self.keep_top, int) or self.keep_top < 1:
            raise ValueError(f"keep_top must be an integer of at least 1 (got {self.keep_top!r})")


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


@dataclass(frozen=True)
class SingleLabel(Task):
    """The task of a model that chooses one label of at least two: the same answer is the same label."""

    name: ClassVar[str] = "single_label"
    scores: ClassVar[tuple[str, ...]] = ("max_prob", "entropy")
    has_labels: ClassVar[bool] = True

    @property
    def answer(self) -> str:
        """Name of what stays the same."""
        return "label"

    def for_model(self, config: Any) -> SingleLabel:
        """Return the task itself, see `check_single_label`."""
        check_single_label(config)
        return self

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where the highest logits are of the same class."""
        same: NDArray[np.bool_] = given.argmax(axis=1) == logits.argmax(axis=1)
        return same


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
        for value in self._values():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise ValueError(f"threshold must be a number inside (0, 1), or a dict of such (got {value!r})")

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
        names = [str(config.id2label[c]) for c in range(config.num_labels)]
        if len(set(names)) < len(names) or not set(self.threshold) <= set(names):
            raise ValueError(
                f"threshold must map some of the classes {', '.join(names)} to numbers (got {dict(self.threshold)})"
            )
        return MultiLabel({name: self.threshold.get(name, 0.5) for name in names})

    def same(self, given: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where each label holds in both or in neither."""
        same: NDArray[np.bool_] = (self._holds(given) == self._holds(logits)).all(axis=1)
        return same

    def _holds(self, logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which labels hold, by the probabilities that `predict` gives: (n, C) bool."""
        probs = probabilities(torch.from_numpy(logits)).double().numpy()
        holds: NDArray[np.bool_] = probs >= np.array(self._values())
        return holds

    def holds_from(self, num_classes: int) -> tuple[float, ...]:
        """Return the threshold of each label."""
        return tuple(np.broadcast_to(np.array(self._values()), num_classes).tolist())


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


#: Tasks that a policy may be about, by their names on disk.
TASKS: dict[str, type[SingleLabel | MultiLabel | Regression]]
TASKS = {task.name: task for task in (SingleLabel, MultiLabel, Regression)}
#: The task where none is named.
SINGLE_LABEL = SingleLabel()


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return sigmoid(logits) in float32, by way of float64: in float32 its last bit depends on the place in memory."""
    return logits.double().sigmoid().float()


def task_of(config: Any, task: Task | None = None) -> Task:
    """Return a task with all that it needs of a model.

    Args:
        config: the model's, with `num_labels`, `problem_type` and `id2label`.
        task: the one that was asked for; None: the one that the configuration says, of several labels that may hold at
            once those with at least probability 0.5.

    Raises:
        ValueError: the model is for another task, or none was asked for and it gives numbers.
    """
    if task is not None:
        return task.for_model(config)
    if config.problem_type == "multi_label_classification":
        return MultiLabel()
    if config.problem_type == "regression" or config.num_labels == 1:
        raise ValueError(
            "task must be Regression(tolerance=...) for a model that gives numbers, or Ranking(keep_top=...) for a "
            "reranker (got None)"
        )
    return SINGLE_LABEL.for_model(config)


def task_from(stored: Any) -> Task:
    """Rebuild a task of `TASKS` from what `Task.stored` returned."""
    parameters = {"name": stored} if isinstance(stored, str) else dict(stored)
    return TASKS[parameters.pop("name")](**parameters)


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


def check_label_names(config: Any) -> None:
    """Refuse a configuration that does not name the classes from 0 on, one after the other.

    Args:
        config: the model's, with `id2label`.

    Raises:
        ValueError: a class has no name, or a name no class.
    """
    numbers = sorted(config.id2label or {})
    if numbers != list(range(len(numbers))):
        got = ", ".join(str(number) for number in numbers)
        raise ValueError(f"config.id2label must name the classes 0 to {len(numbers) - 1} (got names of {got})")
