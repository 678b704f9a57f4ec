"""The one door for files of texts: JSON lines, JSON, CSV, TSV, Parquet and plain text, each also compressed by gzip."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from moco_rt.inputs.file_formats import (
    ENDINGS,
    Columns,
    FileFormat,
    Record,
    format_of,
    is_compressed,
    read_records,
)
from moco_rt.inputs.texts import TextInput

#: As a source: standard input; as a destination: standard output.
STANDARD = Path("-")


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
        text: a text or a pair.
        label: the label as it stands there, or None.
        place: file and line, or file and row, for error messages.
        finished: False: the file ends inside this line, which may still grow.
    """

    text: TextInput
    label: Any
    place: str
    finished: bool = True


@contextlib.contextmanager
def open_rows(source: Path, kind: FileFormat | None = None, columns: Columns | None = None) -> Iterator[Iterator[Row]]:
    """Open a file of texts, whose rows are then read one after the other.

    Args:
        source: the file; `-` is standard input.
        kind: its format; None: what its ending says.
        columns: the names of its columns; None: `text`, `text2` or `text_pair`, `label`.

    Yields:
        Its rows. Taking one raises ValueError where the file is not what it must be; the message names file and line.

    Raises:
        OSError: there is no such file, or standard input is closed.
        ValueError: it is a folder; the format is not known, or has no columns to name.
    """
    name = _name_of(source)
    columns = columns or Columns()
    read_as = kind or format_of(source)
    if read_as is None:
        endings = ", ".join(ENDINGS)
        raise ValueError(f"{name} must end in one of {endings} (each also .gz), or its format be given (got neither)")
    if read_as is FileFormat.TXT and columns != Columns():
        raise ValueError(f"{name} must have columns for them to be named (got a text a line)")
    with contextlib.ExitStack() as stack:
        yield _rows(_open(source, stack), read_as, kind is not None, name, columns)


@contextlib.contextmanager
def open_objects(source: Path) -> Iterator[Iterator[Record]]:
    """Open a file of JSON objects, an object a line or an array of them, which are then read one after the other.

    Args:
        source: the file, also compressed by gzip; `-` is standard input.

    Yields:
        Its objects. Taking one raises ValueError where the file is not what it must be.

    Raises:
        OSError: there is no such file, or standard input is closed.
        ValueError: it is a folder, or its ending is that of another format.
    """
    name = _name_of(source)
    kind = FileFormat.JSONL if source == STANDARD else format_of(source)
    if kind not in (FileFormat.JSONL, FileFormat.JSON):
        raise ValueError(f"{name} must end in .jsonl, .ndjson or .json, each also .gz (got another ending)")
    with contextlib.ExitStack() as stack:
        yield _records(_open(source, stack), kind, name, Columns())


def read_rows(source: Path, kind: FileFormat | None = None, columns: Columns | None = None) -> list[Row]:
    """Read all rows of a file; arguments and errors are those of `open_rows`."""
    with open_rows(source, kind, columns) as rows:
        return list(rows)


def _name_of(source: Path) -> str:
    """Return what messages call a source, which must not be a folder."""
    if source.is_dir():
        raise ValueError(f"{source} must be a file (got a folder)")
    return "standard input" if source == STANDARD else str(source)


def _open(source: Path, stack: contextlib.ExitStack) -> BinaryIO:
    if source == STANDARD:
        if sys.stdin is None:
            raise OSError("standard input must be open (got none)")
        return sys.stdin.buffer
    file = stack.enter_context(source.open("rb"))
    return cast(BinaryIO, stack.enter_context(gzip.open(file))) if is_compressed(source) else file


def _rows(file: BinaryIO, kind: FileFormat, certain: bool, name: str, columns: Columns) -> Iterator[Row]:
    records = _records(file, kind, name, columns)
    if kind is FileFormat.TXT and not certain:
        records = _refuse_json(records, name)
    for record in records:
        yield _row(record, columns)


def _records(file: BinaryIO, kind: FileFormat, name: str, columns: Columns) -> Iterator[Record]:
    """Read the records of a file, and name a compressed one that is cut off."""
    try:
        yield from read_records(file, kind, name, columns)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} must be a whole gzip file (got: {error})") from None


def _refuse_json(records: Iterator[Record], name: str) -> Iterator[Record]:
    """Refuse a file that is named as plain text and begins with a JSON object."""
    for record in itertools.islice(records, 1):
        if _is_object(record.fields["text"]):
            raise ValueError(
                f"{name} must hold a text a line (got a JSON object on the first): give its format, jsonl, or txt if "
                "these are the texts"
            )
        yield record
    yield from records


def _is_object(text: str) -> bool:
    try:
        return text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _row(record: Record, columns: Columns) -> Row:
    fields, place = record.fields, record.place
    text_column, *others = columns.required
    seconds = columns.second_texts
    if not isinstance(fields, dict) or not all(
        isinstance(fields.get(name), str | None) for name in (text_column, *seconds)
    ):
        raise ValueError(
            f"{place} must be an object with strings {text_column} and {seconds[0]}, if any (got {_excerpt(fields)})"
        )
    if fields.get(text_column) is None:
        raise ValueError(f"{place} must have a {text_column} (got {_excerpt(fields)})")
    for name in others:
        if name not in fields:
            raise ValueError(f"{place} must have a {name} (got {_excerpt(fields)})")
    text, second = fields[text_column], next((fields[name] for name in seconds if name in fields), None)
    for part in (text, second or ""):
        _check_unicode(part, place)
    label = fields.get(columns.label or "label")
    return Row(text if second is None else (text, second), label, place, record.finished)


def _excerpt(fields: Any) -> str:
    return repr(json.dumps(fields, default=str)[:40])


def _check_unicode(text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place} must be text of whole characters (got half a surrogate pair, {text[error.start]!r})"
        ) from None
