"""Rates that a promise may be broken at in a simulation."""

from __future__ import annotations

import math


def at_most(delta, repeats):
    """A rate that a promise broken with probability delta exceeds in about one run of a thousand."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / repeats)
