"""The command line `moco-rt`: its commands `accelerate` and `predict`, and the others from the modules `cli_*`."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors import SafetensorError

from moco_rt.cli_bench import bench
from moco_rt.cli_compress import compress
from moco_rt.cli_demo import demo
from moco_rt.cli_options import (
    TEXTS,
    AutoDtypeName,
    Certify,
    Confidence,
    DtypeOption,
    Format,
    KeepTop,
    LabelColumn,
    MaxDrop,
    MaxLength,
    PromisedAgreement,
    PromiseName,
    PromiseOption,
    SeveralModels,
    Text2Column,
    TextColumn,
    Threshold,
    Tolerance,
    beside,
    check_directory,
    check_texts_model,
    parse_numbers,
    say_lines,
    task_asked_for,
)
from moco_rt.cli_ranking import accelerate_queries, check_queries_options, rank
from moco_rt.cli_recertify import recertify
from moco_rt.cli_report import info, report
from moco_rt.cli_serve import serve
from moco_rt.inputs.file_formats import Columns

# What commands run on is imported inside them: help and completion must not wait for transformers and the search.

#: Errors that speak of what was handed over, not of this program.
_REFUSED = (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)
_INTERRUPTED = 130

app = typer.Typer(
    help="Early exits for fine-tuned transformer classifiers.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_versions(wanted: bool) -> None:
    if wanted:
        from moco_rt.runtime.machine import describe_machine

        print(describe_machine())
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_versions, is_eager=True, help="versions, instruction set, numeric forms"
        ),
    ] = False,
) -> None:
    """Early exits for fine-tuned transformer classifiers."""


@app.command(cls=SeveralModels)
def accelerate(
    *,
    model: Annotated[
        list[str],
        typer.Option(
            help="a directory, or a name on the Hugging Face hub; several: a cascade, the one whose labels count last"
        ),
    ],
    data: Annotated[Path, typer.Option(help=f"{TEXTS}; or a folder of images")],
    out: Annotated[Path, typer.Option(help="directory for model, tokenizer and policy")],
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="texts, queries or images for the certificate alone (35% of --data, of queries 40%)",
            show_default=False,
        ),
    ] = None,
    threshold: Threshold = None,
    tolerance: Tolerance = None,
    keep_top: KeepTop = None,
    promise: PromiseOption = PromiseName.CONFIDENT,
    agreement: PromisedAgreement = None,
    max_drop: MaxDrop = None,
    confidence: Confidence = 0.95,
    dtype: Annotated[
        AutoDtypeName, typer.Option(help="dtype to compute in; auto: whatever is fastest of what is certified")
    ] = AutoDtypeName.AUTO,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="a smaller model that compress wrote, to be tried too; several times", show_default=False),
    ] = None,
    never_early: Annotated[
        list[str] | None,
        typer.Option(help="a class that no text gets early; several times", show_default=False),
    ] = None,
    max_length: MaxLength = None,
    seed: Annotated[int, typer.Option(help="seed of the split of the texts and of the off-ramps")] = 0,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
    label_column: LabelColumn = None,
) -> None:
    """Find the fastest policy of exits that can be certified."""
    check_directory(out)
    columns = Columns(text_column, text2_column, label_column)
    wish: dict[str, Any] = {
        "promise": promise.value,
        "agreement": parse_numbers("agreement", agreement),
        "max_drop": max_drop,
        "confidence": confidence,
        "dtype": dtype.choice,
        "seed": seed,
    }
    if (variant or never_early) and (keep_top is not None or data.is_dir() or len(model) > 1):
        raise ValueError("variant and never-early must be left out but for one model of texts")
    if keep_top is not None:
        check_queries_options(threshold, tolerance, kind, columns)
        print(accelerate_queries(model, data, out, calibration, keep_top, wish, max_length))
        return
    if data.is_dir():
        from moco_rt import cli_images

        cli_images.check_no_text_options(kind, columns, max_length)
        print(cli_images.accelerate(model, data, out, calibration, wish, threshold, tolerance))
        return
    from moco_rt.architectures import load_classifier, task_of
    from moco_rt.inputs.labels import true_classes
    from moco_rt.inputs.text_files import read_rows
    from moco_rt.tuning.accelerate import accelerate as find_policy

    rows = read_rows(data, kind, columns)
    kept_apart = None if calibration is None else read_rows(calibration, kind, columns)
    for name in (*model, *(variant or [])):
        check_texts_model(name)
    loaded = [load_classifier(name) for name in model]
    last, tokenizer = loaded[-1]
    one = len(loaded) == 1
    task = task_asked_for(last.config, threshold, tolerance)
    labelled = rows if kept_apart is None else kept_apart
    given: Any = last if one else loaded
    fast = find_policy(
        given,
        [row.text for row in rows],
        tokenizer=tokenizer if one else None,
        task=task,
        **wish,
        calibration=None if kept_apart is None else [row.text for row in kept_apart],
        labels=true_classes(labelled, last.config) if task_of(last.config, task).has_labels else None,
        max_length=max_length,
        variants=[load_classifier(name)[0] for name in variant or []],
        never_early=never_early or [],
    )
    fast.save_pretrained(out)
    print(fast.report())


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="what accelerate wrote, or any classifier")],
    data: Annotated[Path, typer.Argument(help=f"{TEXTS}; - is standard input; or a folder of images")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="labels, in .jsonl, .ndjson, .csv or .tsv, each also .gz; - is standard output "
            "(the data's name.labels.jsonl)"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start anew, whatever --out holds")] = False,
    certify: Certify = None,
    confidence: Confidence = 0.95,
    dtype: DtypeOption = None,
    max_length: MaxLength = None,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
) -> None:
    """Label a file, line by line, or a folder of images; goes on where an earlier run was interrupted."""
    from moco_rt.inputs.text_files import STANDARD

    if data != STANDARD:
        data.stat()  # before a model is loaded for nothing
    from moco_rt.certification.these_rows import RowsWish
    from moco_rt.serving.certified_file import read_certificate
    from moco_rt.serving.label_files import predict_file
    from moco_rt.serving.label_output import is_stream
    from moco_rt.serving.loading import load_answering

    if out is None:
        out = STANDARD if data == STANDARD else beside(data, ".labels.jsonl")
    columns = Columns(text_column, text2_column)
    wish = None if certify is None else RowsWish(certify, confidence)
    if data.is_dir():
        from moco_rt import cli_images

        cli_images.check_no_text_options(kind, columns, max_length, certify)
        said = cli_images.predict(model, data, out, dtype, overwrite=overwrite)
        print(said, file=sys.stderr if is_stream(out) else sys.stdout)
        return
    loaded = load_answering(model, None if dtype is None else dtype.dtype)
    before, now = predict_file(
        loaded,
        getattr(loaded, "tokenizer", None),
        data,
        out,
        max_length,
        kind=kind,
        columns=columns,
        overwrite=overwrite,
        wish=wish,
    )
    print(say_lines(out, before, now), file=sys.stderr if is_stream(out) else sys.stdout)
    if wish is not None:
        print(read_certificate(out))


app.command()(demo)
app.command()(bench)
app.command()(compress)
app.command()(rank)
app.command()(recertify)
app.command()(report)
app.command()(info)
app.command()(serve)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    Bad input is one line on standard error, and status 2; an interruption one line, and status 130.

    Raises:
        SystemExit: the arguments are not what they must be, with status 2.
    """
    logging.basicConfig(format="moco-rt: %(message)s")
    _escape_what_cannot_be_said()
    command = typer.main.get_command(app)
    arguments = None if arguments is None else list(arguments)
    try:
        status = command.main(args=arguments, prog_name="moco-rt", standalone_mode=False) or 0
    except typer.TyperException as error:
        _complain(error.format_message())
        raise SystemExit(2) from None
    except _REFUSED as error:
        _complain(_explain(error))
        return 2
    if status == _INTERRUPTED:
        _complain("interrupted")
    return int(status)


def _escape_what_cannot_be_said() -> None:
    """Let standard output tell of files whatever they are called, as standard error does; labels go there as bytes."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and (
        stream.errors == "strict" or (stream.errors == "surrogateescape" and stream.encoding != "utf-8")
    ):
        stream.reconfigure(errors="backslashreplace")


def _complain(message: str) -> None:
    print("moco-rt:", *message.strip().splitlines(), file=sys.stderr)


def _explain(error: BaseException) -> str:
    """The message of an error, in front of it its name where it says nothing by itself."""
    return f"{type(error).__name__}: {error}" if isinstance(error, ArithmeticError | LookupError) else str(error)


if __name__ == "__main__":
    sys.exit(main())
