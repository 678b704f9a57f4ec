"""Scores to probabilities: temperature scaling, and how likely a row with a given score is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax


def fit_temperature(logits: NDArray[np.floating], probs: NDArray[np.floating]) -> float:
    """Fit the temperature at which softmax(logits / temperature) gives target probabilities the highest likelihood.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        logits: (n, C); rows that are not finite (a function that is certain of a class) are left out.
        probs: (n, C) target probabilities; one-hot for labels.

    Returns:
        The temperature, between exp(-3) and exp(3); 1 where no row is finite.
    """
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        return 1.0
    x, p = logits[finite].astype(np.float64), probs[finite]

    def loss(log_temperature: float) -> float:
        return float(-(p * log_softmax(x / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


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
