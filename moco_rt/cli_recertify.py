"""The command `moco-rt recertify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from moco_rt.cli_options import TEXTS, Format, LabelColumn, Text2Column, TextColumn
from moco_rt.inputs.file_formats import Columns

# What it runs on is imported inside: help and completion must not wait for it.


def recertify(
    model: Annotated[Path, typer.Argument(help="directory that accelerate wrote; its certificate is replaced")],
    data: Annotated[Path, typer.Argument(help=f"{TEXTS}; rows that nothing has seen")],
    *,
    kind: Format = None,
    text_column: TextColumn = None,
    text2_column: Text2Column = None,
    label_column: LabelColumn = None,
) -> None:
    """Certify a model again on fresh rows, without a search: both certificates, and the fastest policy they show."""
    from moco_rt.cascades.cascade import Cascade
    from moco_rt.cascades.cascade_files import is_cascade
    from moco_rt.inputs.labels import true_classes
    from moco_rt.inputs.text_files import read_rows
    from moco_rt.runtime.model import EarlyExitTextClassificationModel
    from moco_rt.serving.loading import find_texts_model
    from moco_rt.tuning.recertify import recertify as certify_again

    rows = read_rows(data, kind, Columns(text_column, text2_column, label_column))
    if is_cascade(model):
        fast: Any = Cascade.from_pretrained(model)
    else:
        find_texts_model(model)
        fast = EarlyExitTextClassificationModel.from_pretrained(model)
    has_labels = isinstance(fast, Cascade) or fast.policy.task.has_labels
    labels = true_classes(rows, fast.config) if has_labels else None
    found = certify_again(fast, [row.text for row in rows], labels=labels)
    fast.save_pretrained(model)
    print(found)
