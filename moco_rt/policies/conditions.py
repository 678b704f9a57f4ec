"""Conditions that decide about an exit, from a feature of a row, and rules that were found for a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

FEATURES = ("cls", "mean", "flat", "cls+mean")

#: What an off-ramp's answer is judged by, the higher the surer; of the entropy, in nats, the negative is taken.
SCORES = ("max_prob", "entropy")

#: Any callable on features (rows, size) that returns a bool mask (rows,).
Condition = Callable[[Any], Any]

#: (weight, bias) of one layer, or of two.
Layers = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

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
        feature: the feature that the condition reads: `cls`, `mean` or `flat`.
        site: the site that it was fitted at; None: not known.

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

    @property
    def size(self) -> int:
        """Length of the input feature."""
        return self.weight.size

    def score(self, x: Array) -> Array:
        """Return `x @ weight + bias`. x: (rows, size), array or tensor; returns (rows,) of the same kind."""
        if x.ndim != 2 or x.shape[1] != self.weight.size:
            raise ValueError(f"LinearCondition: x must have shape (rows, {self.weight.size}) (got {tuple(x.shape)})")
        if isinstance(x, torch.Tensor):
            return x.float() @ torch.from_numpy(self.weight).to(x.device) + self.bias
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are answers here: they never fire
            score: NDArray[Any] = np.asarray(x, dtype=np.float32) @ self.weight + np.float32(self.bias)
        return score

    def __call__(self, x: Array) -> Array:
        """Return where the condition fires. x: (rows, size), array or tensor; returns (rows,) bool of the same."""
        score = self.score(x)
        if isinstance(score, torch.Tensor):
            return (score > self.threshold) & torch.isfinite(score)
        fires: NDArray[np.bool_] = (score > self.threshold) & np.isfinite(score)
        return fires


@dataclass(frozen=True, eq=False)
class LinearRule:
    """A sufficient rule: where `condition` fires, the full model's label is `metadata["class"]`.

    Attributes:
        condition: the condition that fires.
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


@dataclass(frozen=True, eq=False)
class OffRamp:
    """A small classifier at a site: a row leaves with the class it predicts where it is sure enough of it.

    It scores `softmax(logits / temperature)`: the highest probability, or the negative entropy. A row that leaves has
    `log_softmax(logits / temperature)` for its logits. With these scores it is the exit of The Right Tool
    (temperature-calibrated `max_prob`; Schwartz et al., ACL 2020), of DeeBERT (`entropy`; Xin et al., ACL 2020), and
    with `patience` that of PABEE (Zhou et al., NeurIPS 2020).

    Attributes:
        layers: (weight, bias) of one layer, (C, size) and (C,), or of two with a ReLU between; float32. size is D, or
            2 * D for `cls+mean`.
        thresholds: (C,) float32, by predicted class: what the score must exceed; infinite: that class never leaves.
        bounds: (C,) float32, by predicted class: upper bound on the share of wrong labels among the rows that leave.
        score: `max_prob` or `entropy`.
        temperature: logits are divided by it; above 0.
        feature: `cls`, `mean`, or `cls+mean`: the pooled token at the site beside the mean over all tokens before the
            site's layer, so that a peek decides it before the layer is run.
        patience: number of off-ramps in a row, this one included, that must predict the class.
        site: the site that it was fitted at; None: not known.

    Raises:
        ValueError: shapes do not fit together, a number is not finite, or score or feature is unknown.
    """

    layers: Layers
    thresholds: NDArray[np.float32]
    bounds: NDArray[np.float32]
    score: str = "max_prob"
    temperature: float = 1.0
    feature: str = "cls+mean"
    patience: int = 1
    site: str | None = None

    def __post_init__(self) -> None:
        check_feature(self.feature)
        if self.feature == "flat":
            raise ValueError("OffRamp: feature must be cls, mean or cls+mean (got flat)")
        if self.score not in SCORES:
            raise ValueError(f"OffRamp: score must be one of {', '.join(SCORES)} (got {self.score!r})")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"OffRamp: temperature must be above 0 (got {self.temperature})")
        if self.patience < 1:
            raise ValueError(f"OffRamp: patience must be at least 1 (got {self.patience})")
        layers = tuple((np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in self.layers)
        if len(layers) not in (1, 2):
            raise ValueError(f"OffRamp: layers must be one or two (got {len(layers)})")
        size = layers[0][0].shape[-1]
        for weight, bias in layers:
            if weight.ndim != 2 or weight.shape[1] != size or bias.shape != weight.shape[:1]:
                raise ValueError(
                    f"OffRamp: weight and bias must have shape (outputs, {size}) and (outputs,) "
                    f"(got {weight.shape} and {bias.shape})"
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("OffRamp: weight and bias must be finite")
            size = weight.shape[0]
        thresholds, bounds = np.asarray(self.thresholds, np.float32), np.asarray(self.bounds, np.float32)
        if size < 2 or thresholds.shape != (size,) or bounds.shape != (size,):
            raise ValueError(
                f"OffRamp: thresholds and bounds must have one value for each of at least two classes "
                f"(got {thresholds.shape} and {bounds.shape}, {size} classes)"
            )
        if np.isnan(thresholds).any() or not ((bounds > 0) & (bounds < 1)).all():
            raise ValueError("OffRamp: thresholds must be numbers, bounds inside (0, 1)")
        for name, value in (("layers", layers), ("thresholds", thresholds), ("bounds", bounds)):
            object.__setattr__(self, name, value)

    @classmethod
    def closed(cls, layers: Layers, *, feature: str, site: str, temperature: float = 1.0) -> OffRamp:
        """Build an off-ramp that scores by `max_prob`, and by which no row leaves: its thresholds are infinite."""
        classes = len(layers[-1][1])
        never, bounds = np.full(classes, np.inf), np.full(classes, 0.01)
        return cls(layers, never, bounds, temperature=temperature, feature=feature, site=site)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.thresholds)

    @property
    def size(self) -> int:
        """Length of the input feature."""
        size: int = self.layers[0][0].shape[1]
        return size


def exit_logits(predicted_class: int, bound: float, num_classes: int) -> list[float]:
    """Return log-probabilities to leave with by a rule: of 1 - bound for its class, the others share the rest."""
    logits = [math.log(bound / (num_classes - 1))] * num_classes
    logits[predicted_class] = math.log(1 - bound)
    return logits
