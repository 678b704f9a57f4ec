"""The door for texts: whatever callers hold them in becomes texts and pairs of texts, or is refused by its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moco_rt.inputs.columns import check_columns, column_names, read_columns, read_row

#: One text, or a pair.
TextInput = str | tuple[str, str] | list[str]

#: What the door takes: any iterable of texts, pairs, or rows with named columns; also a frame or a data set.
Texts = Iterable[Any]


def list_texts(
    texts: Texts, columns: str | Sequence[str] | None = None, *, allow_surrogates: bool = False
) -> list[TextInput]:
    """Read all texts at once.

    Args:
        texts: a list, tuple, iterator, NumPy array, pandas Series (by position), pyarrow array or `datasets` column of
            texts or pairs of texts; or rows with named columns: a `datasets.Dataset`, a frame, a pyarrow table, or any
            iterable of dicts.
        columns: names the column that holds the text, or the two that hold a pair; None: `text`, and where a row has it
            `text2` or `text_pair`. Other columns are let be.
        allow_surrogates: lets texts pass that are not valid Unicode.

    Returns:
        N texts and pairs (as tuples), N at least 1.

    Raises:
        TypeError: texts, or one of them, is of another kind.
        ValueError: there are none, a row lacks its text, or a text is not valid Unicode.
    """
    found = list(iter_texts(texts, columns, allow_surrogates=allow_surrogates))
    if not found:
        raise ValueError("texts must hold at least one text (got none)")
    return found


def iter_texts(
    texts: Texts, columns: str | Sequence[str] | None = None, *, allow_surrogates: bool = False
) -> Iterator[TextInput]:
    """Read texts one by one: what holds them is checked at once, each of them when its turn comes; see `list_texts`."""
    names = check_columns(columns)
    if isinstance(texts, str | bytes) or getattr(texts, "ndim", 1) == 0:
        raise TypeError(f"texts must be a sequence of texts (got one {type(texts).__name__})")
    if isinstance(texts, set | frozenset):
        raise TypeError(f"texts must have an order (got {type(texts).__name__})")
    if isinstance(texts, Mapping):
        what = "what a tokenizer made of them" if "input_ids" in texts else "a dict of columns or of splits"
        raise TypeError(f"texts must be texts or rows, not {what} (got {type(texts).__name__})")
    known = column_names(texts)
    rows = _values(texts) if known is None else read_columns(texts, known, names)
    try:
        items = iter(rows)
    except TypeError:
        raise TypeError(f"texts must be a sequence of texts (got {type(texts).__name__})") from None
    return _checked(items, names, known is None, allow_surrogates)


def take_texts(
    texts: Texts, columns: str | Sequence[str] | None = None, *, allow_surrogates: bool = False
) -> list[TextInput] | Iterator[TextInput]:
    """Read what knows its length at once, so that it is refused before anything is computed; the rest one by one."""
    read = list_texts if hasattr(type(texts), "__len__") else iter_texts
    return read(texts, columns, allow_surrogates=allow_surrogates)


def check_text(text: Any, place: int) -> None:
    """Raise TypeError unless text is one, or a pair of them."""
    if isinstance(text, str):
        return
    is_pair = isinstance(text, tuple | list) and len(text) == 2
    parts = zip(text, (" as the first text", " as the second text"), strict=True) if is_pair else [(text, "")]
    for part, which in parts:
        if not isinstance(part, str):
            got = f"{type(part).__name__}{which}"
            raise TypeError(f"texts must hold texts or pairs of texts (got {got} at place {place})")


def lone_surrogate(text: TextInput) -> str | None:
    """Describe the first character that is half of a surrogate pair, which no tokenizer's library takes; or None."""
    for part in (text,) if isinstance(text, str) else text:
        if part.isascii():
            continue
        try:
            part.encode()
        except UnicodeEncodeError as error:
            return f"lone surrogate U+{ord(part[error.start]):04X} as character {error.start}"
    return None


def _values(texts: Any) -> Any:
    """The items of arrays and series as Python's own values."""
    for convert in ("to_pylist", "tolist"):  # of pyarrow; of NumPy and pandas
        if hasattr(texts, convert):
            return getattr(texts, convert)()
    return texts


def _checked(
    rows: Iterable[Any], columns: tuple[str, ...] | None, by_row: bool, allow_surrogates: bool
) -> Iterator[TextInput]:
    for place, row in enumerate(rows):
        text = read_row(row, columns, place) if by_row else row
        check_text(text, place)
        if not allow_surrogates and (found := lone_surrogate(text)) is not None:
            raise ValueError(f"texts must be valid Unicode (got a {found} of the text at place {place})")
        yield text if isinstance(text, str) else tuple(text)
