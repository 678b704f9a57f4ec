"""One ordered path of policies, from "nobody leaves" to the fastest: what a certificate is then looked for along.

Rows with scores at every site, the full model's labels and the time each way out costs are all it knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from moco_rt.answers import Answers
from moco_rt.costs import Costs

#: Steps in which the threshold of one class at one site goes from "never" to "always": every step adds as much to the
#: share of rows and the share of expected errors together, so that they are fine where errors are.
_LEVELS = 80


def find_path(answers: Answers, seconds: NDArray[np.float64], num_classes: int) -> list[NDArray[np.float32]]:
    """Thresholds (E, C) of ever faster policies: greedily, the step with most time saved per disagreement added next.

    What a step adds is estimated from a logistic curve of wrong answers over the score, one for each site and class:
    counts of the few errors among the surest rows would be noise. Rows that leave earlier than before trade one exit's
    chance of an error for another's.

    Args:
        answers: of the rows that order the path; the certificate must come from others.
        seconds: (n, E + 1), what each row costs that leaves at a site, or runs to the end.
        num_classes: C.
    """
    sites, n = answers.score.shape
    risk = np.zeros((sites + 1, n))
    thresholds = np.full((sites, num_classes), np.inf, np.float32)
    steps: dict[tuple[int, int], list[tuple[np.float32, NDArray[np.int64]]]] = {}
    for site in range(sites):
        for c in range(num_classes):
            rows = np.flatnonzero((answers.predicted[site] == c) & np.isfinite(answers.score[site]))
            if len(rows) == 0:
                continue
            score = answers.score[site, rows]
            risk[site, rows] = wrong_curve(score, answers.label[rows] != c)
            steps[site, c] = _levels(rows, score, risk[site, rows])
    exits = np.full(n, sites)
    path = [thresholds.copy()]
    while steps:
        best, best_worth = None, -np.inf
        for key, levels in steps.items():
            rows = levels[0][1]
            rows = rows[exits[rows] > key[0]]
            saved = float((seconds[rows, exits[rows]] - seconds[rows, key[0]]).sum())
            added = float((risk[key[0], rows] - risk[exits[rows], rows]).sum())
            worth = saved / max(added, 1e-9)
            if worth > best_worth:
                best, best_worth = key, worth
        assert best is not None
        threshold, rows = steps[best].pop(0)
        if not steps[best]:
            del steps[best]
        thresholds[best] = threshold
        exits[rows] = np.minimum(exits[rows], best[0])
        path.append(thresholds.copy())
    return path


def search(
    answers: Answers,
    sites: Sequence[str],
    costs: Costs,
    lengths: NDArray[np.int64],
    alpha: float,
    num_classes: int,
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The off-ramps that pay, at most one at each site, and the path of policies over them.

    From one on, a site at a time is given an off-ramp, another one, or none, whichever takes most from the time at a
    disagreement of alpha on the path's own rows: every off-ramp costs every row that reaches it.

    Args:
        answers: of the rows that order the path, by E off-ramps.
        sites: where each of these stands.
        costs: of leaving by them.
        lengths: (n,) of the rows.
        alpha: share of labels that may differ.
        num_classes: C.

    Returns:
        Places of the off-ramps, at least one, and thresholds (chosen, C) of ever faster policies.
    """
    tried = [
        _time_along(answers, costs, lengths, alpha, neighbour, num_classes) for neighbour in _neighbours([], sites)
    ]
    best = min(tried, key=lambda found: found.time)
    while True:
        tried = [
            _time_along(answers, costs, lengths, alpha, neighbour, num_classes)
            for neighbour in _neighbours(best.chosen, sites)
        ]
        fastest = min(tried, key=lambda found: found.time, default=best)
        if fastest.time >= best.time:
            return best.chosen, best.path
        best = fastest


@dataclass(frozen=True)
class _Found:
    time: float
    chosen: list[int]
    path: list[NDArray[np.float32]]


def _neighbours(chosen: list[int], sites: Sequence[str]) -> list[list[int]]:
    """Choices of some off-ramps, at most one at each site, that differ at one site."""
    apart = {site: [place for place in chosen if sites[place] != site] for site in sites}
    choices = [*apart.values(), *(sorted([*apart[site], place]) for place, site in enumerate(sites))]
    return [choice for choice in choices if choice and choice != chosen]


def _time_along(
    answers: Answers, costs: Costs, lengths: NDArray[np.int64], alpha: float, chosen: list[int], num_classes: int
) -> _Found:
    """The path over some off-ramps, and the time of a row where it reaches alpha."""
    some = answers.at(chosen)
    seconds = costs.of(lengths, chosen)
    path = find_path(some, seconds, num_classes)
    time = math.inf
    for thresholds in path:
        exits = some.leaves(thresholds)
        if some.wrong(exits).mean() > alpha:
            break
        time = float(seconds[np.arange(len(exits)), exits].mean())
    return _Found(time, chosen, path)


def wrong_curve(score: NDArray[np.float32], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """P(wrong | score), by logistic regression on the score's logit (Platt 1999), with a little of a prior.

    Args:
        score: (n,) probabilities.
        wrong: (n,).

    Returns:
        (n,), the smaller the surer.
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
    slope[1] = min(slope[1], 0.0)  # whatever a handful of errors says: who is surer is not wrong more often
    curve: NDArray[np.float64] = expit(x @ slope)
    return curve


def _levels(
    rows: NDArray[np.int64], score: NDArray[np.float32], risk: NDArray[np.float64]
) -> list[tuple[np.float32, NDArray[np.int64]]]:
    """Thresholds from high to low, each with the rows that it adds to those above it."""
    order = np.argsort(-score, kind="stable")
    share = (np.arange(1, len(rows) + 1) / len(rows) + np.cumsum(risk[order]) / risk.sum()) / 2
    ends = np.unique(np.searchsorted(share, np.arange(1, _LEVELS) / _LEVELS) + 1)
    levels, start = [], 0
    for end in [*ends[ends < len(rows)].tolist(), len(rows)]:
        last = end == len(rows)
        between = np.float32(-np.inf) if last else (score[order[end - 1]] + score[order[end]]) / np.float32(2)
        levels.append((between, rows[order[start:end]]))
        start = end
    return levels
