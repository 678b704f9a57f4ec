"""The published methods, as paths of policies over the same off-ramps' machinery: what a search has to beat.

All of them look at the first token after a layer, peeked, and are certified as a found policy is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.bounds import neyman_pearson_threshold, rows_needed
from moco_rt.certification.calibration import fit_temperature
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.policies.conditions import OffRamp
from moco_rt.tuning.recording import Recordings
from moco_rt.tuning.study import Study, score_exits

_POLICIES = 200


@dataclass(frozen=True)
class Baseline:
    """One method's policies, from the slowest to the fastest.

    Attributes:
        off_ramps: at its sites.
        thresholds: (E, C) of each policy.
        patience: of each policy.
    """

    off_ramps: Sequence[OffRamp]
    thresholds: Sequence[NDArray[np.float32]]
    patience: Sequence[int]

    def leaving(self, answers: ExitScores) -> list[NDArray[np.int64]]:
        """Where rows leave, (n,), by policy; answers are those of its off-ramps."""
        return [answers.exit_of_row(t, p) for t, p in zip(self.thresholds, self.patience, strict=True)]


def all_baselines(found: Study) -> dict[str, Baseline]:
    """All of them by name, on the rows of a study.

    Their off-ramps are one layer on the first token after every layer's attention: as published, but for the peek.
    """
    by_prob = found.baseline_off_ramps
    if not by_prob:
        return {}
    by_entropy = [replace(off_ramp, score="entropy") for off_ramp in by_prob]
    few = [
        _temperature_scaled(off_ramp, found.ordering)
        for off_ramp in (by_prob[place] for place in sorted({i * len(by_prob) // 3 for i in range(3)}))
    ]
    return {
        "DeeBERT": deebert(by_entropy, score_exits(by_entropy, found.ordering)),
        "The Right Tool": right_tool(few, score_exits(few, found.ordering)),
        "PABEE": pabee(by_prob, score_exits(by_prob, found.ordering)),
        "moco": one_sided_rules(by_prob, score_exits(by_prob, found.ordering)),
    }


def deebert(off_ramps: Sequence[OffRamp], answers: ExitScores) -> Baseline:
    """One threshold on the entropy for all layers and classes (Xin et al., ACL 2020).

    Args:
        off_ramps: of one layer each, scored by `entropy`.
        answers: of the rows that order the path.
    """
    return _common_threshold(off_ramps, answers)


def right_tool(off_ramps: Sequence[OffRamp], answers: ExitScores) -> Baseline:
    """One threshold on the temperature-calibrated highest probability at few layers (Schwartz et al., ACL 2020).

    Args:
        off_ramps: of one layer each, scored by `max_prob`, at about three sites, with their `temperature`.
        answers: of the rows that order the path.
    """
    return _common_threshold(off_ramps, answers)


def pabee(off_ramps: Sequence[OffRamp], answers: ExitScores) -> Baseline:
    """Rows leave when so many layers in a row agree (Zhou et al., NeurIPS 2020).

    Args:
        off_ramps: of one layer each, at every layer.
        answers: of the rows that order the path.
    """
    always = np.full((len(off_ramps), off_ramps[0].num_classes), -np.inf, np.float32)
    patience = list(range(len(answers.score) + 1, 0, -1))
    return Baseline(off_ramps, [always] * len(patience), patience)


def one_sided_rules(off_ramps: Sequence[OffRamp], answers: ExitScores) -> Baseline:
    """One-sided sufficient rules: every class at every layer with the same error on rows of other classes.

    Args:
        off_ramps: of one layer each.
        answers: of the rows that order the path; of thresholds there are as many as they can bear.
    """
    classes = off_ramps[0].num_classes
    thresholds = [np.full((len(off_ramps), classes), np.inf, np.float32)]
    fewest = min(int((answers.label != c).sum()) for c in range(classes))
    errors = np.geomspace(1e-4, 0.2, _POLICIES)
    for error in errors[[rows_needed(float(error), 0.95) <= fewest for error in errors]]:
        rules = np.empty_like(thresholds[0])
        for site in range(len(off_ramps)):
            for c in range(classes):
                other = answers.label != c
                # A rule of class c says nothing of rows that the off-ramp takes for another.
                score = np.where(answers.predicted[site] == c, answers.score[site], -np.inf)[other]
                rules[site, c] = neyman_pearson_threshold(score, float(error), 0.95)
        thresholds.append(rules)
    return Baseline(off_ramps, thresholds, [1] * len(thresholds))


def _temperature_scaled(off_ramp: OffRamp, rows: Recordings) -> OffRamp:
    """An off-ramp of one layer with the temperature that suits the full model's labels of some recorded rows best."""
    ((weight, bias),) = off_ramp.layers
    logits = rows.feature(str(off_ramp.site), off_ramp.feature) @ weight.T + bias
    one_hot = np.eye(off_ramp.num_classes)[rows.labels]
    return replace(off_ramp, temperature=fit_temperature(logits, one_hot))


def _common_threshold(off_ramps: Sequence[OffRamp], answers: ExitScores) -> Baseline:
    shape = (len(off_ramps), off_ramps[0].num_classes)
    shares = 1 - np.linspace(0, 1, _POLICIES)
    thresholds = [np.full(shape, np.inf, np.float32)]
    thresholds += [np.full(shape, value, np.float32) for value in np.quantile(answers.score, shares)]
    return Baseline(off_ramps, thresholds, [1] * len(thresholds))
