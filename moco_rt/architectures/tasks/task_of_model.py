"""The task of a model: from its configuration, from what was asked for, from a file."""

from __future__ import annotations

from typing import Any

from moco_rt.architectures.tasks.base import Task
from moco_rt.architectures.tasks.multi_label import MultiLabel
from moco_rt.architectures.tasks.regression import Regression
from moco_rt.architectures.tasks.single_label import Flags, SingleLabel

#: Tasks that a policy may be about, by their names on disk.
TASKS: dict[str, type[SingleLabel | Flags | MultiLabel | Regression]]
TASKS = {task.name: task for task in (SingleLabel, Flags, MultiLabel, Regression)}
#: The task where none is named.
SINGLE_LABEL = SingleLabel()


def task_of(config: Any, task: Task | None = None) -> Task:
    """Return a task with all that it needs of a model.

    Args:
        config: the model's, with `num_labels`, `problem_type` and `id2label`.
        task: the one that was asked for; None: the one that the configuration says, of several labels that may hold at
            once those with at least probability 0.5.

    Raises:
        TypeError: task is none.
        ValueError: the model is for another task, or none was asked for and it gives numbers.
    """
    if task is not None:
        if not isinstance(task, Task):
            raise TypeError(
                f"task must be SingleLabel(...), MultiLabel(...), Regression(...) or Ranking(...) (got {task!r})"
            )
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
