"""What is written for a row: the names of its values, and how they stand in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_rt.cascades.cascade import Cascade
from moco_rt.inputs.file_formats import FileFormat, format_of, is_compressed
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import Prediction

#: Of a model whose labels may hold together, those with at least this probability do.
_HOLDS = 0.5


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

    def __init__(self, model: EarlyExitTextClassificationModel | Cascade, kind: FileFormat):
        self._kind = kind
        self._names = model.config.id2label
        self._scored = model.config.num_labels == 1
        self._together = model.config.problem_type == "multi_label_classification"
        self._cascade = isinstance(model, Cascade)
        tiers = [tier.model for tier in model.tiers] if isinstance(model, Cascade) else [model]
        self._sites = [getattr(tier, "sites", ()) for tier in tiers]
        self.columns = ["score"] if self._scored else ["label", "prob"]
        self.columns += ["exit", "tier"] if self._cascade else ["exit"]

    def header(self) -> bytes:
        """The first line of a table; nothing of JSON lines."""
        return b"" if self._kind is FileFormat.JSONL else self._table_line(self.columns)

    def lines(self, prediction: Prediction) -> list[bytes]:
        """The lines of a file, one for each text."""
        return [self._line(row) for row in self._rows(prediction)]

    def could_be(self, line: bytes) -> bool:
        """True for a line that `lines` may have written, whole or cut off."""
        if self._kind is FileFormat.JSONL:
            begin = f'{{"{self.columns[0]}": '.encode()
            return line.startswith(begin) or begin.startswith(line)
        cells = next(csv.reader([line.decode("utf-8", "replace")], delimiter=self._delimiter), [])
        return len(cells) == len(self.columns) or (len(cells) < len(self.columns) and not line.endswith(b"\n"))

    def _rows(self, prediction: Prediction) -> list[dict[str, Any]]:
        columns = (prediction.labels, prediction.exit_site, prediction.tier, prediction.probs)
        rows = []
        for label, site, tier, probs in zip(*(column.tolist() for column in columns), strict=True):
            row = self._answer(label, probs)
            row["exit"] = None if site < 0 else self._sites[tier][site]
            if self._cascade:
                row["tier"] = None if tier < 0 else tier
            rows.append(row)
        return rows

    def _answer(self, label: int, probs: Sequence[float]) -> dict[str, Any]:
        if self._scored:
            return {"score": _rounded(probs[0])}
        if self._together:
            holding = [c for c, prob in enumerate(probs) if prob >= _HOLDS]
            return {"label": [self._names[c] for c in holding], "prob": [_rounded(probs[c]) for c in holding]}
        prob = _rounded(probs[label])
        return {"label": None if label < 0 or prob is None else self._names[label], "prob": prob}

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


def _cell(value: Any) -> str:
    """A value in a table: null is empty, a list stands as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rounded(value: float) -> float | None:
    """A number as it is written; None for one that JSON does not have."""
    return round(value, 6) if abs(value) < float("inf") else None
