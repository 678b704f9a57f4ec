"""Labels of rows as classes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moco_rt.inputs.text_files import Row


def true_classes(rows: Sequence[Row], config: Any) -> list[int] | None:
    """Translate the rows' labels to class numbers; None where a row has no label.

    Args:
        rows: rows whose labels are class numbers, or the model's own names of classes; in tables the numbers are text.
        config: the model's configuration.

    Raises:
        ValueError: a label is neither.
    """
    if any(row.label in (None, "") for row in rows):
        return None
    return [_class_of(row, config) for row in rows]


def _class_of(row: Row, config: Any) -> int:
    label = row.label
    if isinstance(label, str):
        if label in config.label2id:
            return int(config.label2id[label])
        label = int(label) if label.isdecimal() else label
    if type(label) is int and label in config.id2label:
        return label
    known = ", ".join(f"{number} ({name})" for number, name in config.id2label.items())
    raise ValueError(f"{row.place} must have a label of the model's, one of {known} (got {row.label!r})")
