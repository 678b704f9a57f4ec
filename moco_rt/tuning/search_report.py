"""The one place where a `SearchReport` is made: what was found while a policy was searched, for the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import Certificate
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import ExitCandidates, Selection, trace
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.findings import SAMPLE, SearchReport
from moco_rt.policies.policy import CertifiedPath
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.studies.baselines import all_baselines
from moco_rt.studies.leaving import compare_probabilities
from moco_rt.studies.study import Study, score_exits

#: Bands of lengths, each with about as many calibration rows, of which the worst is named.
_BANDS = 5


def describe_search(
    model: EarlyExitClassifier, found: Study, chosen: Selection, variants: Sequence[ExitCandidates]
) -> SearchReport:
    """Describe a search on the calibration rows, beside what published methods do on the same rows.

    Args:
        model: the model that was studied, with the policy that was chosen.
        found: the study.
        chosen: that policy.
        variants: the exits of all forms that were tried.
    """
    rows, certificate = found.calibration, chosen.certificate
    assert model.policy.path is not None
    along = model.policy.path.off_ramps
    off_ramps = [along[chosen.path_places.index(place)] for place in chosen.places]
    scores = score_exits(off_ramps, rows, found.task)
    exits = scores.exit_of_row(chosen.thresholds)
    names = [str(model.config.id2label[c]) for c in range(model.policy.num_classes)]
    # A bag of tokens reads no feature that could be drawn.
    last = next((off_ramp for off_ramp in reversed(off_ramps) if isinstance(off_ramp, OffRamp)), None)
    remarks = _worst_groups(rows.lengths, scores, exits, names)
    if found.task.has_labels:
        compared = compare_probabilities(off_ramps, scores, exits, rows.given, rows.logits, found.calibration_in_all)
        remarks.append(str(compared))
    return SearchReport(
        sites=[str(off_ramp.site) for off_ramp in off_ramps],
        seconds_full=certificate.seconds_full,
        paths={
            "search": chosen.path.operating_points(),
            **(_baseline_paths(found) if found.task.has_labels else {}),  # published methods settle labels
        },
        chosen=np.array([certificate.seconds, certificate.disagreements / certificate.rows]),
        alpha=certificate.alpha,
        exits=exits,
        lengths=rows.lengths,
        scores=scores.score,
        **_answers(scores, names),
        remarks="\n".join(remarks),
        variants={each.variant: each.point_without_exits() for each in variants},
        sample=np.empty((0, 1), np.float32) if last is None else rows.feature(str(last.site), last.feature)[:SAMPLE],
    )


def describe_fresh_rows(
    path: CertifiedPath,
    certificate: Certificate,
    scores: ExitScores,
    lengths: NDArray[np.int64],
    class_names: Sequence[str],
) -> SearchReport:
    """Describe what fresh rows say of a path that they have certified again: nothing was searched, nothing compared.

    Args:
        path: the path, with the counts of these rows.
        certificate: theirs.
        scores: those of the n rows by all exits of the path.
        lengths: (n,) tokens.
        class_names: of the model.
    """
    chosen = path.policies.chosen
    used = path.places_used(chosen)
    scores = scores.at(used)
    exits = scores.exit_of_row(path.policies.thresholds[chosen, used])
    return SearchReport(
        sites=[str(path.off_ramps[place].site) for place in used],
        paths={"path, on fresh rows": path.policies.operating_points()},
        **_of_rows(certificate, scores, exits, lengths, class_names),
        remarks="\n".join(_worst_groups(lengths, scores, exits, class_names)),
    )


def _of_rows(
    certificate: Certificate,
    scores: ExitScores,
    exits: NDArray[np.int64],
    lengths: NDArray[np.int64],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return the fields of a `SearchReport` that its rows and their certificate say, without features of rows."""
    return {
        "seconds_full": certificate.seconds_full,
        "chosen": np.array([certificate.seconds, certificate.disagreements / certificate.rows]),
        "alpha": certificate.alpha,
        "exits": exits,
        "lengths": lengths,
        "scores": scores.score,
        "sample": np.empty((0, 1), np.float32),
        **_answers(scores, class_names),
    }


def _answers(scores: ExitScores, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a `SearchReport` that are about labels, or where there are none about right and wrong."""
    if scores.given is None:
        rows = np.zeros(scores.rows, np.int64)
        return {"class_names": ["row"], "labels": rows, "predicted": scores.wrong[:-1].astype(np.int64)}
    return {"class_names": class_names, "labels": scores.given, "predicted": scores.group}


def describe_cascade_search(
    forms: Sequence[ExitCandidates], sites: Sequence[str], class_names: Sequence[str], chosen: Selection
) -> SearchReport:
    """Describe a search over the ways out of a cascade, on the calibration rows.

    Args:
        forms: the ways out in all forms that were tried.
        sites: names of those that were chosen, as the cascade calls them.
        class_names: of the last tier.
        chosen: the policy.
    """
    rows = forms[chosen.variant].calibration
    scores, lengths = rows.scores.at(chosen.places), rows.lengths[-1]
    exits, certificate = scores.exit_of_row(chosen.thresholds), chosen.certificate
    assert scores.given is not None  # tiers choose one label
    return SearchReport(
        sites=sites,
        paths={"search": chosen.path.operating_points()},
        **_of_rows(certificate, scores, exits, lengths, class_names),
        remarks="\n".join([*chosen.path.compare_variants(), *_worst_groups(lengths, scores, exits, class_names)]),
        variants={each.variant: each.point_without_exits() for each in forms},
    )


def _worst_groups(
    lengths: NDArray[np.int64], scores: ExitScores, exits: NDArray[np.int64], class_names: Sequence[str]
) -> list[str]:
    """Say of which lengths, and where answers are labels of which class, most answers change."""
    differs = scores.disagrees(exits)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _BANDS + 1)[1:-1], method="lower"))
    used, band = np.unique(np.searchsorted(edges, lengths), return_inverse=True)
    inside = [lengths[band == number] for number in range(len(used))]
    said = [_worst("lengths", [f"{some.min()} to {some.max()} tokens" for some in inside], band, differs)]
    return said if scores.given is None else [*said, _worst("class", class_names, scores.given, differs)]


def _worst(what: str, names: Sequence[str], group: NDArray[np.int64], differs: NDArray[np.bool_]) -> str:
    """Name the group of rows of which the largest share has another answer."""
    rows = np.bincount(group, minlength=len(names))
    changed = np.bincount(group, differs, minlength=len(names)).astype(int)
    shares = np.where(rows > 0, changed / np.maximum(rows, 1), -1)  # a group without rows is none
    worst = int(shares.argmax())
    share = shares[worst]
    return f"{what} with the most other answers: {names[worst]}, {changed[worst]:,} of {rows[worst]:,} ({share:.2%})"


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
