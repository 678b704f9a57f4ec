"""What a policy makes of off-ramps' answers, and that a certificate holds as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rates import at_most
from scipy.stats import beta
from score_samples import take_rows

from moco_rt.certification.exit_scores import ExitScores, count_exits, last_certified
from moco_rt.certification.greedy_path import expected_errors, find_path
from moco_rt.statistics.bounds import allowed_errors
from moco_rt.statistics.guarantee import Guarantee

INF = math.inf


def answers(predicted, score, given, full=None):
    labels = None if full is None else np.array(full)
    return ExitScores.of_labels(np.array(predicted), np.array(score, np.float32), np.array(given), labels)


def thresholds(*sites):
    return np.array(sites, np.float32)


# Who leaves where


def test_the_first_exit_that_fires_wins():
    said = answers([[0, 0, 0, 0]] * 3, [[9, 1, 1, 1], [9, 9, 1, 1], [9, 9, 9, 1]], [0, 0, 0, 0])
    assert said.exit_of_row(thresholds([5, 5], [5, 5], [5, 5])).tolist() == [0, 1, 2, 3]


def test_thresholds_are_those_of_the_predicted_class():
    said = answers([[0, 1, 0, 1], [1, 1, 0, 0]], [[3, 3, 3, 3], [3, 3, 3, 3]], [0, 0, 0, 0])
    assert said.exit_of_row(thresholds([2, 4], [4, 2])).tolist() == [0, 1, 0, 2]


def test_a_score_must_exceed_its_threshold():
    above = np.nextafter(np.float32(0.9), np.float32(1))
    said = answers([[0, 0]], [[0.9, above]], [0, 0])
    assert said.exit_of_row(thresholds([0.9, 0])).tolist() == [1, 0]


@pytest.mark.parametrize(("threshold", "leaves"), [(INF, [1, 1, 1]), (-INF, [0, 0, 0])])
def test_infinite_thresholds_mean_nobody_and_everybody(threshold, leaves):
    said = answers([[0, 1, 1]], [[-1e30, 0, 1e30]], [0, 0, 0])
    assert said.exit_of_row(thresholds([threshold, threshold])).tolist() == leaves


def test_a_score_that_is_no_number_never_leaves():
    said = answers([[0, 0], [0, 0]], [[math.nan, math.nan], [math.nan, 1]], [0, 0])
    assert said.exit_of_row(thresholds([-INF, -INF], [-INF, -INF])).tolist() == [2, 1]


def test_no_exit_is_right_where_the_given_model_says_nan_and_an_end_is_where_it_does_too():
    nan = np.array([[True, True, False, False], [True, False, True, False]])
    zeros = np.zeros(4, np.int64)
    said = ExitScores.of_labels(zeros[None], np.ones((1, 4), np.float32), zeros, zeros, nan)
    assert said.wrong.tolist() == [[True, True, False, False], [False, True, True, False]]


PREDICTED = [[0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]]  # by site, of four rows


@pytest.mark.parametrize(
    ("patience", "leaves"),
    [(1, [0, 0, 0, 0]), (2, [1, 2, 1, 1]), (3, [2, 3, 4, 4]), (4, [3, 4, 4, 4]), (5, [4, 4, 4, 4])],
)
def test_patience_counts_sites_in_a_row_that_agree(patience, leaves):
    said = answers(PREDICTED, np.ones((4, 4)), [0] * 4)
    assert said.exit_of_row(np.full((4, 2), -INF, np.float32), patience).tolist() == leaves


def test_the_site_where_a_patient_row_leaves_must_itself_be_sure():
    said = answers(PREDICTED, [[9] * 4, [9] * 4, [1] * 4, [9] * 4], [0] * 4)
    assert said.exit_of_row(np.full((4, 2), 5, np.float32), 3).tolist() == [3, 3, 4, 4]
    # Sites that agree count whether they are sure or not.
    said = answers(PREDICTED, [[1] * 4, [1] * 4, [9] * 4, [9] * 4], [0] * 4)
    assert said.exit_of_row(np.full((4, 2), 5, np.float32), 3).tolist() == [2, 3, 4, 4]


# Who leaves wrongly


def test_a_row_is_wrong_if_it_leaves_with_another_label_than_the_full_models():
    said = answers([[0, 1, 2], [1, 1, 0]], np.zeros((2, 3)), [0, 1, 1])
    assert said.disagrees(np.array([0, 0, 0])).tolist() == [False, False, True]
    assert said.disagrees(np.array([1, 1, 1])).tolist() == [True, False, True]
    assert said.disagrees(np.array([2, 2, 2])).tolist() == [False, False, False]  # who runs to the end is never wrong
    assert said.disagrees(np.array([0, 1, 2])).tolist() == [False, False, False]


def test_where_another_form_of_the_model_runs_its_own_answers_may_be_wrong():
    said = answers([[0, 1, 2]], np.zeros((1, 3)), [0, 1, 1], full=[0, 2, 1])
    assert said.wrong.tolist() == [[False, False, True], [False, True, False]]
    assert said.disagrees(np.array([1, 1, 1])).tolist() == [False, True, False]
    assert said.disagrees(np.array([0, 0, 0])).tolist() == [False, False, True]
    assert said.given.tolist() == [0, 1, 1]


def test_a_row_has_the_label_of_its_way_out():
    said = answers([[0, 1, 2], [1, 1, 0]], np.zeros((2, 3)), [0, 1, 1], full=[2, 2, 2])
    assert said.label_of_row(np.array([0, 1, 2])).tolist() == [0, 1, 2]
    assert said.label_of_row(np.array([2, 2, 0])).tolist() == [2, 2, 2]


def test_a_task_without_labels_is_right_or_wrong_all_the_same():
    wrong = np.array([[False, True], [False, False]])
    said = ExitScores(np.zeros((1, 2), np.int64), np.float32([[0.9, 0.8]]), wrong)
    assert said.rows == 2
    assert said.exit_of_row(thresholds([0.85])).tolist() == [0, 1]
    assert said.disagrees(np.array([0, 0])).tolist() == [False, True]
    assert said.label_of_row(np.array([0, 1])) is None
    assert said.at([]).wrong.tolist() == [[False, False]]
    assert said.at([]).labels is None


@pytest.mark.parametrize("exits", [[], [0], [2], [0, 2], [2, 0], [0, 1, 2]])
def test_scores_of_some_exits_are_theirs_and_the_end_stays(exits):
    rng = np.random.default_rng(0)
    given, full = rng.integers(0, 2, (2, 20))
    said = answers(rng.integers(0, 2, (3, 20)), rng.random((3, 20)), given, full)
    some = said.at(exits)
    assert some.rows == 20
    assert some.score.tolist() == [said.score[exit].tolist() for exit in exits]
    assert some.group.tolist() == [said.group[exit].tolist() for exit in exits]
    assert some.wrong.tolist() == [said.wrong[exit].tolist() for exit in [*exits, 3]]
    assert some.labels.tolist() == [said.labels[exit].tolist() for exit in [*exits, 3]]
    assert some.given is said.given


# The certificate


def one_site(rows, wrong):
    """ExitScores of one site, right but for the first rows."""
    predicted = np.zeros((1, rows), int)
    predicted[0, :wrong] = 1
    return answers(predicted, np.ones((1, rows)), np.zeros(rows, int))


def test_policies_are_certified_up_to_the_first_with_more_errors_than_allowed():
    rows, alpha = 1000, 0.01
    assert allowed_errors(rows, Guarantee(alpha, 0.05)) == 4
    said = one_site(rows, 10)
    # Who leaves is given by row: so many of the rows that would be wrong, and some that are right.
    leaving = [np.where(np.arange(rows) < wrong, 0, 1) for wrong in (0, 2, 4, 6, 1)]
    assert last_certified(leaving, said, Guarantee(alpha, 0.05)) == 2
    assert last_certified(leaving[3:], said, Guarantee(alpha, 0.05)) == -1
    assert last_certified(leaving[:2], said, Guarantee(alpha, 0.05)) == 1


def test_rows_that_leave_rightly_cost_no_certificate():
    said = one_site(299, 0)
    assert last_certified([np.ones(299, int), np.zeros(299, int)], said, Guarantee(0.01, 0.05)) == 1


@pytest.mark.parametrize("rows", [1, 298])
def test_too_few_rows_certify_not_even_that_nobody_leaves(rows):
    assert last_certified([np.ones(rows, int)], one_site(rows, 0), Guarantee(0.01, 0.05)) == -1


def test_exits_are_counted_by_site_and_class():
    said = answers(
        [[0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 2, 0]],
        [[9, 9, 9, 9, 1, 1, 1], [0, 0, 0, 0, 9, 9, 1]],
        [0, 1, 1, 1, 0, 1, 0],
    )
    counts = count_exits(said, thresholds([5, 5, 5], [5, 5, 5]), ["embeddings", "encoder.1.attention"], 0.05)
    assert [(count.site, count.predicted_class, count.fired, count.wrong) for count in counts] == [
        ("embeddings", 0, 2, 1),
        ("embeddings", 1, 2, 0),
        ("encoder.1.attention", 0, 1, 0),
        ("encoder.1.attention", 2, 1, 1),
    ]
    # All that could be counted hold together: two exits, three classes.
    each = 1 - 0.05 / 6
    bounds = [beta.ppf(each, 2, 1), beta.ppf(each, 1, 2), beta.ppf(each, 1, 1), 1]
    assert [count.upper_bound for count in counts] == pytest.approx(bounds)


def test_the_classes_of_one_exit_share_the_confidence_whether_they_leave_or_not():
    (count,) = count_exits(one_site(872, 0), thresholds([0, 0]), ["embeddings"], 0.1)
    assert f"{100 * count.upper_bound:.3f}" == "0.343"


def test_where_nobody_leaves_there_is_nothing_to_count():
    assert count_exits(one_site(50, 3), thresholds([INF, INF]), ["embeddings"], 0.05) == ()


# The guarantee: guarantee.md, G.9

ALPHA, DELTA, DRAWS = 0.02, 0.05, 1000


def population(rows=100_000, sites=3, seed=0):
    """Rows of which deeper sites know more; the surer a site, the rarer it errs, though never quite to zero."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    evidence = rng.normal(0, 1, (sites, rows)) + np.linspace(1.2, 2.2, sites)[:, None] * (2 * label - 1)
    predicted = (evidence > 0).astype(np.int64)
    # Some rows look sure and are not: no threshold is safe.
    predicted ^= rng.random((sites, rows)) < 0.004
    return answers(predicted, 1 / (1 + np.exp(-2 * np.abs(evidence))), label)


