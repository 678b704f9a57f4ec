"""The command `moco-rt bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from moco_rt.cli_options import TEXTS, Agreement, Format, MaxLength, Text2Column, TextColumn, check_texts_model
from moco_rt.inputs.file_formats import Columns

# What it runs on is imported inside: help and completion must not wait for it.


def bench(
    model: Annotated[str, typer.Argument(help="a classifier; or what accelerate wrote, whose policy is then measured")],
    data: Annotated[Path, typer.Argument(help=f"{TEXTS}; thousands, not those it was fine-tuned on")],
    *,
    threads: Annotated[
        int | None, typer.Option(help="threads of each engine (as many as there are cores)", min=1, show_default=False)
    ] = None,
    agreement: Agreement = 0.99,
    minutes: Annotated[float, typer.Option(help="minutes that engines may label for, beside loading", min=0)] = 5.0,
    price: Annotated[float, typer.Option(help="price of a core for an hour", min=0)] = 0.05,
    out: Annotated[Path | None, typer.Option(help="a picture of the result, .png or .svg", show_default=False)] = None,
    max_length: MaxLength = None,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
) -> None:
    """Compare engines on your model, texts and machine: Hugging Face, torch.compile, those installed, and moco_rt."""
    from moco_rt.benchmark.result import check_picture
    from moco_rt.benchmark.run import benchmark
    from moco_rt.inputs.text_files import read_rows

    if out is not None:
        check_picture(out)
    rows = read_rows(data, kind, Columns(text_column, text2_column))
    check_texts_model(model)
    result = benchmark(
        model,
        [row.text for row in rows],
        threads=threads or len(os.sched_getaffinity(0)),
        agreement=agreement,
        max_length=max_length,
        minutes=minutes,
        price=price,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(result.table())
    if out is not None:
        result.draw(out)
        print(f"picture: {out}")
