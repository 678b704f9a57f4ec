"""The command `moco-rt compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moco_rt.cli_options import (
    TEXTS,
    Format,
    MaxLength,
    Text2Column,
    TextColumn,
    check_directory,
    parse_numbers,
)
from moco_rt.inputs.file_formats import Columns

# What it runs on is imported inside: help and completion must not wait for it.


def compress(
    model: Annotated[str, typer.Argument(help="a directory, or a name on the hub")],
    data: Annotated[Path, typer.Argument(help=f"{TEXTS}; thousands, not those that certify later")],
    *,
    out: Annotated[Path, typer.Option(help="directory for the smaller model and its tokenizer")],
    width: Annotated[float, typer.Option(help="share of the layers' multiply-adds that is left")] = 1.0,
    sparsity: Annotated[float, typer.Option(help="share of the layers' weights that is zero")] = 0.0,
    block: Annotated[str, typer.Option(help="outputs x inputs of weights that are zero together")] = "1x4",
    lengths: Annotated[
        str | None,
        typer.Option(
            help="share of the tokens that all layers together see; or 1=0.5,2=0.35, shares that go on after layers",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="how often the smaller model sees the texts while it learns")] = 3,
    device: Annotated[str, typer.Option(help="where it learns: cpu, or cuda")] = "cpu",
    max_length: MaxLength = None,
    seed: Annotated[int, typer.Option(help="seed of the order of texts")] = 0,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
) -> None:
    """Make a smaller model, for accelerate's --variant; goes on where an earlier run was interrupted."""
    check_directory(out)
    shares = parse_numbers("lengths", lengths)
    if isinstance(shares, dict):
        if not all(layer.isdecimal() for layer in shares):
            raise ValueError(f"lengths must name layers by their numbers, layer=share,... (got {lengths!r})")
        shares = {int(layer): share for layer, share in shares.items()}  # type: ignore[misc]
    from moco_rt.architectures import load_classifier
    from moco_rt.compression.compress import compress as make_smaller
    from moco_rt.inputs.text_files import read_rows
    from moco_rt.inputs.tokenizer_identity import save_tokenizer
    from moco_rt.runtime.checkpoints import replacing

    beside = out.absolute()  # `.` has no name
    unfinished = beside.with_name(f"{beside.name}.unfinished.pt")
    rows = read_rows(data, kind, Columns(text_column, text2_column))
    given, tokenizer = load_classifier(model)
    small = make_smaller(
        given,
        [row.text for row in rows],
        tokenizer=tokenizer,
        width=width,
        sparsity=sparsity,
        block=_block(block),
        lengths=shares,  # type: ignore[arg-type]
        epochs=epochs,
        device=device,
        max_length=max_length,
        seed=seed,
        checkpoint=unfinished,
    )
    with replacing(out) as fresh:
        small.save_pretrained(fresh)
        save_tokenizer(tokenizer, fresh)
    unfinished.unlink(missing_ok=True)
    print(f"{out}: {small.describe()}")


def _block(text: str) -> tuple[int, int]:
    """Read outputs x inputs, such as `1x4`."""
    outputs, _, inputs = text.partition("x")
    if not (outputs.isdecimal() and inputs.isdecimal()):
        raise ValueError(f"block must be outputs x inputs, such as 1x4 (got {text!r})")
    return int(outputs), int(inputs)
