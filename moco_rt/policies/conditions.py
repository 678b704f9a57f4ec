"""Conditions that decide about an exit, from a feature of a row, and rules that were found for a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

FEATURES = ("cls", "mean", "flat", "cls+mean")

#: What an off-ramp's answer is judged by, the higher the surer; of the entropy, in nats, the negative is taken. With
#: the first two it predicts one class, and has a threshold for each; with the others it has one threshold. The next two
#: compare each class with a level.
SCORES = ("max_prob", "entropy", "sides", "odds", "deviation")
SCORES_OF_A_CLASS = SCORES[:2]
_SCORES_OF_LEVELS = SCORES[2:4]

#: Any callable on features (rows, size) that returns a bool mask (rows,).
Condition = Callable[[Any], Any]

#: (weight, bias) of one layer, or of two.
Layers = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

Array = TypeVar("Array", NDArray[Any], torch.Tensor)


def check_score(kind: str, score: str) -> None:
    """Raise ValueError unless score is one that off-ramps have; kind: the class that the error names."""
    if score not in SCORES:
        raise ValueError(f"{kind}: score must be one of {', '.join(SCORES)} (got {score!r})")


def check_outputs(
    ramp: Any, outputs: int, thresholds: NDArray[np.float32], bounds: NDArray[np.float32]
) -> tuple[float, ...]:
    """Return the levels of an off-ramp or a bag of tokens, and refuse what does not fit a score other than of a class.

    Args:
        ramp: with `score`, `temperature` and `levels`.
        outputs: how many it has.
        thresholds: (1,), or of a class any.
        bounds: likewise.

    Raises:
        ValueError: there is not one threshold, not one level for each label of sides, or what deviation cannot have.
    """
    kind, score, levels = type(ramp).__name__, ramp.score, tuple(map(float, ramp.levels))
    if len(levels) != (outputs if score in _SCORES_OF_LEVELS else 0) or any(map(math.isnan, levels)):
        raise ValueError(f"{kind}: levels must be one number for each label of sides or odds (got {levels})")
    if score != "odds" and not all(map(math.isfinite, levels)):
        raise ValueError(f"{kind}: levels must be finite of {score} (got {levels})")
    if score in SCORES_OF_A_CLASS:
        return levels
    if thresholds.shape != (1,) or bounds.shape != (1,):
        got = f"{thresholds.shape} and {bounds.shape}"
        raise ValueError(f"{kind}: thresholds and bounds must have one value of {score} (got {got})")
    if score == "deviation" and (outputs % 2 or ramp.temperature != 1):
        got = f"{outputs} and {ramp.temperature}"
        raise ValueError(f"{kind}: outputs must be even, and temperature 1, of deviation (got {got})")
    return levels


def check_log_odds(ramp: Any, classes: int) -> NDArray[np.float32] | None:
    """Return the lines that log-odds of an off-ramp or a bag of tokens are replaced by, in float32.

    Raises:
        ValueError: there is not a finite slope of at least 0 and a finite shift for each class, or no class is
            predicted.
    """
    if ramp.log_odds is None:
        return None
    lines = np.asarray(ramp.log_odds, np.float32)
    if ramp.score not in SCORES_OF_A_CLASS or lines.shape != (classes, 2):
        raise ValueError(
            f"{type(ramp).__name__}: log_odds must be a slope and a shift for each of {classes} classes that are "
            f"predicted, or None (got {lines.shape} of {ramp.score})"
        )
    if not np.isfinite(lines).all() or (lines[:, 0] < 0).any():
        raise ValueError(f"{type(ramp).__name__}: log_odds must be finite, slopes not negative (got {lines.tolist()})")
    return lines


def check_feature(feature: str) -> None:
    """Raise ValueError unless feature is one a rule can read."""
    if feature not in FEATURES:
        raise ValueError(f"feature must be one of {', '.join(FEATURES)} (got {feature!r})")


@dataclass(frozen=True, eq=False)
class LinearCondition:
    """Fires where `x @ weight + bias > threshold`; a score that is not finite never fires.

    Attributes:
        weight: (size,) float32; size is D, of the feature `cls+mean` 2 * D, of `flat` S * D.
        bias: added to the product.
        threshold: what the score must exceed.
        bound: upper bound on P(label of the full model != the rule's class | the condition fires).
        feature: the feature that the condition reads: `cls`, `mean`, `flat` or `cls+mean`.
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
    """A small classifier at a site: a row leaves with its answer where it is sure enough of it.

    One that predicts a class scores `softmax(logits / temperature)`: the highest probability, or the negative entropy.
    A row that leaves has `log_softmax(logits / temperature)` for its logits; where `log_odds` are given, the log-odds
    of the class, log(p / (1 - p)), are then replaced by a line of them, and the other classes keep their proportions
    (Platt 1999). With these scores it is the exit of The Right Tool (temperature-calibrated `max_prob`; Schwartz et
    al., ACL 2020), of DeeBERT (`entropy`; Xin et al., ACL 2020), and with `patience` that of PABEE (Zhou et al.,
    NeurIPS 2020).

    One for C labels that may hold at once scores the probability that all are on the right side of their levels,
    `prod_c sigmoid(|logits_c / temperature - levels_c|)` (`sides`); a row leaves with `logits / temperature`. One for C
    classes of which one holds, each compared with a level, does so with the log-odds of `softmax(logits / temperature)`
    (`odds`); a row leaves with `log_softmax(logits / temperature)`. One for C numbers estimates each, and the logarithm
    of its standard deviation in units of what the error may be; it scores `1 / (1 + the largest deviation)`
    (`deviation`), and a row leaves with the estimates.

    Attributes:
        layers: (weight, bias) of one layer, (outputs, size) and (outputs,), or of two with a ReLU between; float32.
            There are C outputs, of `deviation` 2 * C, the estimates first. size is D, or 2 * D for `cls+mean`.
        thresholds: (C,) float32, by predicted class: what the score must exceed; infinite: that class never leaves.
            (1,) of the others.
        bounds: the same shape, upper bound on the share of wrong answers among the rows that leave.
        score: `max_prob`, `entropy`, `sides`, `odds` or `deviation`.
        temperature: logits are divided by it; above 0, of `deviation` 1.
        feature: `cls`, `mean`, or `cls+mean`: the pooled token at the site beside the mean over all tokens before the
            site's layer, so that a peek decides it before the layer is run.
        patience: number of off-ramps in a row, this one included, that must predict the class.
        site: the site that it was fitted at; None: not known.
        levels: (C,) logits from which labels hold, of `sides`; log-odds, of `odds`, infinite where a class is not
            compared; else empty.
        log_odds: (C, 2) float32, by predicted class the slope, at least 0, and the shift of that line; None: log-odds
            stay. The predicted class stays the likeliest, and what is compared with thresholds as it is.

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
    levels: Sequence[float] = ()
    log_odds: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        check_feature(self.feature)
        if self.feature == "flat":
            raise ValueError("OffRamp: feature must be cls, mean or cls+mean (got flat)")
        check_score("OffRamp", self.score)
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
        if self.score in SCORES_OF_A_CLASS:
            if size < 2 or thresholds.shape != (size,) or bounds.shape != (size,):
                raise ValueError(
                    f"OffRamp: thresholds and bounds must have one value for each of at least two classes "
                    f"(got {thresholds.shape} and {bounds.shape}, {size} classes)"
                )
        elif self.patience != 1:
            raise ValueError(f"OffRamp: patience must be 1 of {self.score} (got {self.patience})")
        levels = check_outputs(self, size, thresholds, bounds)
        if np.isnan(thresholds).any() or not ((bounds > 0) & (bounds < 1)).all():
            raise ValueError("OffRamp: thresholds must be numbers, bounds inside (0, 1)")
        object.__setattr__(self, "log_odds", check_log_odds(self, size))
        for name, value in (("layers", layers), ("thresholds", thresholds), ("bounds", bounds), ("levels", levels)):
            object.__setattr__(self, name, value)

    @classmethod
    def closed(
        cls,
        layers: Layers,
        *,
        feature: str,
        site: str,
        temperature: float = 1.0,
        score: str = "max_prob",
        levels: Sequence[float] = (),
    ) -> OffRamp:
        """Build an off-ramp by which no row leaves: its thresholds are infinite."""
        groups = len(layers[-1][1]) if score in SCORES_OF_A_CLASS else 1
        never, bounds = np.full(groups, np.inf), np.full(groups, 0.01)
        return cls(layers, never, bounds, score, temperature, feature, site=site, levels=levels)

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or numbers, C."""
        return len(self.layers[-1][1]) // (2 if self.score == "deviation" else 1)

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
