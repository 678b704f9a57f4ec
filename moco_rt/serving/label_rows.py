"""The fields that are written for a row, and their form in a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_rt.cascades.cascade import Cascade
from moco_rt.inputs.file_formats import FileFormat, format_of, is_compressed
from moco_rt.inputs.text_files import Row
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.outputs import Prediction


def output_format(out: Path) -> FileFormat:
    """The format of a file of labels, by its ending; JSON lines where it has none.

    Raises:
        ValueError: labels are not written in the format that the ending says, or it says none that is known.
    """
    plain = out.with_suffix("") if is_compressed(out) else out
    kind = format_of(out) if plain.suffix else FileFormat.JSONL
    if kind not in (FileFormat.JSONL, FileFormat.CSV, FileFormat.TSV):
        raise ValueError(f"out must end in .jsonl, .ndjson, .csv or .tsv, each also .gz, or in none (got {out})")
    return kind


class LabelRows:
    """Predictions as rows of a file: `label`, `prob`, `exit`; of a cascade also `tier`.

    A model whose labels may hold together has lists of the labels that hold and of their probabilities; a model of one
    label has a `score` in place of both. An answer that is not a number is null, as is one that is missing.

    Args:
        model: the model that answers, or a cascade.
        kind: the format of the file: JSON lines, CSV or TSV.
    """

    def __init__(self, model: EarlyExitClassifier | Cascade, kind: FileFormat):
        self._kind = kind
        config = model.config
        scored = config.num_labels == 1 or config.problem_type == "regression"
        self.columns = ["score"] if scored else ["label", "prob"]
        self.columns += ["exit", "tier"] if isinstance(model, Cascade) else ["exit"]

    def header(self) -> bytes:
        """The first line of a table; nothing of JSON lines."""
        return b"" if self._kind is FileFormat.JSONL else self._table_line(self.columns)

    def lines(self, prediction: Prediction) -> list[bytes]:
        """The lines of a file, one for each text."""
        return [self._line({name: plain(value) for name, value in row.items()}) for row in prediction]

    def lines_of(self, rows: Sequence[Row], prediction: Prediction) -> list[bytes]:  # noqa: ARG002
        """The lines of a file for these rows of the source, which texts are known by their places in."""
        return self.lines(prediction)

    def could_be(self, line: bytes) -> bool:
        """True for a line that `lines` may have written, whole or cut off."""
        if self._kind is FileFormat.JSONL:
            begin = f'{{"{self.columns[0]}": '.encode()
            return line.startswith(begin) or begin.startswith(line)
        try:
            cells = next(csv.reader([line.decode("utf-8", "replace")], delimiter=self._delimiter), [])
        except csv.Error:  # such as a carriage return inside a line
            return False
        return len(cells) == len(self.columns) or (len(cells) < len(self.columns) and not line.endswith(b"\n"))

    def _line(self, row: Mapping[str, Any]) -> bytes:
        if self._kind is FileFormat.JSONL:
            return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
        return self._table_line([_cell(value) for value in row.values()])

    def _table_line(self, cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(cells)
        return text.getvalue().encode("utf-8")

    @property
    def _delimiter(self) -> str:
        return "\t" if self._kind is FileFormat.TSV else ","


class ImageLabelRows(LabelRows):
    """Predictions about images as rows of a file: `label`, `prob`, `exit` and `image`, the path within its folder."""

    def __init__(self, model: EarlyExitClassifier, kind: FileFormat):
        super().__init__(model, kind)
        self.columns = [*self.columns, "image"]

    def lines_of(self, rows: Sequence[Row], prediction: Prediction) -> list[bytes]:
        """The lines of a file, one for each image."""
        return [
            self._line({**{name: plain(value) for name, value in answer.items()}, "image": row.text})
            for row, answer in zip(rows, prediction, strict=True)
        ]


def _cell(value: Any) -> str:
    """A value in a table: null is empty, a list stands as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value as it is written: numbers of six decimals, null for those that JSON does not have."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
