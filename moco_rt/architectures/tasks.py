"""Tasks: what a model's logits mean, and which of them exits can settle."""

from __future__ import annotations

from typing import Any


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
