"""Study of a reranker: estimates at every site, what they say of queries that they have not learnt from, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moco_rt._C import Results
from moco_rt.architectures.device_batch import AnyBatch, on_cpu
from moco_rt.architectures.sites import TOKENS
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.ranking.candidates import Candidates
from moco_rt.ranking.elimination import RankScores
from moco_rt.ranking.estimates import RETRIEVED, ScoreEstimate, fit_estimate
from moco_rt.ranking.ranked import ASK_ONLY, Elimination, Encode
from moco_rt.ranking.search import RankedForm
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.studies.costs import Costs, measure_costs
from moco_rt.studies.distillation import unfitted_off_ramp
from moco_rt.studies.recording import record
from moco_rt.studies.study import candidate_sites

#: Pairs whose features teach estimates at most: they are held in memory.
_FIT_PAIRS = 40_000
#: Pairs whose lengths costs are measured at.
_COST_PAIRS = 2000


@dataclass(frozen=True, eq=False)
class RankingStudy:
    """One form of a reranker.

    Attributes:
        estimates: E, in the order of their sites.
        ordering: scores of the queries that order policies.
        calibration: scores of those that certify.
    """

    estimates: Sequence[ScoreEstimate]
    ordering: RankedForm
    calibration: RankedForm


def study_ranking(
    models: Sequence[EarlyExitClassifier],
    encode: Encode,
    queries: Sequence[Sequence[Candidates]],
    keep_top: int,
) -> list[RankingStudy]:
    """Study all forms of a reranker, the first as it was given.

    Args:
        models: the forms.
        encode: tokenises pairs.
        queries: those that teach, those that order policies, those that certify.
        keep_top: k.
    """
    teaching, compared = _teaching(queries[0]), [*queries[1], *queries[2]]
    pairs = encode([pair for candidates in teaching for pair in candidates.pairs])
    sites = [site for site in candidate_sites(models[0]) if site != TOKENS]  # which says nothing of a pair
    retrieved = teaching[0].retrieved is not None
    costs = measure_costs(
        models,
        pairs[: min(len(pairs), _COST_PAIRS)],
        [unfitted_off_ramp(site, "cls+mean", models[0].policy.hidden_size, 2) for site in sites],
        _all_leave,
    )
    studies: list[RankingStudy] = []
    taught = given = None
    for model, of_model in zip(models, costs, strict=True):
        recorded = record(model, pairs, sites, desc=f"record {numeric_form(model.model)}")
        taught = recorded.logits[:, 0] if taught is None else taught
        estimates = _fit(sites, teaching, recorded.features, taught)
        del recorded  # features take much memory
        margins = np.full(len(estimates), ASK_ONLY, np.float32)
        elimination = Elimination(estimates, margins, keep_top)
        ranked = [elimination.run(model, encode, one) for one in tqdm(compared, desc="queries", delay=2, leave=False)]
        final = _filled([one.scores for one in ranked], -np.inf)
        given = final if given is None else given
        asked = np.stack([_filled([one.estimates[e] for one in ranked], -np.inf) for e in range(len(estimates))])
        scores = RankScores(asked, final, given, keep_top)
        lengths = _filled([one.lengths for one in ranked], 0)
        of_form = replace(of_model, **_with_retrieved(of_model)) if retrieved else of_model
        ordering, calibration = (
            RankedForm(scores.take(part), lengths[part], of_form)
            for part in (slice(0, len(queries[1])), slice(len(queries[1]), None))
        )
        studies.append(RankingStudy(estimates, ordering, calibration))
    return studies


def _teaching(queries: Sequence[Candidates]) -> Sequence[Candidates]:
    """Return the first queries, as many as have `_FIT_PAIRS` candidates in all."""
    ends = np.cumsum([len(candidates.documents) for candidates in queries])
    return queries[: max(1, int(np.searchsorted(ends, _FIT_PAIRS, side="right")))]


def _fit(
    sites: Sequence[str],
    teaching: Sequence[Candidates],
    features: Mapping[str, NDArray[np.float32]],
    taught: NDArray[np.float32],
) -> list[ScoreEstimate]:
    """Fit the estimates of all sites, and where retrieved scores are known one before the model begins."""
    ends = np.cumsum([len(candidates.documents) for candidates in teaching])[:-1]
    scores = _filled(np.split(taught, ends), -np.inf)
    known = [candidates.features for candidates in teaching]
    estimates = [fit_estimate(RETRIEVED, known, scores)] if known[0].shape[1] else []
    for site in sites:
        x = [np.hstack(both) for both in zip(np.split(features[site], ends), known, strict=True)]
        estimates.append(fit_estimate(site, x, scores))
    return estimates


def _filled(rows: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Stack rows of different lengths, filled up with a value: (Q, n)."""
    found = np.full((len(rows), max(map(len, rows))), value, rows[0].dtype)
    for filled, row in zip(found, rows, strict=True):
        filled[: len(row)] = row
    return found


def _with_retrieved(costs: Costs) -> dict[str, NDArray[np.float64]]:
    """Return costs with an exit before all others, by which candidates leave for nothing."""
    free = np.zeros((len(costs.lengths), 1))
    return {
        "compute": np.hstack([free, costs.compute]),
        "scoring": np.hstack([free, costs.scoring]),
        "fixed": np.append(0.0, costs.fixed),
    }


class _LeavePoint:
    """An exit point that scores all rows, as an estimate does, and lets all leave or none."""

    can_peek = True
    needs_mean = True

    def __init__(self, estimate: ScoreEstimate, *, leave: bool):
        self._compiled = estimate.compiled()
        self._leave = leave

    def apply(self, batch: AnyBatch, results: Results) -> int:  # noqa: ARG002
        self._compiled.logits(batch.pool("cls+mean"))
        rows = batch.rows
        if self._leave:
            on_cpu(batch).compact(batch.row_ids < 0)
        return rows if self._leave else 0


def _all_leave(
    model: EarlyExitClassifier, *, scoring: AnyOffRamp | None = None, leaving: AnyOffRamp | None = None
) -> Mapping[str, ExitPoint]:
    """Return exit points for `measure_costs`."""
    weight = np.zeros(2 * model.policy.hidden_size, np.float32)
    points: dict[str, ExitPoint] = {}
    for off_ramp, leave in ((scoring, False), (leaving, True)):
        if off_ramp is not None:
            points[str(off_ramp.site)] = _LeavePoint(ScoreEstimate(str(off_ramp.site), weight), leave=leave)
    return points
