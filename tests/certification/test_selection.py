"""From scored rows to a certificate: what is chosen along a path, over one variant of a model or two."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from rates import at_most
from score_samples import make_costs, make_scores, mean_seconds, share_wrong, take_rows

from moco_rt.certification import policy_search, promises, selection
from moco_rt.certification.certificate import GIVEN
from moco_rt.certification.policy_search import search
from moco_rt.certification.promises import Confident
from moco_rt.certification.selection import ExitCandidates, RowsInAll, ScoredRows
from moco_rt.statistics.bounds import fixed_sequence
from moco_rt.statistics.guarantee import Guarantee

SITES = ["embeddings", "encoder.0.attention", "encoder.1.attention"]
REACH = np.array([1.0, 4.0, 7.0, 10.0])
CHEAP = "int8"


@pytest.fixture(autouse=True)
def short_searches(monkeypatch):
    """Paths with fewer steps, so that a search takes a fraction of a second."""
    monkeypatch.setattr(policy_search, "_POLICIES", 800)
    monkeypatch.setattr(policy_search, "_FEWER", 200)


def select(variants, agreement):
    """What is selected for an agreement, with a confidence of 95%."""
    return selection.select(variants, Confident(Guarantee.of_agreement(agreement, 0.95)), ["bad", "good"])


def lengths_of(scores):
    return np.random.default_rng(scores.rows).integers(10, 100, scores.rows)


def candidates_of(ordering, calibration, variant=GIVEN, times=1.0, **options):
    """Candidates with costs that are so many times those of the model as it was given."""
    jobs = [ScoredRows(scores, lengths_of(scores)) for scores in (ordering, calibration)]
    in_all = options.pop("in_all", RowsInAll(np.arange(calibration.rows)))
    costs = make_costs(times * REACH, times * 0.1)
    return ExitCandidates(SITES, costs, *jobs, in_all, 2, variant, **options)


def make_candidates(variant=GIVEN, times=1.0, rows=(1500, 3000), strengths=(1.5, 2.5, 3.5), **options):
    jobs = [make_scores(strengths, rows=n, seed=seed, **options) for seed, n in enumerate(rows)]
    return candidates_of(*jobs, variant, times)


def two_variants(wrong_at_end=0.01, times=0.5):
    return [make_candidates(), make_candidates(CHEAP, times, wrong_at_end=wrong_at_end)]


def of_policy(candidates, places):
    """Scores, and seconds of a row by way out, of the calibration rows by some exits."""
    rows = candidates.calibration
    return rows.scores.at(places), candidates.costs.seconds(rows.lengths, places)


# What the certificate says is what the calibration rows do


@pytest.mark.parametrize(("agreement", "variant"), [(0.998, 0), (0.98, 1)])
def test_a_certificate_counts_what_the_chosen_policy_does(agreement, variant):
    variants = two_variants()
    truth = np.random.default_rng(0).integers(0, 2, 3000)
    variants = [replace(each, calibration_in_all=RowsInAll(np.arange(3000), truth)) for each in variants]
    found = select(variants, agreement)
    assert found.variant == variant
    chosen, certificate = variants[variant], found.certificate
    scores, seconds = of_policy(chosen, found.places)
    exits = scores.exit_of_row(found.thresholds)
    wrong = scores.disagrees(exits)
    assert certificate.variant == (GIVEN, CHEAP)[variant]
    assert (certificate.alpha, certificate.delta) == (pytest.approx(1 - agreement), pytest.approx(0.05))
    assert (certificate.rows, certificate.disagreements) == (3000, wrong.sum())
    assert certificate.disagreement_in_all == wrong.mean()
    assert certificate.seconds == pytest.approx(mean_seconds(scores, found.thresholds, seconds))
    given = variants[0].calibration
    assert certificate.seconds_full == pytest.approx(variants[0].costs.seconds(given.lengths, []).mean())
    assert certificate.accuracy == (scores.labels[exits, np.arange(3000)] == truth).mean()
    assert certificate.accuracy_full == (given.scores.given == truth).mean()
    assert sum(count.fired for count in certificate.exits) == (exits < len(found.places)).sum()
    assert {count.site for count in certificate.exits} <= {SITES[place] for place in found.places}
    # Who runs to the end may differ too, where another form of the model runs.
    at_exits = sum(count.wrong for count in certificate.exits)
    assert certificate.disagreements - at_exits == wrong[exits == len(found.places)].sum()


def test_the_chosen_policy_lies_on_its_path():
    variants = two_variants()
    found = select(variants, 0.98)
    path = found.path
    assert path.variants == (GIVEN, CHEAP)
    assert path.variant[path.chosen] == found.variant
    assert path.chosen <= path.certified < len(path.seconds)
    assert path.seconds[path.chosen] == path.seconds[: path.certified + 1].min() == found.certificate.seconds
    assert path.disagreements[path.chosen] == found.certificate.disagreements
    assert path.certified == fixed_sequence(path.disagreements, path.rows, Guarantee(0.02, 0.05))
    assert path.thresholds.shape == (len(path.seconds), len(found.path_places), 2)
    np.testing.assert_array_equal(np.isposinf(path.thresholds[path.variant != found.variant]), True)
    own = dict(zip(found.places, found.thresholds, strict=True))
    for place, levels in zip(found.path_places, path.thresholds[path.chosen], strict=True):
        np.testing.assert_array_equal(levels, own.get(place, np.full(2, np.inf)))


def test_every_policy_of_the_chosen_variant_can_be_run_from_the_path():
    variants = two_variants()
    found = select(variants, 0.98)
    path, chosen = found.path, variants[found.variant]
    scores, _ = of_policy(chosen, found.path_places)
    for thresholds, disagreements in zip(
        path.thresholds[path.variant == found.variant], path.disagreements[path.variant == found.variant], strict=True
    ):
        assert scores.disagrees(scores.exit_of_row(thresholds)).sum() == disagreements


def test_the_path_counts_rows_by_step_and_exit():
    variants = two_variants()
    found = select(variants, 0.98)
    path, chosen = found.path, variants[found.variant]
    scores, _ = of_policy(chosen, found.path_places)
    for step, thresholds in enumerate(path.thresholds):
        exits = scores.exit_of_row(thresholds)
        places = range(len(found.path_places))
        assert path.fired[step].tolist() == [(exits == place).sum() for place in places]
        if path.variant[step] == found.variant:
            assert path.wrong[step].tolist() == [scores.disagrees(exits)[exits == place].sum() for place in places]
    by_site = [sum(c.fired for c in found.certificate.exits if c.site == SITES[place]) for place in found.path_places]
    assert path.fired[path.chosen].tolist() == by_site


# What is chosen


AGREEMENTS = (0.998, 0.995, 0.99, 0.98, 0.95, 0.9)


@pytest.mark.parametrize("variants", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_to_ask_for_less_is_never_slower(variants, seed):
    rng = np.random.default_rng(seed)
    strengths = np.sort(rng.uniform(0.5, 3.5, 3))
    given = make_candidates(strengths=strengths)
    other = make_candidates(CHEAP, 0.6, strengths=strengths, wrong_at_end=0.01)
    certificates = [select([given, other][:variants], share).certificate for share in AGREEMENTS]
    for before, after in pairwise(certificates):
        assert after.seconds <= before.seconds
    assert certificates[-1].seconds < 0.8 * certificates[0].seconds_full


def test_the_path_does_not_depend_on_the_wish():
    variants = two_variants()
    one, other = (select(variants, share) for share in (0.998, 0.95))
    assert one.variant != other.variant
    for name in ("variant", "disagreements", "seconds"):
        np.testing.assert_array_equal(getattr(one.path, name), getattr(other.path, name))
    assert one.path.certified < other.path.certified


def test_the_path_does_not_depend_on_the_rows_that_certify():
    paths = [select([make_candidates(rows=(1500, rows))], 0.98) for rows in (3000, 500)]
    for name in ("variant", "thresholds"):
        np.testing.assert_array_equal(*(getattr(found.path, name) for found in paths))


def test_a_cheap_form_is_taken_where_the_promise_has_room_for_its_errors():
    strict, loose = (select(two_variants(), share) for share in (0.998, 0.98))
    assert (strict.variant, loose.variant) == (0, 1)
    assert loose.certificate.seconds < 0.5 * loose.certificate.seconds_full


def test_a_cheap_form_that_cannot_be_certified_is_not_taken(caplog):
    """Asked for alone, it stands beside the model as it was given, to fall back on."""
    given, other = two_variants(wrong_at_end=0.05)
    variants = [given.without_exits(), other.without_exits()]
    with caplog.at_level(logging.WARNING):
        found = select(variants, 0.99)
    assert (found.variant, found.places, found.certificate.variant) == (0, [], GIVEN)
    assert (found.certificate.disagreements, found.certificate.speedup) == (0, 1.0)
    assert "the model is left as it is" in caplog.text
    assert select(variants, 0.9).variant == 1


def test_a_cheap_form_that_was_never_wrong_while_policies_were_ordered_is_tested_all_the_same():
    given = make_candidates().without_exits()
    other = make_candidates(CHEAP, 0.5, wrong_at_end=0.03).without_exits()
    lucky = make_candidates(CHEAP, 0.5).without_exits()
    other = replace(other, ordering=lucky.ordering)
    found = select([given, other], 0.99)
    assert (found.variant, found.certificate.disagreements) == (0, 0)


def test_calibration_rows_that_contradict_the_others_certify_nothing(caplog):
    given = make_candidates()
    scores = given.calibration.scores
    contrary = replace(scores, wrong=np.vstack([~scores.wrong[:-1], scores.wrong[-1:]]))
    given = replace(given, calibration=replace(given.calibration, scores=contrary))
    found = select([given], 0.99)
    assert (found.places, found.certificate.exits, found.certificate.disagreements) == ([], (), 0)
    assert (found.path.certified, found.path.chosen) == (0, 0)
    assert "the model is left as it is" in caplog.text


def test_without_exits_only_the_model_itself_is_left():
    given = make_candidates().without_exits()
    assert given.sites == []
    found = select([given], 0.9)
    assert (found.places, found.path_places) == ([], [])
    assert found.path.thresholds.shape == (1, 0, 2)
    assert found.certificate.speedup == 1.0


def test_groups_of_candidates_bound_what_is_chosen():
    given = replace(make_candidates(), groups=[[2]])
    assert select([given], 0.98).places == [2]


def test_copies_are_weighed_beside_the_promise():
    scores = [make_scores((1.5, 2.5, 3.5), rows=rows, seed=rows) for rows in (1500, 1000)]
    copies = np.repeat(np.arange(1000), np.random.default_rng(0).integers(1, 5, 1000))
    found = select([candidates_of(*scores, in_all=RowsInAll(copies))], 0.95)
    chosen = scores[1].at(found.places)
    wrong = chosen.disagrees(chosen.exit_of_row(found.thresholds))
    assert (found.certificate.rows, found.certificate.rows_in_all) == (1000, len(copies))
    assert found.certificate.disagreement_in_all == wrong[copies].mean()


def test_too_few_rows_promise_what_they_can_show(caplog):
    given = make_candidates(rows=(1500, 100))
    with caplog.at_level(logging.WARNING):
        certificate = select([given], 0.999).certificate
    assert certificate.alpha == pytest.approx(1 - 0.05 ** (1 / 100))
    assert certificate.disagreements == 0
    assert "100 distinct calibration rows cannot certify an agreement of 99.90%: that needs 2995" in caplog.text


def test_what_few_rows_can_show_is_certified_by_rows_without_a_disagreement():
    for rows in range(50, 1000):
        shown = promises.what_can_be_certified(Guarantee(1e-6, 0.05), rows)
        assert fixed_sequence(np.array([0]), rows, shown) == 0, rows


# The guarantee: guarantee.md, G.9

ALPHA, DELTA, DRAWS, DRAWS_A_PATH = 0.02, 0.05, 300, 20


@pytest.fixture(scope="module")
def everyone():
    """Rows by the model as it was given, and by a form of it that may be wrong on some even at its end."""
    strengths = (0.8, 1.6, 2.4)
    return [make_scores(strengths, rows=100_000), make_scores(strengths, rows=100_000, wrong_at_end=0.015)]


def violations(everyone, monkeypatch, calibration_rows, draws=DRAWS, ordering_rows=400):
    """How often the policy that is selected errs on more than ALPHA of all rows, and how often it is of each variant.

    Given its path the certificate of every draw is broken with a chance of at most DELTA, so that draws may share one.
    """
    rng = np.random.default_rng(calibration_rows)
    broken, taken = 0, [0, 0]
    for _ in range(draws // DRAWS_A_PATH):
        places = rng.integers(0, everyone[0].rows, ordering_rows)
        ordering = [take_rows(scores, places) for scores in everyone]
        path, risk = None, {}
        for _ in range(DRAWS_A_PATH):
            places = rng.integers(0, everyone[0].rows, calibration_rows)
            drawn = [take_rows(scores, places) for scores in everyone]
            pairs = zip(ordering, drawn, (GIVEN, CHEAP), (1.0, 0.5), strict=True)
            variants = [candidates_of(*each) for each in pairs]
            if path is None:
                path = search([candidates.to_search(None) for candidates in variants])
                monkeypatch.setattr(selection, "search", lambda _, path=path: path)
            found = select(variants, 1 - ALPHA)
            place = found.path.chosen
            if place not in risk:
                risk[place] = share_wrong(everyone[found.variant].at(found.places), found.thresholds)
            broken += risk[place] > ALPHA
            taken[found.variant] += 1
    return broken / draws, taken


@pytest.mark.parametrize("rows", [300, 1000])
def test_a_certificate_over_two_variants_is_broken_no_more_often_than_it_says(everyone, monkeypatch, rows):
    broken, taken = violations(everyone, monkeypatch, rows)
    assert broken <= at_most(DELTA, DRAWS)
    assert min(taken) > 0.02 * DRAWS  # either is taken now and then


def test_the_simulation_catches_who_takes_the_last_policy_that_looks_good(everyone, monkeypatch):
    def last_below(disagreements, rows, guarantee):
        return int(np.flatnonzero(disagreements / rows <= guarantee.max_disagreement)[-1])

    monkeypatch.setattr(promises, "fixed_sequence", last_below)
    assert violations(everyone, monkeypatch, 1000, draws=100)[0] > 0.25
