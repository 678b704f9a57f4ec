"""Timing by the fastest of several interleaved runs: the run that other processes disturbed least."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def seconds_of(work: Callable[[], object]) -> float:
    """Run some work once and return its seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fastest(
    timers: Sequence[Callable[[], float]], *, fewest: int, most: int | None = None, budget: float = 0.0
) -> NDArray[np.float64]:
    """Return the fewest seconds of each timer, called in turns whose order changes from round to round.

    Each round runs every timer that still has turns left. Warm-up needs no runs of its own: it is not the fastest.

    Args:
        timers: n functions that do some work and return its seconds, for example a partial of `seconds_of`.
        fewest: runs of each timer at least.
        most: runs at most; None: `fewest`.
        budget: seconds that the runs of one timer take together, after which it is run no more than `fewest` times.

    Returns:
        (n,) float64.
    """
    best, spent = np.full(len(timers), np.inf), np.zeros(len(timers))
    turns = np.random.default_rng(0)  # what runs before a short piece of work changes its time
    for run in range(max(fewest, most or 0)):
        for place in turns.permutation(np.flatnonzero((spent < budget) | (run < fewest))):
            seconds = timers[place]()
            spent[place] += seconds
            best[place] = min(best[place], seconds)
    return best