def last_below(disagreements, rows, guarantee):
    """What one must not do: the last policy that errs on a share of at most alpha of the calibration rows."""
    return int(np.flatnonzero(disagreements / rows <= guarantee.max_disagreement)[-1])


@pytest.fixture(scope="module")
def everyone():
    return population()


def violations(everyone, certify, calibration_rows, draws=DRAWS, draws_a_path=20):
    """How often the policy that is certified errs on more than ALPHA of all rows, and how far along its path it lies.

    Given its path the certificate of every draw is broken with a chance of at most DELTA, so that draws may share one.
    """
    rng = np.random.default_rng(calibration_rows)
    rows = everyone.rows
    broken, places = 0, []
    for _ in range(draws // draws_a_path):
        ordering = take_rows(everyone, rng.integers(0, rows, 500))
        seconds = np.tile(np.arange(1.0, 5), (500, 1))
        steps = find_path(ordering, expected_errors(ordering, 2), seconds, 2, policies=400)
        path = [steps.thresholds(place) for place in range(0, len(steps.errors), len(steps.errors) // 80)]
        risk = {}
        for _ in range(draws_a_path):
            said = take_rows(everyone, rng.integers(0, rows, calibration_rows))
            place = certify([said.exit_of_row(levels) for levels in path], said, Guarantee(ALPHA, DELTA))
            if place not in risk:
                risk[place] = 0.0 if place < 0 else everyone.disagrees(everyone.exit_of_row(path[place])).mean()
            broken += risk[place] > ALPHA
            places.append(place)
    return broken / draws, places


@pytest.mark.parametrize("rows", [300, 1000])
def test_a_certificate_is_broken_no_more_often_than_it_says(everyone, rows):
    broken, places = violations(everyone, last_certified, rows)
    assert broken <= at_most(DELTA, DRAWS)
    # It would hold for a policy by which nobody leaves, too.
    assert np.mean(places) > 5


def test_the_simulation_catches_who_takes_the_last_policy_that_looks_good(everyone, monkeypatch):
    monkeypatch.setattr("moco_rt.certification.exit_scores.fixed_sequence", last_below)
    broken, _ = violations(everyone, last_certified, 1000, draws=200)
    assert broken > 0.25
