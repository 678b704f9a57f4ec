"""The columns of a frame: arrays that remember where they were captured, and packed rows of different length."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]


class Column(np.ndarray[Any, np.dtype[Any]]):
    """An array that remembers the `site` and the `feature` it was captured from; its slices remember too."""

    site: str | None
    feature: str | None

    @classmethod
    def of(cls, array: npt.ArrayLike, site: str | None = None, feature: str | None = None) -> Column:
        """A view of `array` with this provenance; a memory map is not read."""
        column = np.asarray(array).view(cls)
        column.site, column.feature = site, feature
        return column

    def __array_finalize__(self, obj: object) -> None:
        # Other rows of it are of the same site; some of its features, or features in another order, are of none.
        if isinstance(obj, Column) and obj.shape[1:] in (self.shape[1:], self.shape):
            self.site, self.feature = obj.site, obj.feature
        else:
            self.site, self.feature = None, None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # What is computed from a column was captured nowhere: it is a plain array, or a number.
        return array[()] if return_scalar else np.asarray(array)


@dataclass(frozen=True, eq=False)
class PackedColumn:
    """Rows of different length laid end to end.

    Attributes:
        values: (T, D), any dtype but object; may be a memory map.
        cu_seqlens: (rows + 1,), int64 (other integers are converted); row i is `values[cu[i]:cu[i + 1]]`.
        site: where it was captured, such as "encoder.0.output".
        feature: what was captured, such as "tokens".

    Raises:
        ValueError: the two arrays do not fit together.
    """

    values: Array
    cu_seqlens: Array
    site: str | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        values, cu = np.asanyarray(self.values), np.asarray(self.cu_seqlens)
        if values.ndim != 2:
            raise ValueError(f"PackedColumn: values must be (T, D) (got shape {values.shape})")
        if cu.ndim != 1 or cu.size == 0 or cu.dtype.kind not in "iu":
            got = f"(got {cu.dtype} {cu.shape})"
            raise ValueError(f"PackedColumn: cu_seqlens must be (rows + 1,) integers {got}")
        cu = cu.astype(np.int64)
        falls = np.count_nonzero(cu[1:] < cu[:-1])
        if cu[0] != 0 or cu[-1] != len(values) or falls:
            got = f"(got {cu[0]} to {cu[-1]} with {falls} falls)"
            raise ValueError(f"PackedColumn: cu_seqlens must go from 0 to {len(values)} without a fall {got}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "cu_seqlens", cu)

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def __repr__(self) -> str:
        return f"PackedColumn({len(self)} rows, {Layout.of(self).describe(len(self.values))})"

    @property
    def lengths(self) -> Array:
        """The rows' lengths: (rows,), int64."""
        return np.diff(self.cu_seqlens)

    def row(self, i: int) -> Column:
        """Row `i`, a view: (its length, D); negative `i` counts from the end. Raises IndexError."""
        (i,) = row_numbers([operator.index(i)], len(self), "PackedColumn.row")
        return Column.of(self.values[self.cu_seqlens[i] : self.cu_seqlens[i + 1]], self.site, self.feature)

    def subset(self, indices: npt.ArrayLike | slice) -> PackedColumn:
        """The rows at `indices` (integers, bool mask or slice), gathered in that order; as MLFrame.subset."""
        rows = row_numbers(indices, len(self), "PackedColumn.subset")
        lengths = self.lengths[rows]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
        shifts = self.cu_seqlens[rows] - cu_seqlens[:-1]
        tokens = np.arange(cu_seqlens[-1]) + np.repeat(shifts, lengths)
        return PackedColumn(self.values[tokens], cu_seqlens, self.site, self.feature)


@dataclass(frozen=True)
class Layout:
    """The kind, dtype, row shape and provenance of a column: all that its chunks have in common."""

    kind: str
    dtype: str
    row_shape: tuple[int, ...]
    site: str | None = None
    feature: str | None = None

    @staticmethod
    def of(column: Array | PackedColumn) -> Layout:
        """The layout of a column as `fitted` returns it."""
        if isinstance(column, PackedColumn):
            values = column.values
            return Layout("packed", str(values.dtype), values.shape[1:], column.site, column.feature)
        if isinstance(column, Column):
            return Layout("array", str(column.dtype), column.shape[1:], column.site, column.feature)
        return Layout("tabular", str(column.dtype), ())

    def describe(self, first_axis: int | str) -> str:
        """The layout in words; first_axis is the number of rows, or of tokens of a packed column."""
        shape = ", ".join(str(n) for n in (first_axis, *self.row_shape))
        return " ".join(filter(None, [self.kind, self.dtype, f"({shape})", self.site, self.feature]))


