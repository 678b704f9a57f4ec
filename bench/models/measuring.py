"""What exits save on one model, as a row of the table."""

from __future__ import annotations

import statistics
import time
from tempfile import TemporaryDirectory

import torch

import moco_rt
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.outputs import Prediction
from models.case import Case

TIMINGS = 7


def seconds(model: EarlyExitClassifier, case: Case) -> float:
    """Return how long a model takes to label the rows to report on."""
    start = time.perf_counter()
    model.predict(case.report_rows, **case.options)
    return time.perf_counter() - start


def check_saved(model: EarlyExitClassifier, case: Case, found: Prediction) -> None:
    """Check that a model that is saved and loaded again gives the same bits and takes the same exits."""
    with TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = type(model).from_pretrained(directory)
        again = loaded.predict(case.report_rows, **case.options)
    assert torch.equal(again.probs, found.probs)
    assert torch.equal(again.exit_rule, found.exit_rule)


def measure(name: str, case: Case, agreement: float, count: int) -> str:
    """Return the row of the table: exits are found at an agreement, on so many of the case's rows."""
    # In the model's own dtype: the table is about exits.
    fast = moco_rt.accelerate(case.model, case.search_rows[:count], agreement=agreement, dtype=None, **case.options)
    plain = type(fast)(case.model)
    expected, found = (each.predict(case.report_rows, **case.options) for each in (plain, fast))
    check_saved(fast, case, found)
    ratios = [seconds(plain, case) / seconds(fast, case) for _ in range(TIMINGS)]
    labels = torch.tensor(case.report_labels)
    accuracy = [100 * float((each.labels == labels).float().mean()) for each in (expected, found)]
    differ = int((expected.labels != found.labels).sum())
    left = 100 * float((found.exit_site >= 0).float().mean())
    return (
        f"| {name} | {plain.backend} | {accuracy[0]:.1f} | {accuracy[1]:.1f} | {differ} of {len(labels):,} "
        f"({100 * differ / len(labels):.2f}%) | {left:.0f}% | {statistics.median(ratios):.2f} |"
    )
