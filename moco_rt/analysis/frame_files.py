"""Frames on disk: a directory of `tabular.parquet`, one `.npy` per array and an `index.json`, written in chunks."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from moco_rt.analysis.columns import Array, Column, Layouts, PackedColumn, as_arrow, check_layouts, fitted, layouts
from moco_rt.storage.fields import rebuild
from moco_rt.storage.manifest import read_manifest, whole
from moco_rt.storage.reasons import shortened

FORMAT, VERSION = "moco_rt.frame", 1


class FrameWriter:
    """Writes a frame in chunks: `with FrameWriter(path) as writer: writer.append({"x": array, ...})`.

    N-D and packed values go straight to disk; 1-D columns are small and wait in memory. All is written into
    `<path>.partial`, renamed to `path` at the end; after an exception neither is left. One writer per path: a
    `.partial` that is found on entering is taken for the remains of a killed writer, and removed.

    Raises:
        FileExistsError: something is at `path` already.
        ValueError: at the end of the block, when nothing was appended.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if self._path.exists():
            raise FileExistsError(f"FrameWriter: {self._path} must not exist yet")
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._rows = 0
        self._layouts: Layouts | None = None
        self._tabular: dict[str, list[Array]] = {}
        self._files: dict[tuple[str, str], _GrowingNpy] = {}

    def __enter__(self) -> FrameWriter:
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, columns: Mapping[str, npt.ArrayLike | PackedColumn]) -> None:
        """Add the rows of one chunk: column name -> array-like (rows, ...) or PackedColumn, as in MLFrame.

        Raises:
            ValueError: unequal rows, or a column that differs from the first chunk's in more than its rows.
        """
        chunk: dict[str, Any] = {}
        for name, values in columns.items():
            chunk[name] = fitted(name, values, chunk)
        found = layouts(chunk)
        self._layouts = self._layouts or found
        check_layouts(self._layouts, found, "FrameWriter.append")
        rows = 0
        for name, layout in found.items():
            column = chunk[name]
            rows = len(column)
            if layout.kind == "tabular":
                self._tabular.setdefault(name, []).append(column)
            elif layout.kind == "array":
                self._file(name, column).append(column)
            else:
                tokens = self._file(name, column.values)
                boundaries = self._file(name, column.cu_seqlens, "@cu_seqlens")
                # Only the first chunk brings its leading 0: elsewhere it is the end of the chunk before.
                boundaries.append(tokens.rows + column.cu_seqlens[min(boundaries.rows, 1) :])
                tokens.append(column.values)
        self._rows += rows

    def _file(self, name: str, like: Array, part: str = "") -> _GrowingNpy:
        if (name, part) not in self._files:
            path = _npy(self._partial, name, part)
            self._files[name, part] = _GrowingNpy(path, like.dtype, like.shape[1:])
        return self._files[name, part]

    def _finish(self) -> None:
        if self._layouts is None:
            raise ValueError("FrameWriter: no rows were appended")
        for file in self._files.values():
            file.finish()
        if self._tabular:
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = {name: as_arrow(np.concatenate(chunks)) for name, chunks in self._tabular.items()}
            pq.write_table(pa.table(table), self._partial / "tabular.parquet")
        columns = [
            {"name": name, "kind": layout.kind, "site": layout.site, "feature": layout.feature}
            for name, layout in self._layouts.items()
        ]
        index = {"format": FORMAT, "version": VERSION, "rows": self._rows, "columns": columns}
        (self._partial / "index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        self._partial.rename(self._path)


@dataclass(frozen=True)
class _Entry:
    """A column in the index."""

    name: str
    kind: str
    site: str | None
    feature: str | None


class _GrowingNpy:
    """A .npy file that rows are appended to: NumPy pads its header for the first axis to grow in place."""

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._path, self._descr, self._row_shape = path, np.lib.format.dtype_to_descr(dtype), row_shape
        self._header_bytes = self._write_header("xb")

    def append(self, rows: Array) -> None:
        with self._path.open("ab") as file:
            np.ascontiguousarray(rows).tofile(file)
        self.rows += len(rows)

    def finish(self) -> None:
        assert self._write_header("r+b") == self._header_bytes

    def _write_header(self, mode: str) -> int:
        header = {"descr": self._descr, "fortran_order": False, "shape": (self.rows, *self._row_shape)}
        with self._path.open(mode) as file:
            np.lib.format.write_array_header_1_0(file, header)
            return file.tell()


def read_columns(path: Path) -> Iterator[tuple[str, Array | PackedColumn]]:
    """The columns of the frame at `path` in their order, N-D and packed values as read-only memory maps.

    Raises:
        FileNotFoundError: there is no index.json, hence no frame.
        ValueError: another or newer format, or a file that is missing, corrupt or against index.json.
    """
    index = _read_index(path)
    for entry in index["columns"]:
        name, kind, provenance = entry["name"], entry["kind"], (entry["site"], entry["feature"])
        column: Array | PackedColumn
        if kind == "tabular":
            file = path / "tabular.parquet"
            column = _read_tabular(file, name)
        elif kind == "array":
            file = _npy(path, name)
            column = Column.of(_map_npy(file), *provenance)
        else:
            file = _npy(path, name, "@cu_seqlens")
            values, cu_seqlens = _map_npy(_npy(path, name)), _map_npy(file)
            try:
                column = PackedColumn(values, cu_seqlens, *provenance)
            except ValueError as error:
                raise ValueError(f"load_frame: {file} does not fit its values: {error}") from error
        if len(column) != index["rows"]:
            rows = f"{index['rows']} rows as index.json says (got {len(column)})"
            raise ValueError(f"load_frame: {file} must have {rows}")
        yield name, column


def _npy(directory: Path, name: str, part: str = "") -> Path:
    return directory / f"{quote(name, safe='', errors='surrogatepass')}{part}.npy"


def _read_index(path: Path) -> dict[str, Any]:
    file = path / "index.json"
    if not file.is_file():
        raise FileNotFoundError(f"no frame at {path}: index.json is missing (an interrupted capture leaves none)")
    index = read_manifest(file, FORMAT, (VERSION,))
    with whole(file):
        kinds = {rebuild(_Entry, entry).kind for entry in index["columns"]} - {"tabular", "array", "packed"}
        if kinds or type(index["rows"]) is not int:
            raise TypeError("columns of an unknown kind, or no number of rows")
    return index


def _check_exists(file: Path) -> None:
    try:
        found = file.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise ValueError(f"load_frame: {shortened(file)} must exist, for index.json has its column")


def _read_tabular(file: Path, name: str) -> Array:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_exists(file)
    try:
        column: Array = pq.ParquetFile(file).read([name]).column(name).to_numpy()
    except (KeyError, OSError, UnicodeError, pa.ArrowException) as error:
        wanted = shortened(repr(name))
        raise ValueError(f"load_frame: {file} must be a whole Parquet file with a column {wanted}") from error
    return column


def _map_npy(file: Path) -> Array:
    """The array in `file` as a read-only memory map, once the file has the size that its header promises."""
    _check_exists(file)
    with file.open("rb") as stream:
        try:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # NumPy lets through whatever its parser meets, tokenize errors included.
            raise ValueError(f"load_frame: {file} must start with a whole .npy 1.0 header") from error
        expected, found = stream.tell() + math.prod(shape) * dtype.itemsize, file.stat().st_size
    if found != expected:
        raise ValueError(f"load_frame: {file} must have {expected} bytes (got {found})")
    if dtype.hasobject or min(shape, default=-1) < 0:
        raise ValueError(f"load_frame: {file} must hold rows of numbers (got {dtype} {shape})")
    array: Array = np.load(file, mmap_mode="r")
    return array
