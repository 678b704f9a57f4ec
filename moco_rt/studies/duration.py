"""Duration of a study: what it will take, by the costs that were timed and some steps of fitting, before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moco_rt.architectures import Task
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.conditions import OffRamp
from moco_rt.studies.costs import Costs
from moco_rt.studies.distillation import HIDDEN, distill, epochs_of
from moco_rt.studies.objectives import objective_for
from moco_rt.studies.timing import fastest, seconds_of

#: Rows that a step of fitting is timed on, at most.
_TIMED_ROWS = 8192


def seconds_to_record(costs: Sequence[Costs], lengths: NDArray[np.int64], off_ramps: Sequence[AnyOffRamp]) -> float:
    """Return the seconds in which rows are recorded by all forms, one after the other.

    Args:
        costs: of each form.
        lengths: (N,) tokens of the rows.
        off_ramps: that costs are about; what they read is recorded.
    """
    read = [place for place, ramp in enumerate(off_ramps) if ramp.feature != "cls"]  # which is part of cls+mean
    return float(sum(of_form.seconds(lengths, read)[:, -1].sum() for of_form in costs))


def seconds_to_fit(off_ramps: Sequence[AnyOffRamp], rows: int, classes: int, task: Task) -> float:
    """Return the seconds in which the off-ramps of one form are fitted to so many rows; a bag of tokens takes few."""
    sizes = [ramp.layers[0][0].shape[1] for ramp in off_ramps if isinstance(ramp, OffRamp)]
    return sum(sizes.count(size) * _seconds_of_one(size, rows, classes, task) for size in set(sizes))


def _seconds_of_one(size: int, rows: int, classes: int, task: Task) -> float:
    """Return the seconds in which `fit_off_ramp` fits one layer, and then two, to features of a size."""
    random = np.random.default_rng(0)
    timed = min(rows, _TIMED_ROWS)
    x = random.standard_normal((timed, size), np.float32)
    objective = objective_for(task, random.standard_normal((timed, classes), np.float32))
    fits = [partial(distill, x, objective, hidden=hidden, seed=0, epochs=1) for hidden in (0, HIDDEN)]
    seconds = fastest([partial(seconds_of, fit) for fit in fits], fewest=2).sum()
    return float(seconds) * epochs_of(rows) * rows / timed


def in_words(seconds: float) -> str:
    """Return a duration as it is said: "about 40 s", or "about 12 min"."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {math.ceil(seconds / 60)} min"
