"""The command line: `moco-rt demo`, `accelerate`, `predict`, `report`, `info`."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from safetensors import SafetensorError
from typer.core import TyperCommand

from moco_rt.inputs.file_formats import Columns, FileFormat

# What commands run on is imported inside them: help and completion must not wait for transformers and the search.
if TYPE_CHECKING:
    from moco_rt.architectures.conversion import Dtype

#: Errors that speak of what was handed over, not of this program.
_REFUSED = (ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)
_INTERRUPTED = 130

app = typer.Typer(
    help="Early exits for fine-tuned transformer classifiers.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class DtypeName(str, Enum):
    """A number format that a model computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"

    @property
    def dtype(self) -> Dtype:
        """The same, as the library takes it."""
        import torch

        return "int8" if self is DtypeName.INT8 else {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.value]


_TEXTS = "texts: .jsonl, .json, .csv, .tsv, .parquet or .txt (a text a line), each also .gz"
_DtypeOption = Annotated[DtypeName | None, typer.Option(help="to compute in; the model's where none is given")]
_MaxLength = Annotated[int | None, typer.Option(help="in tokens; what the model allows where none is given")]
_Agreement = Annotated[float, typer.Option(help="share of labels to keep")]
_Format = Annotated[FileFormat | None, typer.Option("--format", help="of the texts, whatever their file's ending")]
_TextColumn = Annotated[str | None, typer.Option(help="the column, or key, of the text (text)")]
_Text2Column = Annotated[str | None, typer.Option(help="of the second text of a pair (text2 or text_pair)")]
_LabelColumn = Annotated[str | None, typer.Option(help="of the label (label)")]


class _SeveralModels(TyperCommand):
    """A command that takes `--model a b` for `--model a --model b`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before every value of it."""
        return super().parse_args(ctx, list(_repeat("--model", args)))


def _repeat(option: str, arguments: Sequence[str]) -> Iterator[str]:
    """The arguments with the option before each of the values that follow it."""
    values = None
    for argument in arguments:
        if argument.startswith("-"):
            values = 0 if argument == option else None
        elif values is not None:
            values += 1
            if values > 1:
                yield option
        yield argument


@app.command()
def demo(
    *,
    model: Annotated[str | None, typer.Option(help="a directory, or a name on the Hugging Face hub")] = None,
    data: Annotated[Path | None, typer.Option(help=_TEXTS)] = None,
    agreement: _Agreement = 0.99,
    dtype: _DtypeOption = None,
    max_length: _MaxLength = None,
    kind: _Format = None,
    text_column: _TextColumn = None,
    text2_column: _Text2Column = None,
    label_column: _LabelColumn = None,
    out: Annotated[Path, typer.Option(help="for the pictures, and the model trained on the spot")] = Path(
        "demo-output"
    ),
) -> None:
    """Find a policy for a classifier, run with and without it, compare.

    Without arguments: on a small BERT trained on the spot. With --model and --data: on your own.
    """
    if (model is None) != (data is None):
        raise typer.TyperException("--model and --data go together")
    _check_directory(out)
    from moco_rt.demo import run

    if model is None or data is None:
        task = run.embedded_task(out / "model")
    else:
        task = run.load_task(model, data, kind=kind, columns=Columns(text_column, text2_column, label_column))
    comparison = run.run(
        task, out, agreement=agreement, dtype=None if dtype is None else dtype.dtype, max_length=max_length
    )
    print(comparison.table())
    print(f"pictures: {out / 'exits.png'}, {out / 'report.html'}")


