"""Numbers that users pass, checked in one place: shares, and whole numbers such as seeds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

#: Characters of what was got that an error shows.
_MOST = 300
#: Seeds of torch are below it.
_SEEDS = 2**64


def check_share(name: str, share: Any, *, one: bool = False) -> float:
    """Return a share as Python's float, whichever library's number it is: files keep it.

    Args:
        name: of the argument, for the error.
        share: the number.
        one: 1 is taken too.

    Raises:
        ValueError: it is no number inside (0, 1).
    """
    wanted = "inside (0, 1]" if one else "inside (0, 1)"
    if not isinstance(share, Real):
        raise ValueError(f"{name} must be a number {wanted} (got {_shown(share)})")
    number = float(share)
    if not (0 < number < 1 or (one and number == 1)):
        raise ValueError(f"{name} must be {wanted} (got {_shown(share, str)})")
    return number


def whole_number(name: str, given: Any) -> int:
    """Return a whole number from 0 on, whichever library's it is.

    Args:
        name: of the argument, for the error.
        given: the number.

    Raises:
        ValueError: it is something else.
    """
    try:
        count = operator.index(given)
    except TypeError:
        raise ValueError(f"{name} must be a whole number (got {_shown(given)})") from None
    if count < 0:
        raise ValueError(f"{name} must be at least 0 (got {count})")
    return count


def seed_of(given: Any) -> int:
    """Return a seed, as `whole_number` does; one that torch cannot take is refused, too."""
    seed = whole_number("seed", given)
    if seed >= _SEEDS:
        raise ValueError(f"seed must be below 2**64 (got {seed})")
    return seed


def _shown(given: Any, as_text: Callable[[Any], str] = repr) -> str:
    """Return what was got in one line that can be read."""
    return " ".join(as_text(given).split())[:_MOST]
