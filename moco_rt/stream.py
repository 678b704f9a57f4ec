"""A file of texts to a file of labels, line by line, in pieces that survive an interruption."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from moco_rt.batches import Text
from moco_rt.text_files import row_reader
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

#: Lines predicted before they are written: what an interruption costs at most.
_LINES = 4096


def predict_file(
    model: EarlyExitTextClassificationModel,
    tokenizer: Any,
    source: Path,
    out: Path,
    max_length: int | None = None,
) -> tuple[int, int]:
    """Label every line of a file; a line of out for each, in their order.

    Goes on where an earlier run was interrupted: whole lines that out holds already are kept, half a line at its end is
    cut off.

    Args:
        model: with or without a policy.
        tokenizer: its tokenizer.
        source: see `text_files`.
        out: of objects a line with `label`, `prob` and `exit`, the site where the row left or null.
        max_length: in tokens; None: what policy, model and tokenizer allow.

    Returns:
        How many lines out held before, and how many it holds now.

    Raises:
        ValueError: a line is not what it must be, out holds more lines than source, or is the source.
    """
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
    model: EarlyExitTextClassificationModel, tokenizer: Any, texts: list[Text], answers: TextIO, max_length: int | None
) -> None:
    prediction = model.predict(texts, tokenizer=tokenizer, max_length=max_length)
    names = model.config.id2label
    found = zip(prediction.labels.tolist(), prediction.probs, prediction.exit_site.tolist(), strict=True)
    answers.writelines(
        json.dumps(
            {
                "label": names[label],
                "prob": round(float(probs[label]), 6),
                "exit": None if site < 0 else model.sites[site],
            },
            ensure_ascii=False,
        )
        + "\n"
        for label, probs, site in found
    )
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


def _texts(source: Path, lines: TextIO, first: int) -> Iterator[list[Text]]:
    """What is left of a file, some thousand lines at a time."""
    read = row_reader(source)
    numbered = enumerate(lines, first + 1)
    while chunk := list(itertools.islice(numbered, _LINES)):
        yield [read(line, number).text for number, line in chunk]
