"""The one place where a `SearchReport` is made: what was found while a policy was searched, for the HTML report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.selection import Selection, trace
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.findings import SAMPLE, SearchReport
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.studies.baselines import all_baselines
from moco_rt.studies.study import Study, score_exits


def describe_search(model: EarlyExitClassifier, found: Study, chosen: Selection) -> SearchReport:
    """Describe a search on the calibration rows, beside what published methods do on the same rows.

    Args:
        model: the model that was studied.
        found: the study.
        chosen: the policy that was chosen from it.
    """
    rows, certificate = found.calibration, chosen.certificate
    off_ramps = [found.off_ramps[place] for place in chosen.places]
    scores = score_exits(off_ramps, rows, found.task)
    names = [str(model.config.id2label[c]) for c in range(model.policy.num_classes)]
    labels, predicted = rows.labels, scores.group
    if not found.task.has_labels:
        names, labels, predicted = ["row"], np.zeros_like(labels), scores.wrong[:-1].astype(np.int64)
    # A bag of tokens reads no feature that could be drawn.
    last = next((off_ramp for off_ramp in reversed(off_ramps) if isinstance(off_ramp, OffRamp)), None)
    return SearchReport(
        sites=[str(off_ramp.site) for off_ramp in off_ramps],
        class_names=names,
        seconds_full=certificate.seconds_full,
        paths={
            "search": chosen.path.operating_points(),
            **(_baseline_paths(found) if found.task.has_labels else {}),  # published methods settle labels
        },
        chosen=np.array([certificate.seconds, certificate.disagreements / certificate.rows]),
        alpha=certificate.alpha,
        exits=scores.exit_of_row(chosen.thresholds),
        lengths=rows.lengths,
        labels=labels,
        predicted=predicted,
        scores=scores.score,
        sample=np.empty((0, 1), np.float32) if last is None else rows.feature(str(last.site), last.feature)[:SAMPLE],
    )


def _baseline_paths(found: Study) -> dict[str, NDArray[np.float64]]:
    """Return the operating points of the published methods on the calibration rows: name -> (policies, 2)."""
    # Their off-ramps have one layer, ours one or two: what is timed is the way to the site and the reading of `cls`.
    places = {ramp.site: place for place, ramp in enumerate(found.off_ramps) if ramp.feature == "cls"}
    paths = {}
    for name, baseline in all_baselines(found).items():
        scores = score_exits(baseline.off_ramps, found.calibration)
        seconds = found.costs.seconds(found.calibration.lengths, [places[ramp.site] for ramp in baseline.off_ramps])
        disagreements, mean_seconds = trace(baseline.exits_of_policies(scores), scores, seconds)
        paths[name] = np.column_stack([mean_seconds, disagreements / scores.rows])
    return paths
