"""Scores to probabilities: temperature scaling, and how likely a row with a given score is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize, minimize_scalar
from scipy.special import expit, log_softmax

#: With fewer rows a line would say more of them than of others.
_FEWEST_ROWS = 20
_BINS = 15


def fit_temperature(logits: NDArray[np.floating], probs: NDArray[np.floating]) -> float:
    """Fit the temperature at which softmax(logits / temperature) gives target probabilities the highest likelihood.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        logits: (n, C); rows that are not finite (a function that is certain of a class) are left out.
        probs: (n, C) target probabilities; one-hot for labels. Rows with NaN are left out likewise.

    Returns:
        The temperature, between exp(-3) and exp(3); 1 where no row is finite.
    """
    finite = np.isfinite(logits).all(axis=1) & np.isfinite(probs).all(axis=1)
    if not finite.any():
        return 1.0
    x, p = logits[finite].astype(np.float64), probs[finite]

    def loss(log_temperature: float) -> float:
        return float(-(p * log_softmax(x / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def fit_log_odds(own: NDArray[np.floating], given: NDArray[np.floating]) -> tuple[float, float]:
    """Fit the line by which the log-odds of rows come closest to those that another model gives the same classes.

    As Platt (1999) scales them, but against log-odds instead of labels: most given probabilities are near 1, where rows
    must keep their order among those of the other model. A robust loss, `2 * (sqrt(1 + d^2) - 1)` of differences d,
    for rows that the other model puts into another class lie far off.

    Args:
        own: (n,) log(p / (1 - p)) of a class.
        given: (n,) the same by the other model.

    Returns:
        Slope, at least 0, and shift; 1 and 0 where fewer than 20 rows are finite.
    """
    finite = np.isfinite(own) & np.isfinite(given)
    if finite.sum() < _FEWEST_ROWS:
        return 1.0, 0.0
    x, y = own[finite].astype(np.float64), given[finite].astype(np.float64)
    line = least_squares(
        lambda w: w[0] * x + w[1] - y, [1.0, 0.0], bounds=([0, -np.inf], [np.inf, np.inf]), loss="soft_l1"
    ).x
    return float(line[0]), float(line[1])


def calibration_error(probs: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, over 15 bins of equal width (Guo et al., ICML 2017).

    Args:
        probs: (n,) probabilities of labels.
        right: (n,) whether the labels are the true classes.
    """
    bins = np.minimum((probs * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, right - probs.astype(np.float64), minlength=_BINS)
    return float(np.abs(gaps).sum() / len(probs))


def wrong_curve(score: NDArray[np.float32], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Estimate P(wrong | score) by logistic regression on the logit of the score (Platt 1999), with a weak prior.

    Args:
        score: (n,) probabilities.
        wrong: (n,) bool.

    Returns:
        (n,) probabilities that do not grow with the score.
    """
    probability = np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7)
    z = np.log(probability) - np.log1p(-probability)
    x = np.column_stack([np.ones_like(z), (z - z.mean()) / (z.std() + 1e-9)])
    target = (wrong * len(wrong) + 0.5) / (len(wrong) + 1)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = x @ w
        value = float((np.logaddexp(0, margin) - target * margin).sum() + 5e-4 * w @ w)
        return value, x.T @ (expit(margin) - target) + 1e-3 * w

    start = np.array([np.log(target.mean() / (1 - target.mean())), 0.0])
    slope = minimize(loss, start, jac=True, method="BFGS").x
    slope[1] = min(slope[1], 0.0)  # a handful of errors must not make surer rows look worse
    curve: NDArray[np.float64] = expit(x @ slope)
    return curve
