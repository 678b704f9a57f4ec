"""What is certified of a reranker holds for queries that nothing has seen: a simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moco_rt.certification.promises import Confident
from moco_rt.ranking.certify import select_margins
from moco_rt.ranking.elimination import RankScores
from moco_rt.ranking.estimates import ScoreEstimate
from moco_rt.ranking.search import RankedForm, search_margins
from moco_rt.ranking.study import RankingStudy
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.costs import Costs
from tests.support.rates import at_most

ESTIMATES = [ScoreEstimate(site, np.ones(1, np.float32)) for site in ("embeddings", "encoder.0.attention")]


def make_form(queries, seed, keep_top=1, candidates=8, noise=(2.0, 0.7)):
    """Scores with noisy estimates; the first exit costs a tenth of the way, the second a half."""
    rng = np.random.default_rng(seed)
    final = rng.normal(size=(queries, candidates)).astype(np.float32)
    spread = np.array(noise)[:, None, None]
    estimates = (final + spread * rng.normal(size=(2, queries, candidates))).astype(np.float32)
    costs = Costs(np.array([5.0]), np.array([[0.1, 0.5, 1.0]]), np.zeros((1, 2)), np.zeros(3))
    lengths = np.full(final.shape, 5)
    return RankedForm(RankScores(estimates, final, final, keep_top), lengths, costs)


def study(seed, ordering=60, calibration=100):
    return RankingStudy(ESTIMATES, make_form(ordering, seed), make_form(calibration, seed + 1))


def test_a_path_goes_from_nothing_changes_to_faster_and_faster():
    path = search_margins(make_form(200, 0))
    assert np.isposinf(path[0].margins).all()
    assert path[0].errors == 0
    assert (np.diff([policy.seconds for policy in path]) < 0).all()
    assert (np.diff([policy.errors for policy in path]) >= 0).all()
    assert path[-1].seconds < 0.6 * path[0].seconds


def test_the_fastest_of_all_forms_is_taken_and_they_share_delta():
    given = study(0, 300, 400)
    faster = {
        name: replace(form, costs=replace(form.costs, compute=form.costs.compute / 3))
        for name, form in (("ordering", given.ordering), ("calibration", given.calibration))
    }
    other = replace(given, **faster)
    promise = Confident(Guarantee(0.1, 0.05))
    alone = select_margins([given], ["as given"], promise)
    both = select_margins([given, other], ["as given", "int8"], promise)
    assert (both.form, both.certificate.variant) == (1, "int8")
    assert both.certificate.seconds < alone.certificate.seconds / 2
    assert both.certificate.delta == 0.05
    assert both.certificate.disagreements <= alone.certificate.disagreements
    assert both.certificate.seconds_full == alone.certificate.seconds_full


def test_a_form_that_gives_other_first_candidates_stops_no_other():
    given = study(0, 300, 400)
    shuffled = {
        name: replace(
            form,
            scores=replace(form.scores, final=form.scores.final[:, ::-1]),
            costs=replace(form.costs, compute=form.costs.compute / 9),
        )
        for name, form in (("ordering", given.ordering), ("calibration", given.calibration))
    }
    found = select_margins([given, replace(given, **shuffled)], ["as given", "int8"], Confident(Guarantee(0.1, 0.05)))
    assert found.form == 0
    assert found.certificate.speedup > 1.2


def test_a_form_that_was_asked_for_is_searched_alone_and_shares_delta_with_none():
    given = study(0, 300, 400)
    promise = Confident(Guarantee(0.1, 0.05))
    alone = select_margins([given], ["as given"], promise)
    both = select_margins([given, given], ["as given", "int8"], promise, pinned=True)
    assert (both.form, both.certificate.variant) == (1, "int8")
    assert both.margins.tolist() == alone.margins.tolist()
    wrong = replace(given.calibration, scores=replace(given.calibration.scores, final=-given.calibration.scores.final))
    left = select_margins([given, replace(given, calibration=wrong)], ["as given", "int8"], promise, pinned=True)
    assert (left.form, left.certificate.variant, left.certificate.speedup) == (0, "as given", 1.0)
    assert np.isposinf(left.margins).all()


def test_the_certificate_counts_the_calibration_queries():
    found = study(0, 300, 400)
    chosen = select_margins([found], ["as given"], Confident(Guarantee(0.1, 0.05)))
    certificate, exits = chosen.certificate, found.calibration.scores.exit_of_candidate(chosen.margins)
    assert certificate.rows == 400
    assert certificate.disagreements == found.calibration.scores.differs(exits).sum()
    assert certificate.speedup > 1.2
    assert certificate.units == "queries"
    left = [count.fired for count in certificate.exits]
    assert left == [int((exits == place).sum()) for place in range(2) if (exits == place).any()]
    assert "same first candidate as the full model for at least 90.00% of queries" in certificate.table()


def test_with_too_few_queries_it_says_what_they_can_show(caplog):
    certificate = select_margins([study(0, 60, 30)], ["as given"], Confident(Guarantee(0.05, 0.05))).certificate
    assert "30 distinct calibration rows cannot certify" in caplog.text
    assert certificate.alpha > 0.05


@pytest.mark.parametrize("naive", [False, True], ids=["certified", "naive"])
def test_violations_are_as_rare_as_promised(naive, monkeypatch):
    """A policy taken by what the calibration rows show, with no bound, breaks the promise much more often."""
    alpha, delta, repeats = 0.15, 0.1, 150
    if naive:
        monkeypatch.setattr(
            Confident,
            "last",
            lambda _, outcomes: int(np.flatnonzero(outcomes.differs.mean(axis=1) <= alpha).max(initial=-1)),
        )
    fresh = make_form(20_000, 999)
    broken = 0
    for repeat in range(repeats):
        chosen = select_margins([study(10 * repeat + 1)], ["as given"], Confident(Guarantee(alpha, delta)))
        exits = fresh.scores.exit_of_candidate(chosen.margins)
        broken += fresh.scores.differs(exits).mean() > alpha
    assert (broken / repeats > at_most(delta, repeats)) == naive


@pytest.mark.parametrize(("forms", "queries"), [(1, 59), (2, 72), (3, 80)])
def test_as_many_queries_as_the_docs_say_certify_with_several_forms(forms, queries):
    """Without an error, at 95%; fewer show the strictest promise that they can, and show it."""
    exact = study(0, 60, 400)
    for count, agreement in ((queries, 0.95), (queries - 1, None), (40, None)):
        scores = replace(exact.calibration.scores, estimates=np.stack([exact.calibration.scores.final] * 2))
        few = replace(
            exact.calibration,
            scores=RankScores(scores.estimates[:, :count], scores.final[:count], scores.given[:count], 1),
            lengths=exact.calibration.lengths[:count],
        )
        ordering = exact.ordering.scores
        sure = replace(exact.ordering, scores=replace(ordering, estimates=np.stack([ordering.final] * 2)))
        studies = [replace(exact, calibration=few, ordering=sure)] * forms
        chosen = select_margins(studies, ["a", "b", "c"], Confident(Guarantee.of_agreement(0.95, 0.95)))
        assert np.isfinite(chosen.margins).any()
        shown = 1 - chosen.certificate.alpha
        assert shown == pytest.approx(0.95) if agreement else 0.85 < shown < 0.95
        assert chosen.certificate.delta == pytest.approx(0.05)
