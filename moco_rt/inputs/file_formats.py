"""The formats that files of texts come in, and how each is read, a record at a time, in memory that does not grow."""

from __future__ import annotations

import codecs
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from moco_rt.inputs.columns import SECOND_TEXTS, TEXT
from moco_rt.inputs.readers.delimited import BATCH_ROWS, delimited_rows, rows_of
from moco_rt.inputs.readers.json_array import array_items, not_an_object
from moco_rt.storage.reasons import reason, shortened


class FileFormat(str, Enum):
    """A format of files of texts, by the name that `--format` takes."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TXT = "txt"


#: Endings of file names, in lower case; each may be followed by `.gz`.
ENDINGS = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSON,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".parquet": FileFormat.PARQUET,
    ".txt": FileFormat.TXT,
}


#: Bytes at the beginning of a file that show its encoding, and the marks of those that are not taken; that of UTF-32
#: begins with one of UTF-16, or stands here.
_START = 64
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


@dataclass(frozen=True)
class Columns:
    """The names of the columns, or JSON keys, that hold texts and labels.

    Attributes:
        text: the column of the text; None: `text`.
        text2: the column of the second text of a pair; None: `text2` or `text_pair`, where there is one. An empty cell
            of `.csv` and `.tsv` then holds no second text; in a column that was named it is an empty one.
        label: the column of the label; None: `label`, where there is one.
    """

    text: str | None = None
    text2: str | None = None
    label: str | None = None

    @property
    def required(self) -> list[str]:
        """The columns that every row must have: the text, and all that were asked for by name."""
        return [self.text or TEXT, *(name for name in (self.text2, self.label) if name is not None)]

    @property
    def second_texts(self) -> tuple[str, ...]:
        """The columns that may hold the second text of a pair."""
        return SECOND_TEXTS if self.text2 is None else (self.text2,)

    def among(self, header: Sequence[str], name: str) -> list[str]:
        """Choose the columns to read from those that a table has.

        Raises:
            ValueError: a column is missing, or there are two of its name.
        """
        for column in self.required:
            if column not in header:
                raise ValueError(f"{name} must have a column {column} (got {shortened(', '.join(header)) or 'none'})")
        wanted = {*self.required, *self.second_texts, self.label or "label"}
        found = [column for column in header if column in wanted]
        if len(set(found)) < len(found):
            raise ValueError(f"{name} must have columns of different names (got {shortened(', '.join(header))})")
        return found


@dataclass(frozen=True)
class Record:
    """A row of a file as it stands there.

    Attributes:
        fields: the values by column; whatever a JSON file holds in place of an object.
        place: file and line, or file and row.
        finished: False: the file ends inside this line, which may still grow.
    """

    fields: Any
    place: str
    finished: bool = True


def format_of(source: Path) -> FileFormat | None:
    """The format that a file's name says; None: its ending is unknown."""
    name = source.with_suffix("") if is_compressed(source) else source
    return ENDINGS.get(name.suffix.lower())


def is_compressed(source: Path) -> bool:
    """True for a name that ends in `.gz`."""
    return source.suffix.lower() == ".gz"


def read_records(file: BinaryIO, kind: FileFormat, name: str, columns: Columns) -> Iterator[Record]:
    """Read a file from its beginning.

    Args:
        file: the file, not compressed.
        kind: its format.
        name: what error messages call it.
        columns: the columns to read of a table.

    Raises:
        ValueError: the file is broken, is not UTF-8, or lacks a column.
    """
    if kind is FileFormat.PARQUET:
        return _parquet_records(file, name, columns)
    stream = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file))
    _check_encoding(stream, name)
    return _TEXT_READERS[kind](stream, name, columns)


def _check_encoding(stream: io.BufferedReader, name: str) -> None:
    """Skip a byte order mark; refuse other encodings, which the first bytes betray.

    Where no mark stands in front, zeros that are at most a quarter of the bytes are characters of a text in UTF-8.
    """
    start = stream.peek(_START)[:_START]
    encoding = json.detect_encoding(start[:4])
    if not encoding.startswith("utf-8") and (start.startswith(_MARKS) or 4 * start.count(0) > len(start)):
        raise ValueError(f"{name} must be text in utf-8 (got {encoding})")
    if encoding == "utf-8-sig":
        stream.read(3)


def _lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[str, str, bool]]:
    """Lines without their ends, which are a line feed or both signs of Windows; their places; True if they end."""
    for number, line in enumerate(stream, 1):
        place = f"{name}:{number}"
        end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        try:
            yield line.removesuffix(end).decode("utf-8"), place, line.endswith(b"\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{place} must be text in utf-8 (got byte 0x{line[error.start]:02x})") from None


def _text_records(stream: io.BufferedReader, name: str, _: Columns) -> Iterator[Record]:
    for number, (line, place, finished) in enumerate(_lines(stream, name)):
        if number == 0 and not finished and "\r" in line[:-1]:
            raise ValueError(f"{name} must have a line feed behind each text (got carriage returns alone)")
        yield Record({"text": line}, place, finished)


def _json_lines(stream: io.BufferedReader, name: str, _: Columns) -> Iterator[Record]:
    for line, place, finished in _lines(stream, name):
        if line and not line.isspace():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise not_an_object(place, line[:40], error) from None
            yield Record(fields, place, finished)


def _json_records(stream: io.BufferedReader, name: str, columns: Columns) -> Iterator[Record]:
    """Read an array of objects, or an object a line."""
    if not stream.peek(1).lstrip().startswith(b"["):
        return _json_lines(stream, name, columns)
    numbered = enumerate(array_items(stream, name), 1)
    return (Record(fields, f"{name}, row {number}") for number, fields in numbered)


def _delimited(stream: io.BufferedReader, name: str, columns: Columns, delimiter: str) -> Iterator[Record]:
    rows = delimited_rows(stream, name, delimiter, lambda header: columns.among(header, name))
    for fields, place, finished in rows:
        if columns.text2 is None:  # a row without a second text, in a table that has a column for it
            fields |= {second: None for second in SECOND_TEXTS if fields.get(second) == ""}
        yield Record(fields, place, finished)


def _parquet_records(file: BinaryIO, name: str, columns: Columns) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as copy:
        if not (isinstance(file, io.BufferedReader) and file.seekable()):
            shutil.copyfileobj(file, copy)  # its index stands at its end
            file = copy
        try:
            table = pyarrow.parquet.ParquetFile(file)
            wanted = columns.among(table.schema_arrow.names, name)
            batches = table.iter_batches(BATCH_ROWS, columns=wanted)
            for number, row in enumerate(rows_of(batches), 1):
                yield Record(row, f"{name}, row {number}")
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{name} must be a whole Parquet file (got: {reason(error)})") from None


_TEXT_READERS: Mapping[FileFormat, Callable[[io.BufferedReader, str, Columns], Iterator[Record]]] = {
    FileFormat.JSONL: _json_lines,
    FileFormat.JSON: _json_records,
    FileFormat.CSV: partial(_delimited, delimiter=","),
    FileFormat.TSV: partial(_delimited, delimiter="\t"),
    FileFormat.TXT: _text_records,
}