Layouts = dict[str, Layout]


def layouts(columns: Mapping[str, Array | PackedColumn]) -> Layouts:
    """The layout of every column."""
    return {name: Layout.of(column) for name, column in columns.items()}


def check_layouts(expected: Layouts, got: Layouts, operation: str) -> None:
    """Raise ValueError unless columns, dtypes, shapes and provenance are the same."""
    if expected.keys() != got.keys():
        raise ValueError(f"{operation}: columns must be {list(expected)} (got {list(got)})")
    for name, layout in expected.items():
        if got[name] != layout:
            pair = f"{layout.describe('*')} (got {got[name].describe('*')})"
            raise ValueError(f"{operation}: column {name!r} must be {pair}")


def fitted(
    name: str, values: npt.ArrayLike | PackedColumn, others: Mapping[str, Array | PackedColumn]
) -> Array | PackedColumn:
    """`values` as a frame holds them: 1-D a plain copy, else a Column or a PackedColumn.

    Raises:
        ValueError: rows are not as many as those of `others`, or no frame can hold the dtype.
    """
    column = _as_column(name, values)
    for other in (each for known, each in others.items() if known != name):
        if len(column) != len(other):
            rows = f"{len(other)} rows like the others (got {len(column)})"
            raise ValueError(f"MLFrame: column {name!r} must have {rows}")
    return column


def _as_column(name: str, values: npt.ArrayLike | PackedColumn) -> Array | PackedColumn:
    """`values` as a frame holds them: a plain copy if 1-D, else a Column or a PackedColumn."""
    column = values if isinstance(values, Column | PackedColumn) else Column.of(values)
    if isinstance(values, list | tuple) and isinstance(column, Column) and column.dtype.kind == "U":
        column = Column.of(np.array(values, dtype=object))  # as they are: NumPy has made texts of numbers among them
    array = column.values if isinstance(column, PackedColumn) else column
    if array.ndim > 1 and not array.dtype.hasobject:
        return column
    if array.ndim == 1 and array.dtype.kind in "biuf":
        return np.array(array)
    if array.ndim == 1 and array.dtype.kind in "UTO":
        import pyarrow as pa

        with contextlib.suppress(pa.ArrowException):
            strings: Array = as_arrow(array.astype(object)).to_numpy(zero_copy_only=False)
            return strings
    raise ValueError(
        f"MLFrame: column {name!r} must be 1-D booleans, integers, floats or strings, or N-D without objects"
        f" (got {array.dtype} {array.shape})"
    )


def as_arrow(column: Array) -> pa.Array:
    """A 1-D column for Parquet; among strings None and NaN are null, among floats NaN stays NaN."""
    import pyarrow as pa  # 24 MB that running a model does not need

    strings = column.dtype.hasobject
    return pa.array(column, pa.large_string() if strings else None, from_pandas=strings)


def joined(first: Any, second: Any) -> Array | PackedColumn:
    """The rows of both columns, which have the same layout."""
    if isinstance(first, PackedColumn):
        cu_seqlens = np.concatenate([first.cu_seqlens, first.cu_seqlens[-1] + second.cu_seqlens[1:]])
        values = np.concatenate([first.values, second.values])
        return PackedColumn(values, cu_seqlens, first.site, first.feature)
    rows: Array = np.concatenate([first, second])
    return Column.of(rows, first.site, first.feature) if isinstance(first, Column) else rows


def row_numbers(indices: npt.ArrayLike | slice, rows: int, operation: str) -> Array:
    """`indices` (integers, bool mask or slice) as numbers 0 ... rows - 1: (n,), int64."""
    if isinstance(indices, slice):
        return np.arange(rows)[indices]
    numbers = np.asarray(indices)
    if numbers.dtype == bool and numbers.shape == (rows,):
        return np.flatnonzero(numbers)
    if numbers.shape == (0,):
        return np.empty(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        got = f"{numbers.dtype} {numbers.shape}"
        raise ValueError(f"{operation}: rows must be integers (n,), a mask ({rows},) or a slice (got {got})")
    numbers = numbers.astype(np.int64)
    outside = numbers[(numbers < -rows) | (numbers >= rows)]
    if len(outside):
        raise IndexError(f"{operation}: row must be in [{-rows}, {rows}) (got {outside[0]})")
    return np.where(numbers < 0, numbers + rows, numbers)
