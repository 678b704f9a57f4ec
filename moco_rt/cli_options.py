"""Options that commands of the command line share, the check of a directory to write to, and a line to print."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from moco_rt.inputs.file_formats import FileFormat

# Torch is imported where it is needed: help and completion must not wait for it.
if TYPE_CHECKING:
    from moco_rt.architectures.conversion import Dtype
    from moco_rt.tuning.variants import DtypeChoice


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


class AutoDtypeName(str, Enum):
    """A number format to compute in, or all that the processor has kernels for."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"

    @property
    def choice(self) -> DtypeChoice:
        """The same, as the library takes it."""
        return "auto" if self is AutoDtypeName.AUTO else DtypeName(self.value).dtype


class PromiseName(str, Enum):
    """A promise to choose."""

    CONFIDENT = "confident"
    PER_CLASS = "per class"
    ACCURACY = "accuracy"


TEXTS = "texts: .jsonl, .json, .csv, .tsv, .parquet or .txt (a text a line), each also .gz"
Format = Annotated[
    FileFormat | None, typer.Option("--format", help="format of the texts, whatever their file's ending")
]
TextColumn = Annotated[str | None, typer.Option(help="column, or key, of the text (text)")]
Text2Column = Annotated[str | None, typer.Option(help="column, or key, of a pair's second text (text2 or text_pair)")]
LabelColumn = Annotated[str | None, typer.Option(help="column, or key, of the label (label)")]
DtypeOption = Annotated[DtypeName | None, typer.Option(help="dtype to compute in; the model's where none is given")]
MaxLength = Annotated[
    int | None, typer.Option(help="tokens at which texts are cut; what the model allows where none is given")
]
Agreement = Annotated[float, typer.Option(help="share of labels to keep")]
PromiseOption = Annotated[
    PromiseName,
    typer.Option(help="promise about all rows; about the rows of each class; or about accuracy, by the data's labels"),
]
PromisedAgreement = Annotated[
    str | None,
    typer.Option(help="share of labels to keep (0.99); with 'per class' also toxic=0.99,hate=0.98", show_default=False),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        help="threshold of your own: keep on which side of it probabilities are; toxic=0.8,hate=0.6, or 0.4 of all "
        "labels where several may hold",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="by how much numbers that a model gives may differ, in its own units", show_default=False),
]
KeepTop = Annotated[
    int | None,
    typer.Option(
        help="how many of a reranker's documents must stay the first; the data are queries with documents",
        show_default=False,
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option(help="with 'accuracy': share of rows that it may fall by", show_default=False)
]
Certify = Annotated[
    float | None,
    typer.Option(
        help="share of these very rows to label as the model that was given does; writes OUT.certificate.json",
        show_default=False,
    ),
]
Confidence = Annotated[float, typer.Option(help="probability with which that must hold")]


class SeveralModels(TyperCommand):
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


def parse_numbers(option: str, given: str | None) -> float | dict[str, float] | None:
    """Return a number, or numbers by class, as `accelerate` takes them.

    Args:
        option: its name.
        given: "0.9" or "toxic=0.99,hate=0.98"; None stays None.

    Raises:
        ValueError: it is neither a number nor classes with numbers.
    """
    if given is None:
        return None
    try:
        if "=" not in given:
            return float(given)
        pairs = [part.rpartition("=") for part in given.split(",")]
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise ValueError(f"{option} must be a number, or class=number,... (got {given!r})") from None


def task_asked_for(config: Any, threshold: str | None, tolerance: float | None) -> Any:
    """Return the task that the options name of a model with this configuration; None: the model's own.

    Raises:
        ValueError: both are given, or threshold is not what it must be.
    """
    from moco_rt.architectures import MultiLabel, Regression, SingleLabel

    if threshold is None:
        return None if tolerance is None else Regression(tolerance)
    if tolerance is not None:
        raise ValueError("threshold and tolerance must not be given both: a model gives probabilities, or numbers")
    thresholds = parse_numbers("threshold", threshold)
    several = config.problem_type == "multi_label_classification"
    return MultiLabel(thresholds) if several else SingleLabel(thresholds)  # type: ignore[arg-type]  # it refuses a number


def check_directory(out: Path) -> None:
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


def check_texts_model(name: str | Path) -> None:
    """Refuse a cascade, and a classifier of images, where one model of texts is asked for.

    Raises:
        OSError: there is no such model.
        ValueError: it is one of these.
    """
    from moco_rt.cascades.cascade_files import is_cascade
    from moco_rt.serving.loading import find_texts_model

    if is_cascade(name):
        raise ValueError(f"model must be one model (got the cascade {name})")
    find_texts_model(name)


def beside(data: Path, ending: str) -> Path:
    """Return the path beside the data that is called as it is, with an ending more.

    Raises:
        ValueError: the data has no name, as the root of the file system.
    """
    named = data.resolve() if data.name in ("", "..") else data  # a folder as `.` has its name where it stands
    if not named.name:
        raise ValueError(f"out must be given where data has no name (got {data})")
    return named.with_name(f"{named.name}{ending}")


def say_lines(out: Path, before: int, now: int) -> str:
    """Return the line about a file of labels: how many it holds, and how many of them it held before."""
    kept = f", {before:,} of them from an earlier run" if before else ""
    return f"{out}: {now:,} lines{kept}"
