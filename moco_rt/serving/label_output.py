"""The destination of labels: a file, which a later run can continue, or a stream."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from moco_rt.inputs.file_formats import is_compressed
from moco_rt.inputs.text_files import STANDARD, Row
from moco_rt.serving.label_rows import LabelRows
from moco_rt.serving.run_files import record_of, remove_certificate
from moco_rt.serving.run_record import CERTIFIED_ROWS, Checkpoint, RunRecord, open_record
from moco_rt.storage.reasons import shortened

_ANEW = "--overwrite starts anew"
#: How much behind the last checkpoint is looked at before it is cut off: it must look like labels.
_LOOK_BYTES = 1 << 20
_STREAMS = ("/dev/stdout", "/dev/fd/", "/proc/self/fd/")


def is_stream(out: Path) -> bool:
    """True for what cannot be continued later: standard output, a pipe, a device."""
    if out == STANDARD or str(out).startswith(_STREAMS):
        return True
    return out.exists() and not (out.is_file() or out.is_dir())


class LabelStream:
    """Labels that go to standard output, a pipe or a device.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, out: Path, labels: LabelRows, stack: contextlib.ExitStack):
        self.rows = 0
        self._out = out
        if out == STANDARD and sys.stdout is None:
            raise OSError("standard output must be open (got none)")
        # Standard output may be a text stream alone, where a program has replaced it.
        self._file: Any = getattr(sys.stdout, "buffer", None)
        if out not in (STANDARD, Path("/dev/stdout")):
            self._file = stack.enter_context(_open_unbuffered(out, os.O_WRONLY | os.O_APPEND))
        self._send(labels.header())

    def write(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        """Add the lines of the next rows."""
        self._send(b"".join(lines))
        self.rows += len(rows)

    def _send(self, data: bytes) -> None:
        if self._file is None:
            sys.stdout.write(data.decode("utf-8"))
        else:
            _write(self._file, data, self._out)


class LabelFile:
    """A file of labels and its record.

    What the record does not vouch for is cut off, or refused. Each checkpoint is written after the labels that it
    speaks of.

    Args:
        out: the file, which is made where it is missing.
        file: the same, open to read and to write, without a buffer.
        record: its record.
        labels: how rows are written.
    """

    def __init__(self, out: Path, file: BinaryIO, record: RunRecord, labels: LabelRows):
        self.rows = 0
        self._out, self._file, self._record, self._labels = out, file, record, labels
        self._compressed = is_compressed(out)
        self._texts_hash, self._labels_hash = hashlib.sha256(), hashlib.sha256()
        self._bytes = 0

    def begin(self, made_with: Mapping[str, Any], rows: Iterator[Row], source: str, overwrite: bool) -> Iterator[Row]:
        """Go on where an earlier run of the same kind ended, or start anew where there was none.

        Args:
            made_with: what this run is made with.
            rows: all rows of the source.
            source: what messages call it.
            overwrite: start anew, whatever is there.

        Returns:
            The rows that are not labelled yet.

        Raises:
            ValueError: the file is not an earlier run's, that run was made with something else, or the source no longer
                begins with the same texts. File and record are as they were.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size > 0 and not overwrite:
            return self._go_on(made_with, rows, source, size)
        remove_certificate(self._out)  # it speaks of what is cut off here
        return self._anew(made_with, rows)

    def _anew(self, made_with: Mapping[str, Any], rows: Iterator[Row]) -> Iterator[Row]:
        self._file.truncate(0)
        self._record.begin(made_with)
        self._append([], [self._labels.header()])
        return rows

    def _is_half_a_header(self, size: int) -> bool:
        self._file.seek(0)
        header = self._as_written([self._labels.header()])
        return size <= len(header) and header.startswith(self._file.read(size))

    def _go_on(self, made_with: Mapping[str, Any], rows: Iterator[Row], source: str, size: int) -> Iterator[Row]:
        self._check_made_with(made_with)
        points = self._record.checkpoints
        if not points and self._is_half_a_header(size):  # the earlier run was interrupted before the first row
            return self._anew(made_with, rows)
        kept = [point for point in points if point.bytes <= size]
        if not kept or (labels_hash := self._hash_labels(kept[-1].bytes)).hexdigest() != kept[-1].labels:
            raise self._not_ours()
        tail = self._whole_lines(kept[-1].bytes, points[len(kept) :])
        start = kept[-1].rows + len(tail)
        texts = _Texts(rows, start)
        # The checkpoint after the tail vouches for its texts.
        for point in points[: len(kept) + bool(tail)]:
            if texts.read(point.rows) < point.rows:
                raise ValueError(
                    f"{self._out} must not hold more lines than {source} (got {point.rows} and {texts.count})"
                )
            if texts.hash.hexdigest() != point.texts:
                if not (point.unfinished and point is points[-1]):
                    raise ValueError(
                        f"{source} must begin with the {point.rows:,} texts that {self._out} was made of (one of "
                        f"them is another now): {_ANEW}"
                    )
                # The line has grown: it is labelled anew.
                kept = kept[:-1]
                texts.step_back()
                labels_hash = self._hash_labels(kept[-1].bytes)
        self._record.keep(len(kept))
        self._texts_hash, self._labels_hash = texts.hash_at_start, labels_hash
        self.rows, self._bytes = kept[-1].rows, kept[-1].bytes
        if tail:
            self._count(len(tail), b"".join(tail))
            self._checkpoint(unfinished=False)
        self._file.truncate(self._bytes)
        return itertools.chain(texts.held, rows)

    def write(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        """Add the lines of the next rows; a line of the source that may still grow gets a checkpoint of its own."""
        whole = len(rows) - (not rows[-1].finished)
        for part in (slice(0, whole), slice(whole, None)):
            if rows[part]:
                self._append(rows[part], lines[part])

    def _append(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        data = self._as_written(lines)
        self._file.seek(self._bytes)
        _write(self._file, data, self._out)
        for row in rows:
            self._texts_hash.update(_bytes_of(row))
        self._count(len(rows), data)
        self._checkpoint(unfinished=bool(rows) and not rows[-1].finished)

    def _as_written(self, lines: Sequence[bytes]) -> bytes:
        data = b"".join(lines)
        # Whole members of a gzip file one after the other are a gzip file.
        return gzip.compress(data, mtime=0) if self._compressed and data else data

    def _count(self, rows: int, data: bytes) -> None:
        self._labels_hash.update(data)
        self._bytes += len(data)
        self.rows += rows

    def _checkpoint(self, unfinished: bool) -> None:
        hashes = self._texts_hash.hexdigest(), self._labels_hash.hexdigest()
        self._record.add(Checkpoint(self.rows, self._bytes, *hashes, unfinished))

    def _check_made_with(self, made_with: Mapping[str, Any]) -> None:
        before = self._record.made_with
        if before is None:
            raise self._not_ours()
        for name in (*made_with, *before):
            if made_with.get(name) != before.get(name):
                why = "a certificate is about the rows that were there, " if name == CERTIFIED_ROWS else ""
                raise ValueError(
                    f"{self._out} was made with another {name}: {shortened(before.get(name), 40)} "
                    f"(got {shortened(made_with.get(name), 40)}): {why}{_ANEW}"
                )

    def _not_ours(self) -> ValueError:
        record = record_of(self._out).name
        return ValueError(f"{self._out} must be what its record {record} speaks of (got another file): {_ANEW}")

    def _hash_labels(self, size: int) -> Any:
        digest = hashlib.sha256()
        self._file.seek(0)
        while size > 0 and (data := self._file.read(min(size, 1 << 20))):
            digest.update(data)
            size -= len(data)
        return digest

    def _whole_lines(self, start: int, later: Sequence[Checkpoint]) -> list[bytes]:
        """The lines behind a checkpoint of a file that was cut off before the next one.

        Behind the last one stands at most what an interrupted run has not vouched for: it is looked at and left out.
        """
        if self._compressed:
            return []
        self._file.seek(start)
        data = self._file.read(later[0].bytes - start if later else _LOOK_BYTES)
        lines = io.BytesIO(data).readlines()
        if not all(self._labels.could_be(line) for line in lines):
            raise self._not_ours()
        return [line for line in lines if line.endswith(b"\n")] if later else []


class _Texts:
    """The texts of a source while they are compared with a record.

    Attributes:
        count: rows that have been read.
        hash: of all of them.
        hash_at_start: of those before the place where the run goes on.
        held: rows that were read from that place on.
    """

    def __init__(self, rows: Iterator[Row], start: int):
        self._rows, self._start = rows, start
        self.count = 0
        self.hash = hashlib.sha256()
        self.hash_at_start = self.hash.copy()
        self.held: list[Row] = []
        self._last: tuple[Any, Row] | None = None

    def read(self, until: int) -> int:
        """Read on until so many rows have been read; returns how many have."""
        for row in itertools.islice(self._rows, until - self.count):
            if self.count == until - 1:
                self._last = (self.hash.copy(), row)
            self.hash.update(_bytes_of(row))
            self.count += 1
            if self.count == self._start:
                self.hash_at_start = self.hash.copy()
            elif self.count > self._start:
                self.held.append(row)
        return self.count

    def step_back(self) -> None:
        """Go on with the row that was read last."""
        assert self._last is not None
        self.hash_at_start, row = self._last
        self.held = [row]


def _bytes_of(row: Row) -> bytes:
    return json.dumps(row.text).encode("ascii") + b"\n"


def _write(file: Any, data: bytes, out: Path) -> None:
    """Write all of it; errors name the file."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from None


def _open_unbuffered(out: Path, flags: int) -> io.FileIO:
    """Open without cutting off what is there, and without a buffer: what is written is there at once."""
    return io.FileIO(os.open(out, flags, 0o666), "r+b" if flags & os.O_RDWR else "wb")


@contextlib.contextmanager
def open_output(out: Path, labels: LabelRows, overwrite: bool) -> Iterator[LabelFile]:
    """Open a file of labels for this run alone.

    Raises:
        OSError: it cannot be written.
        ValueError: another run writes it, or it is there and no run has written it, see `overwrite`; or no run has
            written the file in the place of its record.
    """
    is_there = out.exists() and out.stat().st_size > 0
    if is_there and not overwrite and not record_of(out).exists():
        raise ValueError(f"{out} must be new, or made by predict (got a file without a record): {_ANEW}")
    with open_record(out) as record, _open_unbuffered(out, os.O_RDWR | os.O_CREAT) as file:
        yield LabelFile(out, file, record, labels)
