"""Bounds on how much accuracy a fast model loses against the given one, from rows with true labels.

A row's loss d is 1[given model right] - 1[fast model right], from -1 to 1: of a row whose copies have different true
classes their mean. The claim is E[d] <= max_drop. Rows on which
both are right or both wrong cost little, so that far more labels may change than where labels are promised to agree.

The test is by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
arXiv:2010.09686). With x = (1 - d) / 2 in [0, 1] and m = (1 - max_drop) / 2 the claim is false if E[x] < m. Then
prod_i (1 + lam_i (x_i - m)) is a non-negative supermartingale that starts at 1, if lam_i is in [0, 1 / m) and depends
only on rows before i, and P(it ever reaches 1 / delta) <= delta (Ville's inequality). The bets are the paper's for a
sample of fixed size n, cut at 1 / (2 m): lam_i = sqrt(2 log(1 / delta) / (n v_{i-1})), where v_i = (1/4 + sum_{j<=i}
(x_j - u_j)^2) / (i + 1) and u_i = (1/2 + sum_{j<=i} x_j) / (i + 1). They depend on n, so that the number of rows must
be settled before the test: none may be added after a look at its result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def drop_p_value(d: NDArray[Any], max_drop: float, delta: float) -> float:
    """Return the p-value of "the accuracy falls by more than max_drop": 1 / the highest the martingale gets, at most 1.

    It is valid at any level; the bets are the best for the level delta.

    Args:
        d: (n,), 1[given model right] - 1[fast model right] by row, in an order drawn at random once, from
            a seed that does not depend on the rows.
        max_drop: share of rows by which the accuracy may fall, inside [0, 1).
        delta: the chance, over the rows, that the claim is certified though it is false, inside (0, 1).

    Raises:
        ValueError: d holds a number outside [-1, 1], or max_drop or delta is out of range.
    """
    if not 0 <= max_drop < 1:
        raise ValueError(f"max_drop must be inside [0, 1) (got {max_drop})")
    x, bets = _bets(d, delta)
    return _p_value(x, bets, max_drop)


def drop_bound(d: NDArray[Any], delta: float) -> float:
    """Return the smallest max_drop, a multiple of 1e-4, whose p-value is at most delta; 1.0 if none is.

    It is found by bisection: every factor 1 + min(lam, 1 / (2 m)) (x - m) falls as m grows, so that the p-value never
    grows with max_drop. 0.0 also where the fast model is the better one.

    Args:
        d: (n,) as `drop_p_value` takes it.
        delta: the chance, over the rows, that the accuracy falls by more, inside (0, 1).

    Raises:
        ValueError: see `drop_p_value`.
    """
    x, bets = _bets(d, delta)
    least, most = 0, 10_000
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if _p_value(x, bets, middle / 10_000) <= delta else (middle + 1, most)
    return least / 10_000


def drop_sequence(d: NDArray[Any], max_drop: float, delta: float) -> int:
    """Return the index of the last policy along a path certified to lose max_drop of accuracy at most; -1: none.

    Learn-then-Test with fixed-sequence testing (see `fixed_sequence`): with probability 1 - delta all policies up to
    the returned one keep the claim. Policies behind the first that fails are not looked at.

    Args:
        d: (policies, n), a row for each policy as `drop_p_value` takes it, all in the same order of rows; the path was
            ordered on other rows.
        max_drop: share of rows by which the accuracy may fall, inside [0, 1).
        delta: the chance that a policy up to the returned one loses more, inside (0, 1).

    Raises:
        ValueError: see `drop_p_value`.
    """
    for place, of_policy in enumerate(d):
        if drop_p_value(of_policy, max_drop, delta) > delta:
            return place - 1
    return len(d) - 1


def _bets(d: NDArray[Any], delta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x, (n,), and the bets before they are cut at 1 / (2 m), (n,)."""
    if not 0 < delta < 1:
        raise ValueError(f"delta must be inside (0, 1) (got {delta})")
    if not (np.abs(d) <= 1).all():
        raise ValueError(f"d must be from -1 to 1 (got {d.min()} to {d.max()})")
    x = (1 - d.astype(np.float64)) / 2
    rows = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (rows + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (rows + 1)
    before = np.concatenate([[0.25], variance[:-1]])[: len(x)]
    return x, np.sqrt(2 * np.log(1 / delta) / (max(1, len(x)) * before))


def _p_value(x: NDArray[np.float64], bets: NDArray[np.float64], max_drop: float) -> float:
    m = (1 - max_drop) / 2
    growth = np.cumsum(np.log1p(np.minimum(bets, 1 / (2 * m)) * (x - m)))
    return float(np.exp(-max(0.0, growth.max(initial=0.0))))
