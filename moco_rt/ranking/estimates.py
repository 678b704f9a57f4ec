"""Estimates of a candidate's final score, read off what the model has computed of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt._C import OffRamp as CompiledOffRamp
from moco_rt.ranking.elimination import ranks

#: The site before anything is computed: an estimate there reads retrieved scores alone.
RETRIEVED = "retrieved"
#: The first candidates weigh so much more than the others, which falls by a factor e with so many ranks.
_WEIGHT_OF_FIRST, _RANKS = 10.0, 5
#: Ridge penalty, as a share of the candidates, on features of variance 1.
_PENALTY = 1e-3


@dataclass(frozen=True, eq=False)
class ScoreEstimate:
    """A linear estimate of the score that the model will give a candidate, up to a constant of its query.

    Attributes:
        site: where it stands; `retrieved`: before the model begins.
        weight: (size,) float32, over the feature `cls+mean` of the site, and behind it `Candidates.features`, where
            they are known.
    """

    site: str
    weight: NDArray[np.float32]

    def __post_init__(self) -> None:
        weight = np.asarray(self.weight, np.float32)
        if weight.ndim != 1 or weight.size == 0 or not np.isfinite(weight).all():
            raise ValueError(f"ScoreEstimate: weight must be a finite vector (got shape {weight.shape})")
        object.__setattr__(self, "weight", weight)

    def compiled(self) -> CompiledOffRamp:
        """Return it as the extension computes it: with the same bits for a candidate in any batch."""
        layer = torch.from_numpy(self.weight)[None], torch.zeros(1, dtype=torch.float32, device="cpu")
        return CompiledOffRamp([layer], score="max_prob", temperature=1.0)


def fit_estimate(site: str, x: Sequence[NDArray[np.float32]], scores: NDArray[np.float32]) -> ScoreEstimate:
    """Fit an estimate by weighted ridge regression within queries.

    Only differences between candidates of one query matter, so the query's means are taken off; and those between its
    first ones most, so these weigh more.

    Args:
        site: where it will stand.
        x: of each of Q queries the features of its candidates, (n, size) float32.
        scores: (Q, n) of the model as it was given; minus infinity: there is no such candidate.
    """
    there = np.isfinite(scores)
    weight = (1 + _WEIGHT_OF_FIRST * np.exp(-ranks(scores) / _RANKS)) * there
    count = there.sum(axis=1, keepdims=True)
    known = np.where(there, scores, 0).astype(np.float64)
    target = known - known.sum(axis=1, keepdims=True) / count
    size = x[0].shape[1]
    products, moment, variance = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for features, present, of_query, y in zip(x, there, weight, target, strict=True):  # one query's fit into the cache
        own = features.astype(np.float64)
        own -= own.mean(axis=0)
        variance += (own**2).sum(axis=0)
        weighted = own * of_query[present, None]
        products += weighted.T @ own
        moment += weighted.T @ y[present]
    scale = np.sqrt(variance / there.sum())
    # What never differs between candidates of a query, such as the first token's embedding, says nothing.
    alive = scale > 1e-6 * max(1.0, float(scale.max()))
    scaled = products[np.ix_(alive, alive)] / np.outer(scale[alive], scale[alive])
    penalty = _PENALTY * weight.sum() * np.eye(int(alive.sum()))
    fitted = np.zeros(size)
    fitted[alive] = np.linalg.solve(scaled + penalty, moment[alive] / scale[alive]) / scale[alive]
    return ScoreEstimate(site, fitted.astype(np.float32))
