"""Files of texts: `.jsonl`, an object a line with `text`[, `text2`][, `label`]; anything else is a text a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moco_rt.inputs.texts import TextInput


@dataclass(frozen=True)
class Row:
    """A line of a file.

    Attributes:
        text: a text or a pair.
        label: as it stands there, or None.
        place: file and line, for who complains about it.
    """

    text: TextInput
    label: Any
    place: str


def row_reader(source: Path) -> Callable[[str, int], Row]:
    """What makes a row of a line of a file and its number; raises ValueError where the line is not what it must be."""
    read = _read_json if source.suffix == ".jsonl" else _read_text
    return lambda line, number: read(line, f"{source}:{number}")


def read_rows(source: Path) -> list[Row]:
    """All rows of a file.

    Raises:
        ValueError: a line is not what it must be.
    """
    read = row_reader(source)
    with source.open(encoding="utf-8") as lines:
        return [read(line, number) for number, line in enumerate(lines, 1)]


def true_classes(rows: Sequence[Row], config: Any) -> list[int] | None:
    """The rows' labels as numbers of classes; None where one has none.

    Args:
        rows: their labels are class numbers or a model's own names of classes.
        config: the model's.

    Raises:
        ValueError: a label is neither.
    """
    if any(row.label is None for row in rows):
        return None
    return [_class_of(row, config) for row in rows]


def _class_of(row: Row, config: Any) -> int:
    if isinstance(row.label, str) and row.label in config.label2id:
        return int(config.label2id[row.label])
    if type(row.label) is int and row.label in config.id2label:
        return row.label
    known = ", ".join(f"{number} ({name})" for number, name in config.id2label.items())
    raise ValueError(f"{row.place} must have a label of the model's, one of {known} (got {row.label!r})")


def _read_text(line: str, place: str) -> Row:
    return Row(line.rstrip("\n"), None, place)


def _read_json(line: str, place: str) -> Row:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} must be a JSON object (got {line[:40]!r})") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ""), str) for name in ("text", "text2")):
        raise ValueError(f"{place} must be an object with strings text and text2, if any (got {line.strip()[:40]!r})")
    if "text" not in row:
        raise ValueError(f"{place} must have a text (got {line.strip()[:40]!r})")
    return Row((row["text"], row["text2"]) if "text2" in row else row["text"], row.get("label"), place)
