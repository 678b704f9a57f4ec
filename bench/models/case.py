"""What is measured of a model: the classifier itself and rows that it has not learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Rows for `accelerate`, which learns from them and certifies on them: no model that is trained here ever sees them.
ACCELERATE_ROWS = 20_000


@dataclass(frozen=True)
class Case:
    """A classifier with rows that it has not learnt from.

    Attributes:
        model: the Hugging Face classifier.
        options: what `accelerate` and `predict` take besides the rows, such as the tokenizer.
        search_rows: texts or images for `accelerate`.
        report_rows: other texts or images, to report on.
        report_labels: their true classes.
    """

    model: Any
    options: dict[str, Any]
    search_rows: Sequence[Any]
    report_rows: Sequence[Any]
    report_labels: Sequence[int]
