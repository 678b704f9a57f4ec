"""Exact bounds for these very rows, of which some are drawn at random without replacement and also run in full.

The drawn rows get the full model's answers; the bounds are about the others. They hold whatever the rows are, and need
no labels. Raised everywhere, as ValueError: counts that do not fit each other, a share or delta out of range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from moco_rt.statistics.bounds import last_passed
from moco_rt.statistics.guarantee import Guarantee


def most_differing(found: int, drawn: int, rows: int, delta: float) -> int:
    """Return the upper bound on how many of all rows differ: max{K : P(Hyp(rows, K, drawn) <= found) > delta}.

    Buonaccorsi, "A note on confidence intervals for proportions in finite populations", American Statistician 1987.

    Args:
        found: drawn rows that differ.
        drawn: rows drawn without replacement.
        rows: all rows.
        delta: the chance, over the draw, that more differ, inside (0, 1).
    """
    if not 0 <= found <= drawn <= rows:
        raise ValueError(f"found must be at most drawn, and drawn at most rows (got {found}, {drawn}, {rows})")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be inside (0, 1) (got {delta})")
    return _last(lambda differing: _cdf(found, rows, differing, drawn) > delta, found, rows - drawn + found)


def allowed_found(drawn: int, rows: int, guarantee: Guarantee) -> int:
    """Return the most drawn rows that may differ for the answers of all rows to be certified; -1 if not even 0 may.

    If K rows differ, k of them drawn, K - k answers are wrong: too many if K >= floor(max_disagreement * rows) + k + 1.
    This is the largest k with P(Hyp(rows, the least such K, drawn) <= k) <= delta, which grows with k.
    """
    if not 0 <= drawn <= rows:
        raise ValueError(f"drawn must be inside [0, {rows}] (got {drawn})")
    wrong = math.floor(guarantee.max_disagreement * rows * (1 + 1e-12))  # (1 - 0.9) * 1000 is 100
    return _last(lambda found: _cdf(found, rows, wrong + found + 1, drawn) <= guarantee.delta, -1, drawn)


def ever_differing(differs: Iterable[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Count the drawn rows that differ under each policy or any before it: (policies,) int64.

    Args:
        differs: for each policy of a path, which drawn rows differ, (drawn,) bool.
    """
    ever, counts = np.zeros(1, bool), []
    for differing in differs:
        ever = ever | differing
        counts.append(int(ever.sum()))
    return np.array(counts, np.int64)


def finite_sequence(found: NDArray[np.integer], drawn: int, rows: int, guarantee: Guarantee) -> int:
    """Return the index of the last policy before the first with more than `allowed_found`; -1: the first one has.

    With probability 1 - delta no policy up to it gives more than max_disagreement * rows wrong answers, if found is
    `ever_differing`. Its sets of differing rows are nested: one that passes has too many undrawn rows only if at most
    `allowed_found` are drawn of the first floor(max_disagreement * rows) + allowed_found + 1 rows in the order in which
    they join, and that is the event that `allowed_found` bounds. With each policy's own counts this can fail: a claim
    about undrawn rows is no fixed hypothesis, which Learn-then-Test needs. Where most rows are drawn, a path of
    policies that are much alike then breaks the promise more often.

    Args:
        found: (policies,) drawn rows that differ, see `ever_differing`; the path was ordered without looking at them.
        drawn: rows drawn without replacement.
        rows: all rows.
        guarantee: max_disagreement is the share of wrong answers among all rows, delta the chance over the draw.
    """
    return last_passed(found <= allowed_found(drawn, rows, guarantee))


def rows_to_draw(rows: int, guarantee: Guarantee, expected: float) -> int:
    """Return about the fewest rows to draw so that a policy passes `allowed_found` with probability 0.9.

    By bisection, as if that probability only grew with the rows; in truth it dips to 0.88 at times, for counts are
    whole. There always is an answer: if all rows are drawn, none is left to be wrong.

    Args:
        rows: all rows.
        guarantee: the statement to be certified.
        expected: share of all rows that differ under the policy, inside [0, 1].
    """
    if not 0 <= expected <= 1:
        raise ValueError(f"expected must be inside [0, 1] (got {expected})")
    differing = round(expected * rows)
    return 1 + _last(lambda n: _cdf(allowed_found(n, rows, guarantee), rows, differing, n) < 0.9, -1, rows - 1)


def _last(holds: Callable[[int], bool], least: int, most: int) -> int:
    """Return the last number up to `most` for which a statement holds that holds for `least`, by bisection."""
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if holds(middle) else (least, middle - 1)
    return least


def _cdf(found: int, rows: int, differing: int, drawn: int) -> float:
    """Return P(Hyp(rows, differing, drawn) <= found) to 12 digits: from ratios of neighbours, so that none cancel."""
    least, most = max(0, drawn + differing - rows), min(drawn, differing)
    if not least <= found < most:
        return float(found >= least)  # 0 also for more differing than rows
    count = np.arange(least, most, dtype=np.float64)
    ratio = (differing - count) * (drawn - count) / ((count + 1) * (rows - differing - drawn + count + 1))
    mode = int((ratio >= 1).sum())  # ratios fall, so that the products on both sides of the mode do
    weight = np.concatenate([np.cumprod(1 / ratio[:mode][::-1])[::-1], [1.0], np.cumprod(ratio[mode:])])
    return float(weight[: found - least + 1].sum() / weight.sum())
