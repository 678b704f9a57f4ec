"""Certificates of rerankers: along paths of margins, the fastest policy whose queries keep their first candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.promises import Confident, Outcomes
from moco_rt.ranking.elimination import ranks
from moco_rt.ranking.search import RankedForm, search_margins
from moco_rt.ranking.study import RankingStudy
from moco_rt.statistics.bounds import upper_bound

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RankingChoice:
    """The policy that was taken.

    Attributes:
        form: index of the form of the model that it runs.
        margins: (E,) float32.
        certificate: the promise.
    """

    form: int
    margins: NDArray[np.float32]
    certificate: Certificate


def select_margins(
    studies: Sequence[RankingStudy], names: Sequence[str], promise: Confident, *, pinned: bool = False
) -> RankingChoice:
    """Return the fastest policy that calibration queries certify.

    Each form has a path of its own, tested with exact binomial tests in a fixed sequence (Learn then Test,
    arXiv:2110.01052); a query differs if the set of its first candidates is another than the given model's. The forms
    share delta (Bonferroni), so the fastest of what all paths show may be taken. One path over all forms would need no
    share, but with some hundred queries to order it, one form in the wrong place would stop it.

    Args:
        studies: of all forms, the first as it was given.
        names: of the forms.
        promise: the share of queries, and the confidence.
        pinned: one form was asked for, the last: the model as it was given is there to fall back on, without exits.
    """
    calibration = studies[0].calibration
    queries = len(calibration.scores.given)
    searched = list(enumerate(studies))[-1 if pinned else 0 :]
    each = replace(promise, guarantee=replace(promise.guarantee, delta=promise.delta / len(searched)))
    each = each.for_rows(Outcomes(np.zeros((1, queries), bool)), ())  # with its own part of delta
    form, margins = 0, np.full(len(studies[0].estimates), np.inf, np.float32)
    best = nothing = _run(calibration, margins)
    for number, study in searched:
        path = search_margins(study.ordering)
        runs = [_run(study.calibration, policy.margins) for policy in path]
        certified = each.last(Outcomes(np.array([run.differs for run in runs])))
        for policy, run in zip(path[: certified + 1], runs, strict=False):
            if run.seconds < best.seconds:
                best, form, margins = run, number, policy.margins
    if best is nothing:
        _log.warning("the model is left as it is: nothing else kept the first candidates of enough queries")
    certificate = Certificate(
        alpha=each.guarantee.max_disagreement,
        delta=promise.delta,
        rows=queries,
        disagreements=int(best.differs.sum()),
        seconds_full=nothing.seconds,
        seconds=best.seconds,
        exits=_exit_counts(studies[form], best.exits, promise.delta),
        variant=names[form],
        units="queries",
        answer=_first_candidates(calibration.scores.keep_top),
    )
    return RankingChoice(form, margins, certificate)


def _first_candidates(count: int) -> str:
    return "first candidate" if count == 1 else f"first {count} candidates"


class _Run(NamedTuple):
    """Calibration queries under a policy: the exit of each candidate, which queries differ, seconds of one."""

    exits: NDArray[np.int64]
    differs: NDArray[np.bool_]
    seconds: float


def _run(form: RankedForm, margins: NDArray[np.float32]) -> _Run:
    exits = form.scores.exit_of_candidate(margins)
    return _Run(exits, form.scores.differs(exits), form.seconds(margins, exits))


def _exit_counts(study: RankingStudy, exits: NDArray[np.int64], delta: float) -> tuple[ExitCount, ...]:
    """Count the candidates that left at each site, and those of them that were among the given model's first ones."""
    form = study.calibration
    among, there = ranks(form.scores.given) < form.scores.keep_top, form.lengths > 0
    counts = []
    for place, estimate in enumerate(study.estimates):
        left = (exits == place) & there
        if left.any():
            fired, wrong = int(left.sum()), int((left & among).sum())
            bound = upper_bound(wrong, fired, 1 - delta / len(study.estimates))
            counts.append(ExitCount(estimate.site, 0, fired, wrong, bound))
    return tuple(counts)
