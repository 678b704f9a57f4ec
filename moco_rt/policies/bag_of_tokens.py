"""BagOfTokens: an off-ramp before the embeddings, which scores a row by its token ids alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moco_rt.policies.conditions import OffRamp

#: The site where nothing is embedded yet, the only one at which a bag of tokens can stand.
TOKENS = "tokens"


@dataclass(frozen=True, eq=False)
class BagOfTokens:
    """A bag of hashed tokens and pairs of neighbours: a row leaves with the class it predicts where it is sure enough.

    A row of n tokens has 2 n - 1 n-grams: its tokens, and its pairs of neighbours. Their hashes choose rows of a table
    (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009; linear classifiers of n-grams
    as in Joulin et al., "Bag of Tricks for Efficient Text Classification", EACL 2017):

        logits = bias + sum over n-grams of table[hash(n-gram) mod buckets] / sqrt(2 n - 1)

    The score is the highest probability of `softmax(logits / temperature)`, and a row that leaves has
    `log_softmax(logits / temperature)` for its logits. The hash is written down in `csrc/exits/bag_of_tokens.h`.

    Attributes:
        table: (buckets, C) float32; buckets is a power of two.
        bias: (C,) float32.
        thresholds: (C,) float32, by predicted class: what the score must exceed; infinite: that class never leaves.
        bounds: (C,) float32, by predicted class: upper bound on the share of wrong labels among the rows that leave.
        temperature: logits are divided by it; above 0.
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
    site: ClassVar[str] = TOKENS
    feature: ClassVar[str] = "ids"
    patience: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("table", "bias", "thresholds", "bounds"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        shape = self.table.shape
        if len(shape) != 2 or shape[0] < 1 or shape[0] & (shape[0] - 1) or shape[1] < 2:
            raise ValueError(
                f"BagOfTokens: table must have shape (buckets, classes), a power of two and at least 2 (got {shape})"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"BagOfTokens: temperature must be above 0 (got {self.temperature})")
        for name in ("bias", "thresholds", "bounds"):
            if getattr(self, name).shape != shape[1:]:
                raise ValueError(
                    f"BagOfTokens: {name} must have one value for each of {shape[1]} classes "
                    f"(got {getattr(self, name).shape})"
                )
        if not (np.isfinite(self.table).all() and np.isfinite(self.bias).all()):
            raise ValueError("BagOfTokens: table and bias must be finite")
        if np.isnan(self.thresholds).any() or not ((self.bounds > 0) & (self.bounds < 1)).all():
            raise ValueError("BagOfTokens: thresholds must be numbers, bounds inside (0, 1)")

    @classmethod
    def closed(cls, table: NDArray[np.float32], bias: NDArray[np.float32], temperature: float) -> BagOfTokens:
        """Build a bag of tokens by which no row leaves: its thresholds are infinite."""
        return cls(table, bias, np.full(len(bias), np.inf), np.full(len(bias), 0.01), temperature)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.bias)


#: Whatever lets rows leave with the class that it predicts, which may be any.
AnyOffRamp = OffRamp | BagOfTokens