@app.command(cls=_SeveralModels)
def accelerate(
    *,
    model: Annotated[
        list[str],
        typer.Option(
            help="a directory, or a name on the Hugging Face hub; several: a cascade, the one whose labels count last"
        ),
    ],
    data: Annotated[Path, typer.Option(help=_TEXTS)],
    out: Annotated[Path, typer.Option(help="directory for model, tokenizer and policy")],
    calibration: Annotated[
        Path | None, typer.Option(help="texts for the certificate alone (35% of --data)", show_default=False)
    ] = None,
    agreement: _Agreement = 0.99,
    confidence: Annotated[float, typer.Option(help="with which that must hold")] = 0.95,
    dtype: _DtypeOption = None,
    max_length: _MaxLength = None,
    seed: Annotated[int, typer.Option(help="of the split of the texts and of the off-ramps")] = 0,
    kind: _Format = None,
    text_column: _TextColumn = None,
    text2_column: _Text2Column = None,
    label_column: _LabelColumn = None,
) -> None:
    """Find the fastest policy of exits that can be certified."""
    _check_directory(out)
    from moco_rt.architectures import load_classifier
    from moco_rt.inputs.labels import true_classes
    from moco_rt.inputs.text_files import read_rows
    from moco_rt.tuning.accelerate import accelerate as find_policy

    columns = Columns(text_column, text2_column, label_column)
    rows = read_rows(data, kind, columns)
    kept_apart = None if calibration is None else read_rows(calibration, kind, columns)
    loaded = [load_classifier(name) for name in model]
    last, tokenizer = loaded[-1]
    one = len(loaded) == 1
    given: Any = last if one else loaded
    fast = find_policy(
        given,
        [row.text for row in rows],
        tokenizer=tokenizer if one else None,
        agreement=agreement,
        confidence=confidence,
        dtype=None if dtype is None else dtype.dtype,
        seed=seed,
        calibration=None if kept_apart is None else [row.text for row in kept_apart],
        labels=true_classes(rows if kept_apart is None else kept_apart, last.config),
        max_length=max_length,
    )
    fast.save_pretrained(out)
    print(fast.report())


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="what accelerate wrote, or any classifier")],
    data: Annotated[Path, typer.Argument(help=f"{_TEXTS}; - is standard input")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help=".jsonl, .csv or .tsv, each also .gz; - is standard output (the data's name.labels.jsonl)"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start anew, whatever --out holds")] = False,
    dtype: _DtypeOption = None,
    max_length: _MaxLength = None,
    kind: _Format = None,
    text_column: _TextColumn = None,
    text2_column: _Text2Column = None,
) -> None:
    """Label a file, line by line; goes on where an earlier run was interrupted."""
    from moco_rt.inputs.text_files import STANDARD

    if data != STANDARD:
        data.stat()  # before a model is loaded for nothing
    from moco_rt.architectures import load_tokenizer
    from moco_rt.cascades.cascade import Cascade
    from moco_rt.cascades.cascade_files import is_cascade
    from moco_rt.runtime.model import EarlyExitTextClassificationModel
    from moco_rt.serving.label_files import predict_file
    from moco_rt.serving.label_output import is_stream

    if out is None:
        out = STANDARD if data == STANDARD else data.with_name(f"{data.name}.labels.jsonl")
    loaded: EarlyExitTextClassificationModel | Cascade
    if is_cascade(model):
        if dtype is not None:
            raise ValueError(f"dtype must be left to a cascade, whose tiers have their own (got {dtype.value})")
        loaded, tokenizer = Cascade.from_pretrained(model), None
    else:
        loaded = EarlyExitTextClassificationModel.from_pretrained(model, dtype=None if dtype is None else dtype.dtype)
        tokenizer = load_tokenizer(loaded.model) if loaded.tokenizer is None else loaded.tokenizer
    columns = Columns(text_column, text2_column)
    before, now = predict_file(
        loaded, tokenizer, data, out, max_length, kind=kind, columns=columns, overwrite=overwrite
    )
    kept = f", {before:,} of them from an earlier run" if before else ""
    print(f"{out}: {now:,} lines{kept}", file=sys.stderr if is_stream(out) else sys.stdout)


@app.command()
def report(
    model: Annotated[Path, typer.Argument(help="directory that accelerate wrote")],
    *,
    out: Annotated[Path | None, typer.Option(help="(report.html in the directory)")] = None,
) -> None:
    """Write a page with pictures about what accelerate found; of a cascade print the table."""
    from moco_rt.cascades.cascade import Cascade
    from moco_rt.cascades.cascade_files import is_cascade
    from moco_rt.policies.findings import SearchReport
    from moco_rt.reports.page import report_page
    from moco_rt.runtime.checkpoints import FINDINGS
    from moco_rt.runtime.model import EarlyExitTextClassificationModel

    if is_cascade(model):
        print(Cascade.from_pretrained(model).report())
        return
    file = model / FINDINGS
    certificate = EarlyExitTextClassificationModel.from_pretrained(model).policy.certificate
    if certificate is None or not file.exists():
        raise ValueError(f"{model} must be a directory that accelerate wrote (it has no {FINDINGS})")
    out = out or model / "report.html"
    out.write_text(report_page(model.name, certificate, SearchReport.load(file)), encoding="utf-8")
    print(out)


@app.command()
def info() -> None:
    """Say which kernels run which numeric form on this machine, on how many threads, and why one cannot."""
    from moco_rt.runtime.machine import describe_machine

    print(describe_machine())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    Bad input is one line on standard error, and status 2; an interruption one line, and status 130.

    Raises:
        SystemExit: the arguments are not what they must be, with status 2.
    """
    logging.basicConfig(format="moco-rt: %(message)s")
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


def _complain(message: str) -> None:
    print("moco-rt:", *message.strip().splitlines(), file=sys.stderr)


def _explain(error: BaseException) -> str:
    """The message of an error, in front of it its name where it says nothing by itself."""
    return f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)


def _check_directory(out: Path) -> None:
    """Refuse a directory that cannot be made or written in, before hours of work for it.

    Raises:
        ValueError: a file stands in its way, or the file system forbids it.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"out must be a directory that can be written (got {out}: {error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main())
