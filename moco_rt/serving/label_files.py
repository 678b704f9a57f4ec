"""A file of texts to a file of labels, line by line, in pieces that survive an interruption."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.prediction import predict_parts as predict_cascade_parts
from moco_rt.inputs.file_formats import Columns, FileFormat
from moco_rt.inputs.text_files import STANDARD, Row, open_rows
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.prediction import predict_parts
from moco_rt.serving.label_output import LabelFile, LabelStream, is_stream, open_output
from moco_rt.serving.label_rows import LabelRows, output_format
from moco_rt.serving.run_record import describe_run


def predict_file(
    model: EarlyExitTextClassificationModel | Cascade,
    tokenizer: Any,
    source: Path,
    out: Path,
    max_length: int | None = None,
    *,
    kind: FileFormat | None = None,
    columns: Columns | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Label every text of a file; a line of out for each, in their order.

    Beside out lies its record (`run_record`): what it is made with, and hashes of the texts and labels so far. A later
    run of the same kind goes on where this one ends, also if it was interrupted, or if texts were added at the end of
    the source.

    Args:
        model: with or without a policy, or a cascade.
        tokenizer: its tokenizer; tiers of a cascade bring their own.
        source: the texts, see `open_rows`; `-` is standard input.
        out: the labels, see `LabelRows`: JSON lines, or CSV or TSV by its ending. `-` is standard output, which, as any
            pipe or device, has no record.
        max_length: in tokens; None: what policy, model and tokenizer allow; a cascade knows its own.
        kind: the format of the source; None: by its ending.
        columns: the columns of the source; None: `text`, `text2` or `text_pair`.
        overwrite: start anew, whatever out holds.

    Returns:
        How many texts out held the labels of before, and of how many it does now.

    Raises:
        OSError: the source is not there, or out cannot be written.
        ValueError: a line is not what it must be; out is the source, or not an earlier run's, or that run was made with
            something else, or had other texts; another run writes it; or max_length is given for a cascade. Out then
            has the labels of all texts before, or is as it was.
    """
    if isinstance(model, Cascade) and max_length is not None:
        raise ValueError(f"max_length must be left to a cascade, which knows its own (got {max_length})")
    if STANDARD not in (source, out) and out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"out must be another file than {source} (got the same)")
    labels = LabelRows(model, FileFormat.JSONL if is_stream(out) else output_format(out))
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(open_rows(source, kind, columns))
        if is_stream(out):
            output: LabelStream | LabelFile = LabelStream(out, labels, stack)
        else:
            first = list(itertools.islice(rows, 1))  # a file that cannot be read makes none
            rows = itertools.chain(first, rows)
            made_with = describe_run(model, tokenizer, max_length)
            output = stack.enter_context(open_output(out, labels, overwrite))
            rows = output.begin(made_with, rows, str(source), overwrite)
        before = output.rows
        _label(model, tokenizer, rows, output, labels, max_length)
        return before, output.rows


def _label(
    model: EarlyExitTextClassificationModel | Cascade,
    tokenizer: Any,
    rows: Iterator[Row],
    output: LabelStream | LabelFile,
    labels: LabelRows,
    max_length: int | None,
) -> None:
    ahead: deque[Row] = deque()  # that have been read, and whose labels have not been written

    def texts() -> Iterator[TextInput]:
        for row in rows:
            ahead.append(row)
            yield row.text

    if isinstance(model, Cascade):
        parts = predict_cascade_parts(model, texts())
    else:
        parts = predict_parts(model, texts(), tokenizer, max_length)
    for part in parts:
        output.write([ahead.popleft() for _ in range(len(part))], labels.lines(part))
