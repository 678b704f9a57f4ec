"""True classes as callers pass them, as class numbers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.storage.reasons import shortened

#: Names of classes that an error lists before it breaks off.
_LISTED = 5
#: Digits of a number that is read at once, as Python reads only so many; no model has more classes.
_DIGITS = 18


class ClassNames:
    """The names of a model's classes, by which labels are read.

    Args:
        names: C names, by class number; several classes may have one.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._numbers: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            self._numbers.setdefault(name, []).append(number)
        self._named_by_numbers = any(name.isdecimal() for name in names)

    def __len__(self) -> int:
        return len(self._names)

    def find(self, label: Any) -> Sequence[int]:
        """Return the classes that a label stands for, a name or a number: one, none, or several of one name."""
        if isinstance(label, str):
            return self._numbers.get(label, ())
        is_number = isinstance(label, int | np.integer) and not isinstance(label, bool)
        return (int(label),) if is_number and 0 <= label < len(self._names) else ()

    def find_written(self, label: str) -> Sequence[int]:
        """Return the classes that a cell of a table stands for, where numbers are text.

        Names count more than numbers; where names are numbers themselves, which may count from another one than 0,
        other numbers stand for no class.
        """
        found = self.find(label)
        if found or not label.isdecimal() or self._named_by_numbers:
            return found
        return self.find(int(label[-_DIGITS:])) if not label[:-_DIGITS].strip("0") else ()

    def listed(self, form: str = "{name}") -> str:
        """List the first ones for an error, each in this form of `number` and `name`."""
        first = [form.format(number=number, name=name) for number, name in enumerate(self._names[:_LISTED])]
        return ", ".join([*first, *(["..."] if len(self._names) > _LISTED else [])])


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
    names = ClassNames(class_names)
    found = [_class_number(label, place, names) for place, label in enumerate(_as_list(labels))]
    return np.array(found, dtype=np.int64)


def _as_list(labels: Any) -> list[Any]:
    for method in ("tolist", "to_pylist"):  # arrays, tensors and series; pyarrow
        if hasattr(labels, method):
            labels = getattr(labels, method)()
            break
    if isinstance(labels, str | bytes | dict) or not hasattr(labels, "__iter__"):
        raise TypeError(f"labels must be a sequence of class numbers or names (got {type(labels).__name__})")
    return list(labels)


def _class_number(label: Any, place: int, names: ClassNames) -> int:
    if isinstance(label, list | tuple | np.ndarray) and len(label) == 1:  # a row of a column (n, 1)
        label = label[0]
    found = names.find(label)
    if len(found) == 1:
        return found[0]
    got = shortened(repr(label))
    if found:
        raise ValueError(f"labels must be class numbers: several classes are called {got} (got it at place {place})")
    raise ValueError(
        f"labels must be class numbers from 0 to {len(names) - 1}, or names of the model's classes ({names.listed()}) "
        f"(got {got} at place {place})"
    )
