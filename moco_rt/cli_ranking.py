"""The commands of the command line for rerankers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from moco_rt.cli_options import DtypeOption, beside, check_texts_model, say_lines
from moco_rt.inputs.file_formats import Columns, FileFormat

# What they run on is imported inside: help and completion must not wait for it.

QUERIES = "queries: .jsonl or .json, objects with query, documents and perhaps scores, also .gz"


def rank(
    model: Annotated[str, typer.Argument(help="what accelerate --keep-top wrote, or any model with one label")],
    data: Annotated[Path, typer.Argument(help=f"{QUERIES}; - is standard input")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="ranked documents, in .jsonl or .ndjson, also .gz; - is standard output (the data's name.ranked.jsonl)"
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="how many to write of each query (all)", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start anew, whatever --out holds")] = False,
    dtype: DtypeOption = None,
) -> None:
    """Rank the documents of every query of a file, line by line; goes on where an earlier run was interrupted."""
    from moco_rt.architectures import load_tokenizer
    from moco_rt.inputs.text_files import STANDARD
    from moco_rt.ranking.reranker import EarlyExitReranker
    from moco_rt.serving.label_output import is_stream
    from moco_rt.serving.ranked_files import rank_file

    if data != STANDARD:
        data.stat()  # before a model is loaded for nothing
    if out is None:
        out = STANDARD if data == STANDARD else beside(data, ".ranked.jsonl")
    check_texts_model(model)
    loaded = EarlyExitReranker.from_pretrained(model, dtype=None if dtype is None else dtype.dtype)
    if loaded.tokenizer is None:
        loaded.tokenizer = load_tokenizer(loaded.model)
    before, now = rank_file(loaded, data, out, top_k, overwrite=overwrite)
    print(say_lines(out, before, now), file=sys.stderr if is_stream(out) else sys.stdout)


def check_queries_options(
    threshold: str | None, tolerance: float | None, kind: FileFormat | None, columns: Columns
) -> None:
    """Refuse options that say how texts are read, or what else the same answer is.

    Raises:
        ValueError: one is given.
    """
    if threshold is not None or tolerance is not None or kind is not None or columns != Columns():
        raise ValueError("keep-top must be without --threshold, --tolerance, --format and names of columns")


def accelerate_queries(
    models: Sequence[str],
    data: Path,
    out: Path,
    calibration: Path | None,
    keep_top: int,
    wish: dict[str, Any],
    max_length: int | None,
) -> str:
    """Find a policy on the queries of a file, write the reranker and return what is promised.

    Args:
        models: the model's name, in a list.
        data: the queries, see `read_queries`.
        out: directory to write to.
        calibration: queries for the certificate alone; None: some of `data`.
        keep_top: how many candidates must stay the first ones.
        wish: what is asked for, as keyword arguments of `moco_rt.accelerate`.
        max_length: in tokens.

    Raises:
        ValueError: there are several models, and whatever `moco_rt.accelerate` refuses.
    """
    from moco_rt.architectures import Ranking, load_classifier
    from moco_rt.serving.ranked_files import read_queries
    from moco_rt.tuning.accelerate import accelerate as find_policy

    if len(models) != 1:
        raise ValueError(f"model must be one to rank (got {len(models)})")
    task = Ranking(keep_top)
    queries = read_queries(data)
    kept_apart = None if calibration is None else read_queries(calibration)
    check_texts_model(models[0])
    model, tokenizer = load_classifier(models[0])
    fast = find_policy(
        model, queries, task=task, tokenizer=tokenizer, calibration=kept_apart, max_length=max_length, **wish
    )
    fast.save_pretrained(out)
    return fast.report()
