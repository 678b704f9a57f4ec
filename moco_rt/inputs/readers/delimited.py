"""Tables of delimited text: CSV and TSV, cut where rows end and parsed a block of whole rows at a time."""

from __future__ import annotations

import csv
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from moco_rt.storage.reasons import reason

#: Bytes of a table that are parsed at a time; one row must fit in.
_BLOCK_BYTES = 1 << 22
#: Bytes that are read at a time: as many are lost where a compressed file is broken.
_PIECE_BYTES = 1 << 16
#: Rows of a table that become Python's objects at a time.
BATCH_ROWS = 1024
#: Gaps between cells in quotes that are kept before ends of rows are looked for in them.
_GAPS = 1024


def delimited_rows(
    stream: io.BufferedReader, name: str, delimiter: str, choose: Callable[[Sequence[str]], list[str]]
) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Read a table with a header from its beginning.

    Args:
        stream: UTF-8.
        name: what error messages call the file.
        delimiter: one character.
        choose: chooses the columns to read from the header.

    Yields:
        Its rows by column, with their places; False: the file ends inside this row, which may still grow.

    Raises:
        ValueError: it is not such a table, once all rows before the first bad one were yielded.
    """
    import pyarrow

    ends = _RowEnds(delimiter)
    blocks = _blocks(stream, name, ends)
    header = _read_header(bytes(next(blocks, (b"", False))[0]), name, ends)
    parser = _Parser(header, choose(header), ends)
    number = 0
    for block, has_end in blocks:
        in_quotes = not has_end and ends.in_quotes(bytes(block))
        try:
            for row in rows_of(parser.batches(block)):
                number += 1
                if in_quotes:  # it holds all that stands behind its quote
                    raise ValueError(f"{name}, row {number} must close its quote (got the end of the file)")
                yield row, f"{name}, row {number}", has_end
        except pyarrow.ArrowException as error:
            if in_quotes:  # of the columns that it should have the last row lacks some
                raise ValueError(f"{name} must close its last quote (got the end of the file)") from None
            got = re.sub(r"Row #\d+: ", "", reason(error))  # counted from where a piece of the block begins
            raise ValueError(f"{name} must be a table in utf-8 (got: row {number + 1}: {got})") from None


def rows_of(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of record batches by column; those before one that is no UTF-8, too."""
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            some = batch.slice(start, BATCH_ROWS)
            try:
                rows = some.to_pylist()
            except UnicodeDecodeError:
                rows = (some.slice(place, 1).to_pylist()[0] for place in range(some.num_rows))
            yield from rows


class _RowEnds:
    """Finds the ends of rows in bytes that begin with one.

    As for pyarrow a quote opens a cell where one begins, and is a sign as any other elsewhere; two of them inside are
    one. A row ends with a line feed, a carriage return, or both.
    """

    def __init__(self, delimiter: str):
        self.delimiter = delimiter
        # The quote stands first, for it to be searched for as fast as a byte is.
        self._opening = re.compile(b'"(?<![^%b\r\n]")' % re.escape(delimiter.encode()))

    def first(self, data: bytes) -> int:
        """Return the place behind the first row, 0 if it does not end."""
        at = 0
        for start, stop, _ in self._quoted(data):
            if end := _first_sign(data, at, start):
                return end
            at = stop
        return _first_sign(data, at, len(data))

    def last(self, data: bytes) -> int:
        """Return the place behind the last row that ends, 0 if none does."""
        found = at = 0
        gaps = []  # between cells in quotes; to look for ends in each of them takes as long as all the rest
        for start, stop, _ in self._quoted(data):
            gaps.append((at, start))
            at = stop
            if len(gaps) == _GAPS:
                found = _last_sign(data, gaps) or found
                gaps.clear()
        return _last_sign(data, [*gaps, (at, len(data))]) or found

    def in_quotes(self, data: bytes) -> bool:
        """Return whether a cell in quotes is open at the end."""
        return any(not closed for _, _, closed in self._quoted(data))

    def _quoted(self, data: bytes) -> Iterator[tuple[int, int, bool]]:
        """Yield the places of cells in quotes, and whether they are closed."""
        at = data.find(b'"')  # faster than the pattern is, and most tables have none
        while at >= 0 and (opening := self._opening.search(data, at)):
            start = opening.start()
            at = data.find(b'"', start + 1)
            while at >= 0 and data.startswith(b'"', at + 1):
                at = data.find(b'"', at + 2)
            closed = at >= 0
            at = at + 1 if closed else len(data)
            yield start, at, closed


