"""Probabilities of rows that leave: brought to the scale of the given model's, and compared with those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from moco_rt.architectures import log_odds
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import RowsInAll
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.statistics.calibration import calibration_error, fit_log_odds

#: Users set thresholds there: the probability of which the report says how many rows change sides.
THRESHOLD = 0.9


def with_log_odds(
    off_ramps: Sequence[AnyOffRamp],
    scores: ExitScores,
    given: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    chosen: int,
) -> list[AnyOffRamp]:
    """Return the off-ramps of a path, each with the lines that fit the rows that leave by it.

    Rows that leave are not like all rows that an off-ramp was fitted to: their log-odds are brought to those that the
    given model has for the same class, by class and off-ramp, in the policy that was chosen; where no row leaves by it
    there, in the nearest policy of the path in which it is open.

    Args:
        off_ramps: E, scored by `max_prob`.
        scores: theirs of n rows that the certificate does not stand on.
        given: (n, C) logits of the given model.
        thresholds: (P, E, C) of the policies.
        chosen: index of the one that was chosen.
    """
    steps = np.arange(len(thresholds))
    nearest = steps[np.abs(steps - chosen).argsort(kind="stable")]
    exits_of = {}
    fitted = []
    for place, off_ramp in enumerate(off_ramps):
        step = int(next((step for step in nearest if not np.isposinf(thresholds[step, place]).all()), chosen))
        if step not in exits_of:
            exits_of[step] = scores.exit_of_row(thresholds[step])
        leaves = exits_of[step] == place
        lines = []
        for c in range(given.shape[1]):
            rows = leaves & (scores.group[place] == c)
            lines.append(fit_log_odds(_log_odds_of(scores.score[place, rows]), log_odds(given[rows], c)))
        fitted.append(replace(off_ramp, log_odds=np.array(lines, np.float32)))
    return fitted


def _log_odds_of(score: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return log-odds of probabilities in float32, which are 1 where they round to it."""
    odds: NDArray[np.float64] = logit(np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7))
    return odds


@dataclass(frozen=True)
class Probabilities:
    """Comparison of probabilities with the given model's on the calibration rows, their copies included.

    Attributes:
        across: share of rows whose label has a probability of at least `THRESHOLD` in one model and not in the other,
            or whose labels differ while both have.
        difference: mean absolute difference of the probabilities of the labels.
        calibration_error: of the fast model; None: no true classes are known.
        calibration_error_full: of the given model; None likewise.
    """

    across: float
    difference: float
    calibration_error: float | None = None
    calibration_error_full: float | None = None

    def __str__(self) -> str:
        shown = [
            f"rows whose label is on another side of probability {THRESHOLD}: {self.across:.2%}",
            f"mean difference of the label's probability: {self.difference:.4f}",
        ]
        if self.calibration_error is not None and self.calibration_error_full is not None:
            shown.append(
                f"expected calibration error: {self.calibration_error:.4f} "
                f"(given model: {self.calibration_error_full:.4f})"
            )
        return "\n".join(shown)


def compare_probabilities(
    off_ramps: Sequence[AnyOffRamp],
    scores: ExitScores,
    exits: NDArray[np.int64],
    given: NDArray[np.float32],
    logits: NDArray[np.float32],
    in_all: RowsInAll,
) -> Probabilities:
    """Compare the probabilities of the labels of n rows, some of which leave, with those of the given model.

    Args:
        off_ramps: E, of the policy.
        scores: theirs of the rows.
        exits: (n,) index of the off-ramp by which each row leaves; E: it runs to the end.
        given: (n, C) logits of the given model.
        logits: (n, C) of the model that runs, to its end.
        in_all: all rows, of which these are the distinct ones.
    """
    labels, labels_given = scores.label_of_row(exits), scores.given
    assert labels is not None
    assert labels_given is not None
    odds = log_odds(logits, logits.argmax(axis=1))
    for place, off_ramp in enumerate(off_ramps):
        rows = exits == place
        lines = np.tile([1.0, 0.0], (given.shape[1], 1)) if off_ramp.log_odds is None else off_ramp.log_odds
        slope, shift = lines[scores.group[place, rows]].T
        odds[rows] = slope * _log_odds_of(scores.score[place, rows]) + shift
    fast, full = expit(odds), expit(log_odds(given, labels_given))
    sure, sure_given = fast >= THRESHOLD, full >= THRESHOLD
    across = (sure != sure_given) | (sure & (labels != labels_given))
    errors = []
    if in_all.labels is not None:
        distinct = in_all.distinct
        errors = [
            calibration_error(probs[distinct], answers[distinct] == in_all.labels)
            for probs, answers in ((fast, labels), (full, labels_given))
        ]
    return Probabilities(in_all.share(across), float(np.abs(fast - full)[in_all.distinct].mean()), *errors)
