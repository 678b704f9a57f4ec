"""Certificates of rerankers: along a path of margins, the last policy whose queries keep their first candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.promises import Outcomes, Promise
from moco_rt.ranking.search import Margins, RankedForm, search_margins
from moco_rt.ranking.study import RankingStudy
from moco_rt.statistics.bounds import upper_bound

_log = logging.getLogger(__name__)


def select_margins(
    studies: Sequence[RankingStudy], names: Sequence[str], promise: Promise
) -> tuple[Margins, Certificate]:
    """Return the fastest policy that calibration queries certify, and its certificate.

    Fixed-sequence testing with exact binomial tests, as for rows (Learn then Test, arXiv:2110.01052): a query differs
    if the set of its first candidates is another than the given model's.

    Args:
        studies: of all forms, the first as it was given.
        names: of the forms.
        promise: the share of queries, and the confidence.
    """
    path = search_margins([study.ordering for study in studies])
    runs = [_run(studies[policy.variant].calibration, policy.margins) for policy in path]
    outcomes = Outcomes(np.array([differs for _, differs, _ in runs]))
    promise = promise.for_rows(outcomes, ())
    # All policies up to the last that passes keep the promise at once, so the fastest of them may be taken.
    certified = max(0, promise.last(outcomes))
    taken = int(np.argmin([seconds for *_, seconds in runs[: certified + 1]]))
    policy, (exits, differs, seconds) = path[taken], runs[taken]
    if taken == 0:
        _log.warning("the model is left as it is: no exit kept the first candidates of enough queries and saved time")
    study, given = studies[policy.variant], studies[0].calibration
    certificate = Certificate(
        **promise.stated(outcomes, taken),
        delta=promise.delta,
        rows=len(differs),
        disagreements=int(differs.sum()),
        seconds_full=_run(given, np.full(len(studies[0].estimates), np.inf, np.float32))[2],
        seconds=seconds,
        exits=_exit_counts(study, exits, promise.delta),
        variant=names[policy.variant],
        units="queries",
        answer="first candidate" if given.scores.keep_top == 1 else f"first {given.scores.keep_top} candidates",
    )
    return policy, certificate


def _run(form: RankedForm, margins: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_], float]:
    exits = form.scores.exit_of_candidate(margins)
    return exits, form.scores.differs(exits), form.seconds(margins, exits)


def _exit_counts(study: RankingStudy, exits: NDArray[np.int64], delta: float) -> tuple[ExitCount, ...]:
    """Count the candidates that left at each site, and those of them that were among the given model's first ones."""
    form = study.calibration
    order = np.argsort(np.argsort(-form.scores.given, axis=1, kind="stable"), axis=1, kind="stable")
    among, there = order < form.scores.keep_top, form.lengths > 0
    counts = []
    for place, estimate in enumerate(study.estimates):
        left = (exits == place) & there
        if left.any():
            fired, wrong = int(left.sum()), int((left & among).sum())
            bound = upper_bound(wrong, fired, 1 - delta / len(study.estimates))
            counts.append(ExitCount(estimate.site, 0, fired, wrong, bound))
    return tuple(counts)
