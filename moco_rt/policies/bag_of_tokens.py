"""BagOfTokens: an off-ramp before the embeddings, which scores a row by its token ids alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moco_rt.policies.conditions import (
    SCORES_OF_A_CLASS,
    OffRamp,
    check_log_odds,
    check_outputs,
    check_score,
)

#: The site where nothing is embedded yet, the only one at which a bag of tokens can stand.
TOKENS = "tokens"


@dataclass(frozen=True, eq=False)
class BagOfTokens:
    """A bag of hashed tokens and pairs of neighbours: a row leaves with its answer where it is sure enough of it.

    A row of n tokens has 2 n - 1 n-grams: its tokens, and its pairs of neighbours. Their hashes choose rows of a table
    (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009; linear classifiers of n-grams
    as in Joulin et al., "Bag of Tricks for Efficient Text Classification", EACL 2017):

        outputs = bias + sum over n-grams of table[hash(n-gram) mod buckets] / sqrt(2 n - 1)

    Scores are those of an `OffRamp` with these outputs, and so is what rows leave with. The hash is written down in
    `csrc/exits/bag_of_tokens.h`.

    Attributes:
        table: (buckets, outputs) float32; buckets is a power of two. There are C outputs, of `deviation` 2 * C.
        bias: (outputs,) float32.
        thresholds: (C,) float32, by predicted class: what the score must exceed; infinite: that class never leaves.
            (1,) of scores that predict no class.
        bounds: the same shape, upper bound on the share of wrong answers among the rows that leave.
        temperature: logits are divided by it; above 0, of `deviation` 1.
        score: see `OffRamp`.
        levels: see `OffRamp`.
        log_odds: (C, 2), see `OffRamp`.
        site: `tokens`.
        feature: `ids`, which it reads.
        patience: 1; it waits for no other off-ramp, and none counts it.

    Raises:
        ValueError: shapes do not fit together, or a number is not finite.
    """

    table: NDArray[np.float32]
    bias: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    bounds: NDArray[np.float32]
    temperature: float = 1.0
    score: str = "max_prob"
    levels: Sequence[float] = ()
    log_odds: NDArray[np.float32] | None = None
    site: ClassVar[str] = TOKENS
    feature: ClassVar[str] = "ids"
    patience: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("table", "bias", "thresholds", "bounds"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        check_score("BagOfTokens", self.score)
        shape, of_a_class = self.table.shape, self.score in SCORES_OF_A_CLASS
        if len(shape) != 2 or shape[0] < 1 or shape[0] & (shape[0] - 1) or shape[1] < 1 + of_a_class:
            raise ValueError(
                f"BagOfTokens: table must have shape (buckets, classes), a power of two and at least 2 (got {shape})"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"BagOfTokens: temperature must be above 0 (got {self.temperature})")
        for name in ("bias", "thresholds", "bounds") if of_a_class else ("bias",):
            if getattr(self, name).shape != shape[1:]:
                raise ValueError(
                    f"BagOfTokens: {name} must have one value for each of {shape[1]} classes "
                    f"(got {getattr(self, name).shape})"
                )
        if not (np.isfinite(self.table).all() and np.isfinite(self.bias).all()):
            raise ValueError("BagOfTokens: table and bias must be finite")
        levels = check_outputs(self, shape[1], self.thresholds, self.bounds)
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "log_odds", check_log_odds(self, shape[1]))
        if np.isnan(self.thresholds).any() or not ((self.bounds > 0) & (self.bounds < 1)).all():
            raise ValueError("BagOfTokens: thresholds must be numbers, bounds inside (0, 1)")

    @classmethod
    def closed(
        cls,
        table: NDArray[np.float32],
        bias: NDArray[np.float32],
        temperature: float,
        score: str = "max_prob",
        levels: Sequence[float] = (),
    ) -> BagOfTokens:
        """Build a bag of tokens by which no row leaves: its thresholds are infinite."""
        groups = len(bias) if score in SCORES_OF_A_CLASS else 1
        return cls(table, bias, np.full(groups, np.inf), np.full(groups, 0.01), temperature, score, levels)

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or numbers, C."""
        return len(self.bias) // (2 if self.score == "deviation" else 1)


#: Whatever lets rows leave with an answer of its own, which may be any.
AnyOffRamp = OffRamp | BagOfTokens
