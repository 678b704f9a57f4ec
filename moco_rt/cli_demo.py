"""The command `moco-rt demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moco_rt.cli_options import (
    TEXTS,
    Agreement,
    DtypeOption,
    Format,
    LabelColumn,
    MaxLength,
    Text2Column,
    TextColumn,
    check_directory,
    check_texts_model,
)
from moco_rt.inputs.file_formats import Columns

# What it runs on is imported inside: help and completion must not wait for it.


def demo(
    *,
    model: Annotated[str | None, typer.Option(help="a directory, or a name on the Hugging Face hub")] = None,
    data: Annotated[Path | None, typer.Option(help=TEXTS)] = None,
    agreement: Agreement = 0.99,
    dtype: DtypeOption = None,
    max_length: MaxLength = None,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
    label_column: LabelColumn = None,
    out: Annotated[Path, typer.Option(help="folder for the pictures, and the model trained on the spot")] = Path(
        "demo-output"
    ),
) -> None:
    """Find a policy for a classifier, run with and without it, compare.

    Without arguments: on a small BERT trained on the spot. With --model and --data: on your own.
    """
    if (model is None) != (data is None):
        raise typer.TyperException("--model and --data go together")
    check_directory(out)
    from moco_rt.demo import run

    if model is None or data is None:
        task = run.embedded_task(out / "model")
    else:
        check_texts_model(model)
        task = run.load_task(model, data, kind=kind, columns=Columns(text_column, text2_column, label_column))
    comparison = run.run(
        task, out, agreement=agreement, dtype=None if dtype is None else dtype.dtype, max_length=max_length
    )
    print(comparison.table())
    print(f"pictures: {out / 'exits.png'}, {out / 'report.html'}")