def _first_sign(data: bytes, start: int, stop: int) -> int:
    """Return the place behind the first sign of a row's end, 0 if there is none."""
    return min((at for sign in (b"\n", b"\r") if (at := data.find(sign, start, stop)) >= 0), default=-1) + 1


def _last_sign(data: bytes, gaps: Sequence[tuple[int, int]]) -> int:
    """Return the place behind the last sign of a row's end in pieces of data, 0 if there is none."""
    for start, stop in reversed(gaps):
        if end := max(data.rfind(b"\n", start, stop), data.rfind(b"\r", start, stop)) + 1:
            return end
    return 0


class _Parser:
    """Parses whole rows, as texts, by pyarrow.

    pyarrow is handed memory of its own: a thread of its reads ahead, which may outlive an error, and Python, too.
    """

    def __init__(self, header: Sequence[str], wanted: Sequence[str], ends: _RowEnds):
        import pyarrow
        import pyarrow.csv

        self._ends = ends
        self._options = {
            "read_options": pyarrow.csv.ReadOptions(column_names=header, block_size=_BLOCK_BYTES + 2),
            "parse_options": pyarrow.csv.ParseOptions(delimiter=ends.delimiter, newlines_in_values=True),
            "convert_options": pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.string())
            ),
        }

    def batches(self, block: memoryview) -> Iterator[Any]:
        """Yield record batches of all rows before the first bad one.

        Raises:
            pyarrow.ArrowException: a row is bad.
        """
        import pyarrow

        try:
            found = self._parse(block)
        except pyarrow.ArrowException:
            rows = bytes(block)
            half = self._ends.last(rows[: len(rows) // 2]) or self._ends.first(rows)
            if half in (0, len(block)):  # a row by itself
                raise
            found = itertools.chain(self.batches(block[:half]), self.batches(block[half:]))
        yield from found

    def _parse(self, block: memoryview) -> Iterable[Any]:
        import pyarrow
        import pyarrow.csv

        memory = pyarrow.allocate_buffer(len(block) + 1)
        with pyarrow.FixedSizeBufferWriter(memory) as writer:
            writer.write(b"\n")  # it would take a byte order mark off a text that stands first
            writer.write(block)
        # Not read_csv, which puts handlers of its own in place of those of signals.
        with pyarrow.csv.open_csv(pyarrow.BufferReader(memory), **self._options) as reader:
            return list(reader)


def _read_header(data: bytes, name: str, ends: _RowEnds) -> list[str]:
    try:
        header = next(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=ends.delimiter), [])
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{line} must be text in utf-8 (got byte 0x{data[error.start]:02x})") from None
    except csv.Error as error:
        raise ValueError(f"{name} must begin with a header (got: {error})") from None
    if ends.in_quotes(data):
        raise ValueError(f"{name} must close the quote in its header (got the end of the file)")
    return header


def _blocks(stream: io.BufferedReader, name: str, ends: _RowEnds) -> Iterator[tuple[memoryview, bool]]:
    """Yield the first row, then as many at a time as a block holds; with False the last, if the file ends inside it."""
    held, find = b"", ends.first
    failure: Exception | None = None
    while True:
        if failure is None:
            held, failure = _filled(stream, held)
        end = find(held)
        if end:
            yield memoryview(held)[:end], True
            held, find = held[end:], ends.last
        elif failure is not None:
            raise failure
        elif len(held) > _BLOCK_BYTES:
            got = "a longer one, or a quote that is not closed"
            raise ValueError(f"{name} must have rows of at most {_BLOCK_BYTES:,} bytes (got {got})")
        else:
            if held:
                yield memoryview(held), False
            return


def _filled(stream: io.BufferedReader, held: bytes) -> tuple[bytes, Exception | None]:
    """Read on until a row of a whole block would be held with its end, or the file ends.

    Returns:
        All bytes, and the error that reading ended with: a compressed file may be broken behind good rows.
    """
    pieces, missing = [held], _BLOCK_BYTES + 1 - len(held)
    try:
        while missing > 0 and (piece := stream.read1(min(missing, _PIECE_BYTES))):
            pieces.append(piece)
            missing -= len(piece)
    except (EOFError, OSError, zlib.error) as error:
        return b"".join(pieces), error
    return b"".join(pieces), None
