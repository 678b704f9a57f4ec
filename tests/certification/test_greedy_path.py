"""Greedy paths: what is on them, in which order, and that they know what their policies cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from score_samples import ROWS, make_scores, mean_seconds, share_wrong

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.greedy_path import expected_errors, find_path

POLICIES = 1000


def rising(rows, exits):
    """One second to the first exit and between each two."""
    return np.tile(np.arange(1.0, exits + 2), (rows, 1))


def path_of(scores, seconds, classes, policies=POLICIES):
    return find_path(scores, expected_errors(scores, classes), seconds, classes, policies)


def policies_of(path):
    return [path.thresholds(place) for place in range(len(path.errors))]


# What is on a path


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("exits", [1, 2, 4])
def test_a_path_leads_from_nobody_to_everybody(classes, exits):
    scores = make_scores(np.linspace(1, 2, exits), classes)
    path = path_of(scores, rising(ROWS, exits), classes)
    policies = policies_of(path)
    assert path.shape == (exits, classes)
    assert all(thresholds.shape == (exits, classes) and thresholds.dtype == np.float32 for thresholds in policies)
    assert np.isposinf(policies[0]).all()
    assert np.isneginf(policies[-1]).all()
    assert (scores.exit_of_row(policies[0]) == exits).all()
    assert (scores.exit_of_row(policies[-1]) == 0).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_every_step_loosens_one_threshold(classes):
    path = path_of(make_scores(classes=classes), rising(ROWS, 2), classes)
    policies = policies_of(path)
    assert len(policies) == len(path.steps) + 1 == len(path.levels) + 1 == len(path.seconds) > 20
    for before, after, (exit, group) in zip(policies, policies[1:], path.steps, strict=False):
        assert (after <= before).all()
        assert set(zip(*np.nonzero(after != before), strict=True)) <= {(exit, group)}  # none: ties left nothing


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("wrong_at_end", [0.0, 0.05])
def test_a_path_knows_what_its_policies_cost(classes, seed, wrong_at_end):
    rng = np.random.default_rng(seed)
    scores = make_scores((0.5, 1.0, 2.0), classes, seed=seed, wrong_at_end=wrong_at_end)
    ranks = scores.score.argsort(axis=1).argsort(axis=1)
    scores = replace(scores, score=np.linspace(0.5, 0.99, ROWS, dtype=np.float32)[ranks])  # no two rows' are the same
    seconds = np.cumsum(rng.exponential(1, (ROWS, 4)), axis=1)  # another for every row
    risk = expected_errors(scores, classes)
    path = find_path(scores, risk, seconds, classes, POLICIES)
    by_way = np.vstack([(risk + scores.wrong[:-1]) / 2, scores.wrong[-1]])  # half counted, half expected
    for place, thresholds in enumerate(policies_of(path)):
        exits = scores.exit_of_row(thresholds)
        assert path.seconds[place] == pytest.approx(mean_seconds(scores, thresholds, seconds))
        assert path.errors[place] == pytest.approx(by_way[exits, np.arange(ROWS)].mean(), abs=1e-9)
    assert path.errors[0] == scores.wrong[-1].mean()
    assert (np.diff(path.seconds) <= 1e-12).all()


def test_without_exits_there_is_one_policy():
    scores = make_scores(wrong_at_end=0.1).at([])
    path = path_of(scores, np.full((ROWS, 1), 3.0), 2)
    assert path.thresholds(0).shape == (0, 2)
    assert path.errors.tolist() == [scores.wrong[-1].mean()]
    assert path.seconds.tolist() == [3.0]


def test_a_class_that_is_never_predicted_never_leaves():
    policies = policies_of(path_of(make_scores(classes=2), rising(ROWS, 2), 3))
    assert np.isposinf([thresholds[:, 2] for thresholds in policies]).all()
    assert np.isneginf(policies[-1][:, :2]).all()


def test_rows_without_a_score_never_leave_and_are_not_paid_for():
    scores = make_scores()
    scores.score[:, ::3] = np.nan
    path = path_of(scores, rising(ROWS, 2), 2)
    assert (scores.exit_of_row(path.thresholds(len(path.levels)))[::3] == 2).all()
    assert path.seconds[-1] == pytest.approx(mean_seconds(scores, np.full((2, 2), -np.inf), rising(ROWS, 2)))
    assert (expected_errors(scores, 2)[:, ::3] == 0).all()


def test_the_path_does_not_change_what_it_is_found_from():
    scores, seconds = make_scores(), rising(ROWS, 2)
    arrays = (scores.group, scores.score, scores.wrong, seconds)
    before = [array.copy() for array in arrays]
    path_of(scores, seconds, 2)
    for found, expected in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_policies_of_a_path_do_not_share_their_thresholds():
    path = path_of(make_scores(), rising(ROWS, 2), 2)
    path.thresholds(1)[:] = 0
    assert np.isposinf(path.thresholds(0)).all()
    assert np.isneginf(path.thresholds(len(path.levels))).all()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_have_a_path(rows):
    scores = make_scores(rows=rows)
    path = path_of(scores, rising(rows, 2), 2)
    assert np.isposinf(path.thresholds(0)).all()
    assert (scores.exit_of_row(path.thresholds(len(path.levels))) == 0).all()


@pytest.mark.parametrize("policies", [40, 400, 4000])
def test_a_path_has_about_as_many_policies_as_it_was_asked_for(policies):
    path = path_of(make_scores(rows=20_000), rising(20_000, 2), 2, policies)
    assert 0.3 * policies <= len(path.errors) <= policies + 1


# In which order


@pytest.mark.parametrize("classes", [2, 3])
def test_every_step_is_the_one_that_saves_most_time_per_error_added(classes):
    """Every step of an exit and group is taken at last, so that a path tells what else there was to choose from."""
    scores = make_scores((0.5, 1.0, 2.0), classes, rows=300, wrong_at_end=0.03)
    seconds = np.cumsum(np.random.default_rng(0).exponential(1, (300, 4)), axis=1)
    risk = expected_errors(scores, classes)
    path = find_path(scores, risk, seconds, classes, 100)
    by_way, rows = np.vstack([risk, np.zeros(300)]), np.arange(300)

    def worth(place, key):
        """Seconds saved per error added, were the next step of an exit and group taken in this place."""
        later = next(i for i in range(place, len(path.steps)) if tuple(path.steps[i]) == key)
        thresholds = path.thresholds(place)
        before = scores.exit_of_row(thresholds)
        thresholds[key] = path.levels[later]
        after = scores.exit_of_row(thresholds)
        added = (by_way[after, rows] - by_way[before, rows]).sum()
        return (seconds[rows, before] - seconds[rows, after]).sum() / max(added, 1e-9)

    for place, step in enumerate(path.steps):
        others = {tuple(step) for step in path.steps[place:]}
        most = max(worth(place, key) for key in others)
        assert worth(place, tuple(step)) >= most * (1 - 1e-9)


def test_what_is_wrong_at_the_end_steers_no_step():
    """That the model that runs is wrong there is no reason to let a row leave."""
    right, wrong = (make_scores((1.0, 2.0), wrong_at_end=share) for share in (0.0, 0.2))
    risk, seconds = expected_errors(right, 2), rising(ROWS, 2)
    one, other = (find_path(scores, risk, seconds, 2, POLICIES) for scores in (right, wrong))
    np.testing.assert_array_equal(one.steps, other.steps)
    np.testing.assert_array_equal(one.levels, other.levels)
    assert other.errors[0] == wrong.wrong[-1].mean()
    assert other.errors[-1] == pytest.approx(one.errors[-1])  # all have left: nobody gets to the end


def test_the_surest_rows_leave_first():
    scores = make_scores((1.5,))
    policies = policies_of(path_of(scores, rising(ROWS, 1), 2))
    # Both classes are alike here: so are their thresholds all along, as the first step of one is the first of both.
    halfway = policies[len(policies) // 2]
    assert abs(halfway[0, 0] - halfway[0, 1]) < 0.1
    left = scores.exit_of_row(halfway) == 0
    assert 0.2 < left.mean() < 0.95
    assert share_wrong(scores, halfway) < 0.5 * share_wrong(scores, policies[-1])


def test_the_class_that_errs_leaves_last():
    scores = make_scores((1.5,))
    given = scores.given.copy()
    said_so = scores.group[0] == 1
    given[said_so] = np.random.default_rng(0).integers(0, 2, said_so.sum())  # of class 1 it knows nothing
    ignorant = ExitScores.of_labels(scores.group, scores.score, given)
    policies = policies_of(path_of(ignorant, rising(ROWS, 1), 2))
    first_of_1 = next(place for place, thresholds in enumerate(policies) if thresholds[0, 1] < np.inf)
    assert (policies[first_of_1][0, 0] < 0.7) or np.isneginf(policies[first_of_1][0, 0])


@pytest.mark.parametrize("cheap", [0, 1])
def test_of_two_exits_that_know_the_same_the_one_that_saves_more_comes_first(cheap):
    scores = make_scores((1.5,)).at([0, 0])
    seconds = np.tile([9.0, 9.0, 10.0], (ROWS, 1))
    seconds[:, cheap] = 1
    policies = policies_of(path_of(scores, seconds, 2))
    # All of an exit's thresholds fall before any of the other's: who has left by the cheap one saves nothing elsewhere.
    first_of_other = next(place for place, levels in enumerate(policies) if (levels[1 - cheap] < np.inf).any())
    assert np.isneginf(policies[first_of_other][cheap]).any()


def test_costs_of_the_rows_themselves_count():
    # An exit that is as sure of long rows of class 1 as of short ones of class 0: the long ones save more.
    scores = make_scores((1.5,))
    long = scores.group[0] == 1
    seconds = np.column_stack([np.ones(ROWS), np.where(long, 100.0, 2.0)])
    path = path_of(scores, seconds, 2)
    assert np.isfinite(path.thresholds(1)).tolist() == [[False, True]]


def test_a_step_of_an_exit_that_saves_nothing_comes_last():
    scores = make_scores((2.5, 0.5))
    policies = policies_of(path_of(scores, np.tile([10.0, 1.0, 10.0], (ROWS, 1)), 2))
    first = next(place for place, thresholds in enumerate(policies) if (thresholds[0] < np.inf).any())
    assert np.isneginf(policies[first][1]).all()


# Scores that are the same


@pytest.mark.parametrize("score", [0.5, 0.9, 1.0])
def test_rows_with_one_score_leave_together(score):
    scores = make_scores()
    tied = replace(scores, score=np.full_like(scores.score, score))
    seconds = rising(ROWS, 2)
    policies = policies_of(path_of(tied, seconds, 2))
    assert (tied.exit_of_row(policies[0]) == 2).all()
    assert (tied.exit_of_row(policies[-1]) == 0).all()
    for before, after in pairwise(policies):
        assert mean_seconds(tied, after, seconds) <= mean_seconds(tied, before, seconds)
    for thresholds in policies:
        left = tied.exit_of_row(thresholds)
        for exit in range(2):
            for c in range(2):
                here = (left >= exit) & (tied.group[exit] == c)
                assert (left[here] == exit).all() or (left[here] > exit).all()


def test_rows_with_few_scores_leave_by_score():
    scores = make_scores((1.5,))
    rounded = replace(scores, score=scores.score.round(1))
    policies = policies_of(path_of(rounded, rising(ROWS, 1), 2))
    shares = {(rounded.exit_of_row(thresholds) == 0).mean() for thresholds in policies}
    assert {0, 1} < shares
    assert len(shares) <= 1 + 2 * len(np.unique(rounded.score))


# What errors weigh


def test_rows_whose_errors_weigh_more_leave_later():
    scores = make_scores((2.0,))
    heavy = np.where(scores.given == 1, 1.9, 0.1)
    seconds = rising(ROWS, 1)
    plain = find_path(scores, expected_errors(scores, 2), seconds, 2, POLICIES)
    weighed = find_path(scores, expected_errors(scores, 2, heavy), seconds, 2, POLICIES, heavy)

    def wrong_of_ones(path):
        """Share of class 1 that is wrong where eight of ten rows have left."""
        place = int(np.searchsorted(-path.seconds, -1.2))
        wrong = scores.disagrees(scores.exit_of_row(path.thresholds(place)))
        return wrong[scores.given == 1].mean()

    assert wrong_of_ones(weighed) < wrong_of_ones(plain)


def test_where_errors_of_a_class_weigh_nothing_there_is_a_path():
    scores = make_scores((2.0,))
    free = (scores.given == 1).astype(float)
    path = find_path(scores, expected_errors(scores, 2, free), rising(ROWS, 1), 2, POLICIES, free)
    assert np.isneginf(path.thresholds(len(path.steps))).all()
    assert np.isfinite(path.errors).all()
