"""True classes as callers pass them, as class numbers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Names of classes that an error lists before it breaks off.
_LISTED = 5


def class_numbers(labels: Any, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return labels as class numbers, in their order.

    Args:
        labels: n class numbers from 0 to C - 1, or names of the model's classes; a list, a NumPy array, a tensor, a
            pandas Series (taken by position, whatever its index) or a pyarrow array; (n, 1) is taken as (n,).
        class_names: the model's C names, by class number.

    Returns:
        (n,) int64.

    Raises:
        TypeError: labels are not a sequence.
        ValueError: a label is neither, or there are several for one text; the message says where.
    """
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(class_names):
        numbers.setdefault(name, []).append(number)
    found = [_class_number(label, place, numbers, class_names) for place, label in enumerate(_as_list(labels))]
    return np.array(found, dtype=np.int64)


def _as_list(labels: Any) -> list[Any]:
    for method in ("tolist", "to_pylist"):  # arrays, tensors and series; pyarrow
        if hasattr(labels, method):
            labels = getattr(labels, method)()
            break
    if isinstance(labels, str | bytes | dict) or not hasattr(labels, "__iter__"):
        raise TypeError(f"labels must be a sequence of class numbers or names (got {type(labels).__name__})")
    return list(labels)


def _class_number(label: Any, place: int, numbers: Mapping[str, list[int]], names: Sequence[str]) -> int:
    if isinstance(label, list | tuple | np.ndarray) and len(label) == 1:  # a row of a column (n, 1)
        label = label[0]
    called = numbers.get(label, []) if isinstance(label, str) else []
    if len(called) == 1:
        return called[0]
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and 0 <= label < len(names):
        return int(label)
    if called:
        raise ValueError(
            f"labels must be class numbers: several classes are called {label!r} (got it at place {place})"
        )
    listed = ", ".join([*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])])
    raise ValueError(
        f"labels must be class numbers from 0 to {len(names) - 1}, or names of the model's classes ({listed}) "
        f"(got {label!r} at place {place})"
    )
