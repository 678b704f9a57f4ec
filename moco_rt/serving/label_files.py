"""A file of texts to a file of labels, line by line, in pieces that survive an interruption."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from moco_rt.cascades.cascade import Cascade
from moco_rt.inputs.text_files import row_reader
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.model import EarlyExitTextClassificationModel

#: Lines predicted before they are written: what an interruption costs at most.
_LINES = 4096


def predict_file(
    model: EarlyExitTextClassificationModel | Cascade,
    tokenizer: Any,
    source: Path,
    out: Path,
    max_length: int | None = None,
) -> tuple[int, int]:
    """Label every line of a file; a line of out for each, in their order.

    Goes on where an earlier run was interrupted: whole lines that out holds already are kept, half a line at its end is
    cut off.

    Args:
        model: with or without a policy, or a cascade.
        tokenizer: its tokenizer; tiers of a cascade bring their own.
        source: see `text_files`.
        out: of objects a line with `label`, `prob` and `exit`, the site where the row left or null; of a cascade also
            `tier`, the place of the model that answered.
        max_length: in tokens; None: what policy, model and tokenizer allow; a cascade knows its own.

    Returns:
        How many lines out held before, and how many it holds now.

    Raises:
        ValueError: a line is not what it must be, out holds more lines than source, or is the source; or max_length is
            given for a cascade.
    """
    if isinstance(model, Cascade) and max_length is not None:
        raise ValueError(f"max_length must be left to a cascade, which knows its own (got {max_length})")
    if out.exists() and out.samefile(source):
        raise ValueError(f"out must be another file than {source} (got the same)")
    before = _whole_lines(out)
    done = before
    with source.open(encoding="utf-8") as lines, out.open("a", encoding="utf-8") as answers:
        skipped = sum(1 for _ in itertools.islice(lines, before))
        if skipped < before:
            raise ValueError(f"{out} must not hold more lines than {source} (got {before} and {skipped})")
        for texts in _texts(source, lines, before):
            _write(model, tokenizer, texts, answers, max_length)
            done += len(texts)
    return before, done


def _write(
    model: EarlyExitTextClassificationModel | Cascade,
    tokenizer: Any,
    texts: list[TextInput],
    answers: TextIO,
    max_length: int | None,
) -> None:
    if isinstance(model, Cascade):
        prediction = model.predict(texts)
    else:
        prediction = model.predict(texts, tokenizer=tokenizer, max_length=max_length)
    for row in prediction:
        answer = {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
        answers.write(json.dumps(answer, ensure_ascii=False) + "\n")
    answers.flush()


def _whole_lines(out: Path) -> int:
    """How many lines a file holds, after what follows the last of them has been cut off."""
    if not out.exists():
        return 0
    count = end = 0
    with out.open("rb+") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                count += 1
                end += len(line)
        lines.truncate(end)
    return count


def _texts(source: Path, lines: TextIO, first: int) -> Iterator[list[TextInput]]:
    """What is left of a file, some thousand lines at a time."""
    read = row_reader(source)
    numbered = enumerate(lines, first + 1)
    while chunk := list(itertools.islice(numbered, _LINES)):
        yield [read(line, number).text for number, line in chunk]
