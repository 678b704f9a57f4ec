"""A file of texts, or a folder of images, to a file of labels, in pieces that survive an interruption."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.comparison import CascadeComparison, answer_parts
from moco_rt.cascades.prediction import predict_parts as predict_cascade_parts
from moco_rt.certification.these_rows import RowsWish
from moco_rt.inputs.file_formats import Columns, FileFormat
from moco_rt.inputs.images import find_images
from moco_rt.inputs.text_files import Row, open_rows
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.classifiers.comparison import comparison_of
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.classifiers.image_prediction import predict_image_parts
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import Prediction
from moco_rt.runtime.prediction import predict_parts
from moco_rt.serving.certified_file import CertifiedFile
from moco_rt.serving.label_output import LabelFile, LabelStream, is_stream, open_output
from moco_rt.serving.label_rows import ImageLabelRows, LabelRows, output_format
from moco_rt.serving.run_files import check_out
from moco_rt.serving.run_record import describe_image_run, describe_run


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
    wish: RowsWish | None = None,
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
        wish: a promise about these very rows, see `runtime.classifiers.certified`; None: nothing is promised of them.
            The source is read before the start, to count and hash its rows. When all are labelled, a certificate lies
            beside out (`certified_file`). Texts that are added later are not among its rows: a run then starts anew.

    Returns:
        How many texts out held the labels of before, and of how many it does now.

    Raises:
        OSError: the source is not there, or out cannot be written.
        ValueError: a line is not what it must be; out, its record or its certificate is the source, or not an earlier
            run's, or that run was made with something else, or had other texts; another run writes it; or max_length is
            given for a cascade; with a wish, source or out is no file, or the source changes meanwhile. Out then has
            the labels of all texts before, or is as it was.
    """
    if isinstance(model, Cascade) and max_length is not None:
        raise ValueError(f"max_length must be left to a cascade, which knows its own (got {max_length})")
    check_out(source, out)
    labels = LabelRows(model, format_of(out))

    def describe() -> dict[str, Any]:
        return describe_run(model, tokenizer, max_length)

    def answer(texts: Iterator[TextInput], by: Any = None) -> Iterator[Prediction]:
        if isinstance(model, Cascade):
            return predict_cascade_parts(model, texts) if by is None else answer_parts(texts, by)
        return predict_parts(model, texts, tokenizer, max_length, answer=by)

    if wish is not None:
        comparison = (CascadeComparison if isinstance(model, Cascade) else comparison_of)(model, wish)
        certified = CertifiedFile(comparison, wish, source, out, lambda: open_rows(source, kind, columns), answer)
        with open_rows(source, kind, columns) as rows:
            counts = write_answers(
                rows, source, out, labels, certified.label, lambda: certified.made_with(describe()), overwrite
            )
        certified.finish(describe)
        return counts
    with open_rows(source, kind, columns) as rows:
        return write_answers(rows, source, out, labels, lambda texts, _: answer(texts), describe, overwrite)


def predict_folder(
    model: EarlyExitImageClassificationModel, image_processor: Any, folder: Path, out: Path, *, overwrite: bool = False
) -> tuple[int, int]:
    """Label every image of a folder, as `predict_file` labels the texts of a file.

    Images are known by their paths within the folder: a later run goes on after those that out holds, whatever is in
    them by then.

    Args:
        model: with or without a policy.
        image_processor: its image processor.
        folder: the images, see `find_images`.
        out: the labels, see `ImageLabelRows`.
        overwrite: start anew, whatever out holds.

    Returns:
        How many images out held the labels of before, and of how many it does now.

    Raises:
        OSError: the folder is not there, or out cannot be written.
        ValueError: there is no image, or one cannot be read; out or its record is not an earlier run's, or that run was
            made with something else, or had other images; or another run writes it.
    """
    check_out(folder, out)
    labels = ImageLabelRows(model, format_of(out))
    paths = [path.relative_to(folder).as_posix() for path in find_images(folder)]

    def label(names: Iterator[TextInput], _: int) -> Iterator[Prediction]:
        return predict_image_parts(model, (folder / str(name) for name in names), image_processor)

    rows = (Row(path, None, str(folder / path)) for path in paths)
    return write_answers(
        rows, folder, out, labels, label, lambda: describe_image_run(model, image_processor), overwrite
    )


def format_of(out: Path) -> FileFormat:
    """Return the format of a destination: of a stream JSON lines, of a file see `output_format`."""
    return FileFormat.JSONL if is_stream(out) else output_format(out)


def write_answers(
    rows: Iterator[Row],
    source: Path,
    out: Path,
    labels: LabelRows,
    label: Callable[[Iterator[TextInput], int], Iterator[Any]],
    describe: Callable[[], dict[str, Any]],
    overwrite: bool,
) -> tuple[int, int]:
    """Answer what out does not hold yet, and return how many rows it held before, and how many it does now.

    Args:
        rows: all rows of the source.
        source: where they come from, for messages.
        out: the destination.
        labels: how answers are written.
        label: answers rows part by part, of which the first has this place in the source; parts have a length.
        describe: says what answers are made with.
        overwrite: start anew, whatever out holds.
    """
    ahead: deque[Row] = deque()  # that have been read, and whose labels have not been written

    def texts(rows: Iterator[Row]) -> Iterator[TextInput]:
        for row in rows:
            ahead.append(row)
            yield row.text

    with contextlib.ExitStack() as stack:
        if is_stream(out):
            output: LabelStream | LabelFile = LabelStream(out, labels, stack)
        else:
            first = list(itertools.islice(rows, 1))  # a file that cannot be read makes none
            rows = itertools.chain(first, rows)
            made_with = describe()
            output = stack.enter_context(open_output(out, labels, overwrite))
            rows = output.begin(made_with, rows, str(source), overwrite)
        before = output.rows
        for part in label(texts(rows), before):
            written = [ahead.popleft() for _ in range(len(part))]
            output.write(written, labels.lines_of(written, part))
        return before, output.rows
