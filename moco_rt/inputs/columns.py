"""Texts in named columns: of a data set, a frame, or a row that is a dict."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

#: Columns that are read where none are named: the text, and what makes a pair of it.
TEXT = "text"
SECOND_TEXTS = ("text2", "text_pair")


def check_columns(columns: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Turn the argument `columns` into one or two names; None stays None.

    Raises:
        TypeError: it is neither a name nor a pair of names.
    """
    if columns is None:
        return None
    names = (columns,) if isinstance(columns, str) else columns
    if not (isinstance(names, tuple | list) and len(names) in (1, 2) and all(isinstance(name, str) for name in names)):
        raise TypeError(f"columns must be a name or a pair of names (got {columns!r})")
    return tuple(names)


def column_names(texts: Any) -> list[Any] | None:
    """Return the names of the columns of a data set or a frame; None for anything else.

    Libraries are recognised by their attributes: nobody's pandas, pyarrow or datasets is imported to ask.
    """
    names = getattr(texts, "column_names", None)
    names = getattr(texts, "columns", None) if names is None else names
    is_table = hasattr(type(texts), "__len__") and hasattr(type(texts), "__getitem__")
    return list(names) if is_table and isinstance(names, Iterable) else None


def read_columns(texts: Any, known: Collection[Any], columns: tuple[str, ...] | None) -> Iterable[Any]:
    """Return the texts, or the pairs, of a table.

    Args:
        texts: the table.
        known: names of all its columns.
        columns: those that hold the texts; None: by their usual names.

    Raises:
        ValueError: a column is missing, or there are several of its name.
    """
    names = _choose(known, columns)
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"texts must have a column {missing[0]!r}: columns= names others (got {_listed(known)})")
    values = [_column(texts, name) for name in names]
    return values[0] if len(values) == 1 else (_text(row, columns) for row in zip(*values, strict=True))


def read_row(row: Any, columns: tuple[str, ...] | None, place: int) -> Any:
    """Return the text, or the pair, of a row that is a dict; anything else as it is.

    Raises:
        TypeError: columns are named, and the row is no dict.
        ValueError: the row has no text.
    """
    if not isinstance(row, Mapping):
        if columns is not None:
            raise TypeError(
                f"texts must be rows with columns, for columns= (got {type(row).__name__} at place {place})"
            )
        return row
    names = _choose(row, columns)
    if missing := [name for name in names if name not in row]:
        raise ValueError(
            f"texts must have {missing[0]!r} in every row: columns= names others (got {_listed(row)} at place {place})"
        )
    return _text([_known(row[name]) for name in names], columns)


def _choose(known: Collection[Any], columns: tuple[str, ...] | None) -> tuple[str, ...]:
    if columns is not None:
        return columns
    return (TEXT, *[name for name in SECOND_TEXTS if name in known][:1])


def _text(values: Sequence[Any], columns: tuple[str, ...] | None) -> Any:
    """One text where there is no second, or where it is None in a column that nobody has named."""
    alone = len(values) == 1 or (columns is None and values[1] is None)
    return values[0] if alone else tuple(values)


def _column(texts: Any, name: str) -> list[Any]:
    values = texts[name]
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"texts must have one column {name!r} (got several)")
    return [_known(value) for value in (values.to_pylist() if hasattr(values, "to_pylist") else values[:])]


def _known(value: Any) -> Any:
    """Return a value, or None where it is missing: pandas has NaN or NA in its place."""
    if isinstance(value, str):
        return value
    missing = type(value).__name__ == "NAType" or (isinstance(value, Real) and value != value)
    return None if missing else value


def _listed(names: Collection[Any]) -> str:
    return ", ".join(repr(name) for name in names) or "no column"
