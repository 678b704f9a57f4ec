"""Exact binomial bounds from a finite sample: thresholds, error rates, and how far a path of policies holds.

All bounds are one-sided and hold whatever the distribution of the scores. None of them needs labels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv  # scipy.stats wraps these and takes a second to import

from moco_rt.statistics.guarantee import Guarantee


def rows_needed(guarantee: Guarantee) -> int:
    """Return the fewest rows that can show a guarantee: the least n with (1 - max_disagreement)^n <= delta."""
    return math.ceil(math.log(guarantee.delta) / math.log1p(-guarantee.max_disagreement))


def allowed_errors(rows: int, guarantee: Guarantee) -> int:
    """Return the largest k such that k errors in `rows` still prove the guarantee; -1 if even 0 errors do not.

    This is the largest k with P(Binomial(rows, max_disagreement) <= k) <= delta.
    """
    if rows < rows_needed(guarantee):
        return -1
    errors = int(rows * guarantee.max_disagreement)
    while bdtr(errors, rows, guarantee.max_disagreement) > guarantee.delta:
        errors -= 1
    while bdtr(errors + 1, rows, guarantee.max_disagreement) <= guarantee.delta:
        errors += 1
    return errors


def least_disagreement(rows: int, delta: float) -> float:
    """Return the smallest max_disagreement that `rows` rows without any error can show: 1 - delta^(1 / rows)."""
    return float((1 - delta ** (1 / rows)) * (1 + 1e-9))  # the factor keeps rounding from asking for one row more


def neyman_pearson_threshold(scores: NDArray[np.floating], guarantee: Guarantee) -> float:
    """Return the lowest threshold that at most a share max_disagreement of such scores exceeds.

    It is the k-th smallest score, k = rows - `allowed_errors`: the order statistic of Tong, Feng and Li, "Neyman-
    Pearson classification algorithms and NP receiver operating characteristics", Science Advances 2018. Exact for
    continuous scores, conservative with ties.

    Args:
        scores: (rows,) scores of rows on which the rule must not fire.
        guarantee: the share of such rows that may exceed the threshold, and the chance that more do.

    Raises:
        ValueError: there are fewer than `rows_needed` rows.
    """
    errors = allowed_errors(len(scores), guarantee)
    if errors < 0:
        raise ValueError(
            f"scores must be at least {rows_needed(guarantee)} to promise max_error={guarantee.max_disagreement} "
            f"with confidence {guarantee.confidence} (got {len(scores)})"
        )
    return float(np.sort(scores)[len(scores) - errors - 1])


def upper_bound(errors: int, rows: int, confidence: float) -> float:
    """Return Clopper and Pearson's upper bound on the probability of an error."""
    return float(betaincinv(errors + 1, rows - errors, confidence)) if errors < rows else 1.0


def lower_bound(hits: int, rows: int, confidence: float) -> float:
    """Return Clopper and Pearson's lower bound on the probability of a hit."""
    return 1 - upper_bound(rows - hits, rows, confidence)


def wrong_exit_bound(errors: int, other_rows: int, hits: int, class_rows: int, confidence: float) -> float:
    """Return an upper bound on P(label is another class | rule fires), for a `neyman_pearson_threshold`.

    With a = P(fires | other), q = P(fires | class) and p = P(other), the probability is a p / (a p + q (1 - p)): it
    grows with a and p and falls with q, and each of the three is bounded at a third of the error probability. The
    threshold was chosen on the other rows alone, by a rank fixed beforehand, so that all three bounds are exact.

    Args:
        errors: the threshold's rank: rows of other classes that it leaves above it (fewer where scores tie).
        other_rows: rows of other classes.
        hits: rows of the class on which the rule fires, out of class_rows.
        class_rows: rows of the class.
        confidence: probability, over the sample, that the bound holds.
    """
    each = 1 - (1 - confidence) / 3
    false_alarm = upper_bound(errors, other_rows, each)
    coverage = lower_bound(hits, class_rows, each)
    other = upper_bound(other_rows, other_rows + class_rows, each)
    wrong = false_alarm * other
    right = coverage * (1 - other)
    return wrong / (wrong + right)


def fixed_sequence(disagreements: NDArray[np.integer], rows: int, guarantee: Guarantee) -> int:
    """Return the index of the last policy along a path that fulfils a guarantee; -1: not even the first does.

    Learn-then-Test with fixed-sequence testing (Angelopoulos et al., "Learn then Test", arXiv:2110.01052): policies are
    tested one after the other, each with its exact binomial p-value P(Binomial(rows, max_disagreement) <=
    disagreements), until the first that fails. However many there are, the chance that one of those before it breaks
    the guarantee is at most delta, if the path was ordered on other rows.

    Args:
        disagreements: (policies,) rows of the sample whose label is not the full model's, by policy.
        rows: size of the sample.
        guarantee: the statement to be shown.
    """
    p_values = bdtr(np.asarray(disagreements, dtype=float), rows, guarantee.max_disagreement)
    return last_passed(p_values <= guarantee.delta)


def last_passed(passed: NDArray[np.bool_]) -> int:
    """Return the index of the last policy before the first that fails, (policies,) bool; -1: the first one fails."""
    return len(passed) - 1 if passed.all() else int(passed.argmin()) - 1
