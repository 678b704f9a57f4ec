"""Tasks: what a model's logits mean, and which of them exits can settle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
