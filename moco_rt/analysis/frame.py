"""MLFrame: columns of equal length, in memory or on disk; what a capture writes and the analytics read."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from moco_rt.analysis.columns import (
    Array,
    Column,
    Layout,
    PackedColumn,
    check_layouts,
    fitted,
    joined,
    layouts,
    row_numbers,
)
from moco_rt.analysis.frame_files import FrameWriter, read_columns

if TYPE_CHECKING:
    import pandas as pd


class MLFrame:
    """Columns of equal length: 1-D (booleans, integers, floats or strings), N-D, and packed ones.

    1-D columns are copied in, strings as objects (`str`, or None where missing); the others are not copied.

    Args:
        data: column name -> array-like (rows, ...) or PackedColumn.

    Raises:
        ValueError: a column's rows are not as many as the others', or no frame can hold its dtype.
    """

    def __init__(self, data: Mapping[str, npt.ArrayLike | PackedColumn] | None = None) -> None:
        self._columns: dict[str, Array | PackedColumn] = {}
        for name, values in (data or {}).items():
            self[name] = values

    @property
    def columns(self) -> list[str]:
        """The names, in the order in which the columns came."""
        return list(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __repr__(self) -> str:
        lines = [f"MLFrame: {len(self)} rows"]
        for name, column in self._columns.items():
            first_axis = len(column.values if isinstance(column, PackedColumn) else column)
            lines.append(f"  {name}: {Layout.of(column).describe(first_axis)}")
        return "\n".join(lines)

    def __getitem__(self, name: str | list[str]) -> Any:
        if isinstance(name, list):
            return MLFrame({each: self[each] for each in name})
        if name not in self._columns:
            raise KeyError(f"MLFrame: no column {name!r}; there are {self.columns}")
        return self._columns[name]

    def __setitem__(self, name: str, values: npt.ArrayLike | PackedColumn) -> None:
        self._columns[name] = fitted(name, values, self._columns)

    def at(self, i: int) -> dict[str, Any]:
        """Row `i` by column: a scalar, a Column (...), or a packed row (its length, D). Raises IndexError."""
        (i,) = row_numbers([operator.index(i)], len(self), "MLFrame.at")
        return {n: c.row(i) if isinstance(c, PackedColumn) else c[i] for n, c in self._columns.items()}

    def subset(self, idx: npt.ArrayLike | slice) -> MLFrame:
        """The rows at `idx`: integers (any order, repeats too), a bool mask (rows,) or a slice.

        A slice of an N-D column is a view, so a memory map stays unread; everything else is gathered.

        Raises:
            IndexError: a row is out of range.
            ValueError: the mask has another shape, or `idx` is none of the three.
        """
        rows = idx if isinstance(idx, slice) else row_numbers(idx, len(self), "MLFrame.subset")
        return MLFrame(
            {n: c.subset(rows) if isinstance(c, PackedColumn) else c[rows] for n, c in self._columns.items()}
        )

    def concatenate(self, other: MLFrame, axis: int = 0) -> MLFrame:
        """The rows of both (axis 0: same columns needed) or the columns of both (axis 1: no common names).

        Raises:
            ValueError: columns, dtypes, shapes or provenance (axis 0), or names or rows (axis 1), do not fit.
        """
        if axis == 0:
            check_layouts(layouts(self._columns), layouts(other._columns), "MLFrame.concatenate")
            return MLFrame({name: joined(self[name], other[name]) for name in self})
        if axis != 1:
            raise ValueError(f"MLFrame.concatenate: axis must be 0 or 1 (got {axis!r})")
        common = [name for name in self if name in other]
        if common:
            raise ValueError(f"MLFrame.concatenate: axis 1 needs no common columns (got {common})")
        return MLFrame({**self._columns, **other._columns})

    def get_tabular(self) -> pd.DataFrame:
        """A copy of the 1-D columns as one table, with all rows even when there is no such column."""
        import pandas as pd  # 40 MB that only tables need

        tabular = {n: c for n, c in self._columns.items() if not isinstance(c, Column | PackedColumn)}
        return pd.DataFrame(tabular, index=pd.RangeIndex(len(self)))

    def get_arrays(self) -> dict[str, Column | PackedColumn]:
        """The N-D and packed columns."""
        return {n: c for n, c in self._columns.items() if isinstance(c, Column | PackedColumn)}

    def to_frame(self, path: str | Path) -> None:
        """Write the frame as the directory `path`. Raises FileExistsError when something is there already."""
        with FrameWriter(path) as writer:
            writer.append(self._columns)

    @staticmethod
    def load_frame(path: str | Path) -> MLFrame:
        """The frame at `path`; its N-D and packed values are read-only memory maps.

        Raises:
            FileNotFoundError: there is no index.json, hence no frame.
            ValueError: another or newer format, or a file that is missing, corrupt or against index.json.
        """
        frame = MLFrame()
        for name, column in read_columns(Path(path)):
            frame[name] = column
        return frame
