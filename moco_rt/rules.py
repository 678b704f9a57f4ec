"""What an exit is decided by: conditions on a feature of a row, and the rules found for a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

FEATURES = ("cls", "mean", "flat")

#: Any callable on features (rows, size) that returns a bool mask (rows,).
Condition = Callable[[Any], Any]

Array = TypeVar("Array", NDArray[Any], torch.Tensor)


def check_feature(feature: str) -> None:
    """Raise ValueError unless feature is one a rule can read."""
    if feature not in FEATURES:
        raise ValueError(f"feature must be one of {', '.join(FEATURES)} (got {feature!r})")


@dataclass(frozen=True, eq=False)
class LinearCondition:
    """Fires where `x @ weight + bias > threshold`; a score that is not finite never fires.

    Attributes:
        weight: (size,) float32; size is D, or S * D for the feature `flat`.
        bias: added to the product.
        threshold: what the score must exceed.
        bound: upper bound on P(label of the full model != the rule's class | the condition fires).
        feature: what of a row's tokens the condition reads: `cls`, `mean` or `flat`.
        site: where it was fitted, None where that is not known.

    Raises:
        ValueError: weight is not a finite vector, or bound is not inside (0, 1).
    """

    weight: NDArray[np.float32]
    bias: float
    threshold: float
    bound: float
    feature: str = "cls"
    site: str | None = None

    def __post_init__(self) -> None:
        check_feature(self.feature)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below, as infinite
            weight = np.array(self.weight, dtype=np.float32)
        if weight.ndim != 1 or weight.size == 0 or not np.isfinite(weight).all():
            unfit = int((~np.isfinite(weight)).sum())
            raise ValueError(
                f"LinearCondition: weight must be a finite vector (got shape {weight.shape}, {unfit} not finite)"
            )
        if not (math.isfinite(self.bias) and math.isfinite(self.threshold)):
            raise ValueError(
                f"LinearCondition: bias and threshold must be finite (got {self.bias} and {self.threshold})"
            )
        if not 0 < self.bound < 1:
            raise ValueError(f"LinearCondition: bound must be inside (0, 1) (got {self.bound})")
        object.__setattr__(self, "weight", weight)

    def score(self, x: Array) -> Array:
        """`x @ weight + bias`. x: (rows, size), array or tensor; returns (rows,) of the same kind."""
        if x.ndim != 2 or x.shape[1] != self.weight.size:
            raise ValueError(f"LinearCondition: x must have shape (rows, {self.weight.size}) (got {tuple(x.shape)})")
        if isinstance(x, torch.Tensor):
            return x.float() @ torch.from_numpy(self.weight).to(x.device) + self.bias
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are answers here: they never fire
            score: NDArray[Any] = np.asarray(x, dtype=np.float32) @ self.weight + np.float32(self.bias)
        return score

    def __call__(self, x: Array) -> Array:
        """Where the condition fires. x: (rows, size), array or tensor; returns (rows,) bool of the same kind."""
        score = self.score(x)
        if isinstance(score, torch.Tensor):
            return (score > self.threshold) & torch.isfinite(score)
        fires: NDArray[np.bool_] = (score > self.threshold) & np.isfinite(score)
        return fires


@dataclass(frozen=True, eq=False)
class LinearRule:
    """A sufficient rule: where `condition` fires, the full model's label is `metadata["class"]`.

    Attributes:
        condition: what it looks at.
        metadata: `class`, `target`, `site`, `feature`; `max_error` and `confidence` as asked for; `n` and
            `errors` (held-out rows of other classes, and on how many of them it fires), `fired`, `rows` and
            `coverage` (fired / rows, held-out), `bound` (see `LinearCondition`).
    """

    condition: LinearCondition
    metadata: dict[str, Any]

    def __repr__(self) -> str:
        about = self.metadata
        return (
            f"LinearRule(class={about['class']}, site={about['site']}, feature={about['feature']}, "
            f"coverage={about['coverage']:.1%}, bound={about['bound']:.3%})"
        )


def exit_logits(predicted_class: int, bound: float, num_classes: int) -> list[float]:
    """Logits of a row that leaves: probability 1 - bound for its class, the rest shared by the others."""
    logits = [math.log(bound / (num_classes - 1))] * num_classes
    logits[predicted_class] = math.log(1 - bound)
    return logits
