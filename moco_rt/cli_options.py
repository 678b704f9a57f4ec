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
Format = Annotated[FileFormat | None, typer.Option("--format", help="of the texts, whatever their file's ending")]
TextColumn = Annotated[str | None, typer.Option(help="the column, or key, of the text (text)")]
Text2Column = Annotated[str | None, typer.Option(help="of the second text of a pair (text2 or text_pair)")]
LabelColumn = Annotated[str | None, typer.Option(help="of the label (label)")]
DtypeOption = Annotated[DtypeName | None, typer.Option(help="to compute in; the model's where none is given")]
MaxLength = Annotated[int | None, typer.Option(help="in tokens; what the model allows where none is given")]
Agreement = Annotated[float, typer.Option(help="share of labels to keep")]
PromiseOption = Annotated[
    PromiseName,
    typer.Option(help="about all rows; about the rows of each class; or about accuracy, by the data's labels"),
]
PromisedAgreement = Annotated[
    str | None,
    typer.Option(help="share of labels to keep (0.99); with 'per class' also toxic=0.99,hate=0.98", show_default=False),
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
Confidence = Annotated[float, typer.Option(help="with which that must hold")]


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


def parse_agreement(agreement: str | None) -> float | dict[str, float] | None:
    """Return the agreement that was asked for as `accelerate` takes it.

    Raises:
        ValueError: it is neither a number nor classes with numbers.
    """
    if agreement is None:
        return None
    try:
        if "=" not in agreement:
            return float(agreement)
        pairs = [part.rpartition("=") for part in agreement.split(",")]
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise ValueError(f"agreement must be a number, or class=number,... (got {agreement!r})") from None


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


def say_lines(out: Path, before: int, now: int) -> str:
    """Return the line about a file of labels: how many it holds, and how many of them it held before."""
    kept = f", {before:,} of them from an earlier run" if before else ""
    return f"{out}: {now:,} lines{kept}"
