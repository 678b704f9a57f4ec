"""Thresholds with a certificate, from a finite sample and without labels.

All bounds are exact (binomial), one-sided, and hold whatever the distribution of the scores.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv  # scipy.stats wraps these and takes a second to import


def rows_needed(max_error: float, confidence: float) -> int:
    """The fewest rows from which an error of max_error can be promised: (1 - max_error)^n <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_error))


def allowed_errors(rows: int, max_error: float, confidence: float) -> int:
    """The most errors among rows that still show, with confidence, an error of at most max_error; -1: none do.

    The largest k with P(Binomial(rows, max_error) <= k) <= 1 - confidence.
    """
    if rows < rows_needed(max_error, confidence):
        return -1
    errors = int(rows * max_error)
    while bdtr(errors, rows, max_error) > 1 - confidence:
        errors -= 1
    while bdtr(errors + 1, rows, max_error) <= 1 - confidence:
        errors += 1
    return errors


def neyman_pearson_threshold(scores: NDArray[np.floating], max_error: float, confidence: float) -> float:
    """The lowest threshold that a share of at most max_error of such scores exceeds, with confidence.

    The k-th smallest score, k = rows - `allowed_errors`: the order statistic of Tong, Feng and Li, "Neyman-Pearson
    classification algorithms and NP receiver operating characteristics", Science Advances 2018. Exact for
    continuous scores, conservative with ties.

    Args:
        scores: (rows,) of rows on which the rule must not fire.
        max_error: highest share of them that may exceed the threshold, inside (0, 1).
        confidence: probability, over the sample, that this holds, inside (0, 1).

    Raises:
        ValueError: rows are too few, see `rows_needed`.
    """
    errors = allowed_errors(len(scores), max_error, confidence)
    if errors < 0:
        raise ValueError(
            f"scores must be at least {rows_needed(max_error, confidence)} to promise max_error={max_error} "
            f"with confidence {confidence} (got {len(scores)})"
        )
    return float(np.sort(scores)[len(scores) - errors - 1])


def upper_bound(errors: int, rows: int, confidence: float) -> float:
    """Clopper-Pearson: the probability of an error is at most this, with confidence."""
    return float(betaincinv(errors + 1, rows - errors, confidence)) if errors < rows else 1.0


def lower_bound(hits: int, rows: int, confidence: float) -> float:
    """Clopper-Pearson: the probability of a hit is at least this, with confidence."""
    return 1 - upper_bound(rows - hits, rows, confidence)


def wrong_exit_bound(errors: int, other_rows: int, hits: int, class_rows: int, confidence: float) -> float:
    """Upper bound on P(label is another class | rule fires), for a threshold from `neyman_pearson_threshold`.

    With a = P(fires | other), q = P(fires | class) and p = P(other), the probability is a p / (a p + q (1 - p)): it
    grows with a and p and falls with q, and each of the three is bounded at a third of the error probability. The
    threshold was chosen on the other rows alone, by a rank fixed beforehand, so that all three bounds are exact.

    Args:
        errors: the rank: rows of other classes that it leaves above the threshold (fewer where scores tie).
        other_rows: rows of other classes.
        hits: rows of the class on which the rule fires, of class_rows.
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


def fixed_sequence(disagreements: NDArray[np.integer], rows: int, max_error: float, confidence: float) -> int:
    """The place of the last policy along a path with an error of at most max_error, with confidence; -1: none.

    Learn-then-Test with fixed-sequence testing (Angelopoulos et al., "Learn then Test", arXiv:2110.01052): policies are
    tested one after the other, each with its exact binomial p-value P(Binomial(rows, max_error) <= disagreements),
    until the first that fails. However many there are, P(the returned policy's error <= max_error) >= confidence, if
    the path was ordered on other rows.

    Args:
        disagreements: (policies,) rows of the sample with another label than the full model's, by policy.
        rows: of the sample.
        max_error: inside (0, 1).
        confidence: inside (0, 1).
    """
    passed = bdtr(np.asarray(disagreements, dtype=float), rows, max_error) <= 1 - confidence
    return len(passed) - 1 if passed.all() else int(passed.argmin()) - 1
