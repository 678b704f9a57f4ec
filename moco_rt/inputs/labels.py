"""Labels of rows as classes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moco_rt.inputs.class_numbers import ClassNames
from moco_rt.inputs.text_files import Row
from moco_rt.storage.reasons import shortened


def true_classes(rows: Sequence[Row], config: Any) -> list[int] | None:
    """Translate the rows' labels to class numbers; None where a row has no label.

    Args:
        rows: rows whose labels are class numbers, or the model's own names of classes; in tables the numbers are text.
        config: the model's configuration. Of its names those of `id2label` count, which predictions have, too:
            `label2id` may lack, be transformers' default, or contradict them.

    Raises:
        ValueError: a label is neither, or the name of several classes.
    """
    if any(row.label in (None, "") for row in rows):
        return None
    names = ClassNames([str(name) for _, name in sorted(config.id2label.items())])
    return [_class_of(row, names) for row in rows]


def _class_of(row: Row, names: ClassNames) -> int:
    label = row.label
    found = names.find_written(label) if isinstance(label, str) else names.find(label)
    if len(found) == 1:
        return found[0]
    got = shortened(repr(label))
    if found:
        raise ValueError(f"{row.place} must have a class number: several classes are called {got} (got it)")
    known = names.listed("{number} ({name})")
    raise ValueError(f"{row.place} must have a label of the model's, one of {known} (got {got})")
