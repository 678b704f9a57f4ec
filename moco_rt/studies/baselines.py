"""Baselines: published methods as paths of policies over the same kind of off-ramps, to compare a search with.

All of them read the first token after a layer's attention, from a peek, and are certified as a found policy is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.policies.conditions import OffRamp
from moco_rt.statistics.bounds import neyman_pearson_threshold, rows_needed
from moco_rt.statistics.calibration import fit_temperature
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.recording import Recordings
from moco_rt.studies.study import Study, score_exits

_POLICIES = 200


@dataclass(frozen=True)
class Baseline:
    """Policies of one method, from the slowest to the fastest.

    Attributes:
        off_ramps: E off-ramps in the order of their sites.
        thresholds: (E, C) thresholds of each policy.
        patience: patience of each policy.
    """

    off_ramps: Sequence[OffRamp]
    thresholds: Sequence[NDArray[np.float32]]
    patience: Sequence[int]

    def exits_of_policies(self, scores: ExitScores) -> list[NDArray[np.int64]]:
        """Return for each policy the exit of each row, (n,); scores: those of its off-ramps on n rows."""
        return [scores.exit_of_row(t, p) for t, p in zip(self.thresholds, self.patience, strict=True)]


def all_baselines(found: Study) -> dict[str, Baseline]:
    """Build all baselines on the rows of a study, by name.

    Their off-ramps have one layer on the first token after every layer's attention: as published, but for the peek.
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


def deebert(off_ramps: Sequence[OffRamp], scores: ExitScores) -> Baseline:
    """DeeBERT: one threshold on the entropy for all layers and classes (Xin et al., ACL 2020).

    Args:
        off_ramps: off-ramps of one layer, scored by `entropy`.
        scores: those of the ordering rows.
    """
    return _common_threshold(off_ramps, scores)


def right_tool(off_ramps: Sequence[OffRamp], scores: ExitScores) -> Baseline:
    """The Right Tool: one threshold on the calibrated highest probability at few layers (Schwartz et al., ACL 2020).

    Args:
        off_ramps: off-ramps of one layer, scored by `max_prob` at their `temperature`, at about three sites.
        scores: those of the ordering rows.
    """
    return _common_threshold(off_ramps, scores)


def pabee(off_ramps: Sequence[OffRamp], scores: ExitScores) -> Baseline:
    """PABEE: rows leave when so many layers in a row agree (Zhou et al., NeurIPS 2020).

    Args:
        off_ramps: off-ramps of one layer, at every layer.
        scores: those of the ordering rows.
    """
    always = np.full((len(off_ramps), off_ramps[0].num_classes), -np.inf, np.float32)
    patience = list(range(len(scores.score) + 1, 0, -1))
    return Baseline(off_ramps, [always] * len(patience), patience)


def one_sided_rules(off_ramps: Sequence[OffRamp], scores: ExitScores) -> Baseline:
    """One-sided sufficient rules: every class at every layer with the same error on rows of other classes.

    Args:
        off_ramps: off-ramps of one layer.
        scores: those of the ordering rows; there are as many thresholds as these rows can show.
    """
    classes = off_ramps[0].num_classes
    thresholds = [np.full((len(off_ramps), classes), np.inf, np.float32)]
    delta = 1 - 0.95
    assert scores.given is not None  # off-ramps settle labels
    fewest = min(int(np.count_nonzero(scores.given != c)) for c in range(classes))
    errors = np.geomspace(1e-4, 0.2, _POLICIES)
    for error in errors[[rows_needed(Guarantee(float(error), delta)) <= fewest for error in errors]]:
        rules = np.empty_like(thresholds[0])
        for site in range(len(off_ramps)):
            for c in range(classes):
                other = scores.given != c
                # A rule of class c never fires on rows that the off-ramp takes for another class.
                score = np.where(scores.group[site] == c, scores.score[site], -np.inf)[other]
                rules[site, c] = neyman_pearson_threshold(score, Guarantee(float(error), delta))
        thresholds.append(rules)
    return Baseline(off_ramps, thresholds, [1] * len(thresholds))


def _temperature_scaled(off_ramp: OffRamp, rows: Recordings) -> OffRamp:
    """Return an off-ramp of one layer at the temperature that fits the full model's labels of recorded rows best."""
    ((weight, bias),) = off_ramp.layers
    logits = rows.feature(str(off_ramp.site), off_ramp.feature) @ weight.T + bias
    one_hot = np.eye(off_ramp.num_classes)[rows.labels]
    return replace(off_ramp, temperature=fit_temperature(logits, one_hot))


def _common_threshold(off_ramps: Sequence[OffRamp], scores: ExitScores) -> Baseline:
    """Build policies with one threshold for all off-ramps and classes, at quantiles of the scores."""
    shape = (len(off_ramps), off_ramps[0].num_classes)
    shares = 1 - np.linspace(0, 1, _POLICIES)
    thresholds = [np.full(shape, np.inf, np.float32)]
    thresholds += [np.full(shape, value, np.float32) for value in np.quantile(scores.score, shares)]
    return Baseline(off_ramps, thresholds, [1] * len(thresholds))
