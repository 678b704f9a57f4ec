"""The path of policies: what is on it, in which order, and which sites are worth asking."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from moco_rt.certification.calibration import wrong_curve
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.policy_search import _time_along, expected_errors, find_path, search
from moco_rt.tuning.costs import Costs

ROWS = 2000


def make_answers(strengths=(1.0, 2.0), classes=2, rows=ROWS, seed=0):
    """Off-ramps that know as much of the label as `strengths` say, by site; they score the highest probability."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1, (len(strengths), rows, classes))
    logits[:, np.arange(rows), label] += np.array(strengths)[:, None]
    probs = np.exp(2 * logits)
    probs /= probs.sum(axis=2, keepdims=True)
    return ExitScores(probs.argmax(axis=2), probs.max(axis=2).astype(np.float32), label)


def rising(rows, sites):
    """One second to the first site and between each two."""
    return np.tile(np.arange(1.0, sites + 2), (rows, 1))


def times(path, answers, seconds):
    """Mean time of a row, by policy, when it leaves where thresholds say."""
    return [seconds[np.arange(len(exits)), exits].mean() for exits in (answers.exit_of_row(levels) for levels in path)]


def path_of(answers, seconds, classes):
    return find_path(answers, expected_errors(answers, classes), seconds, classes)


def errors(path, answers):
    return [answers.disagrees(answers.exit_of_row(levels)).mean() for levels in path]


# What is on a path


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sites", [1, 2, 4])
def test_a_path_leads_from_nobody_to_everybody(classes, sites):
    answers = make_answers(np.linspace(1, 2, sites), classes)
    path = path_of(answers, rising(ROWS, sites), classes)
    assert all(thresholds.shape == (sites, classes) and thresholds.dtype == np.float32 for thresholds in path)
    assert np.isposinf(path[0]).all()
    assert np.isneginf(path[-1]).all()
    assert (answers.exit_of_row(path[0]) == sites).all()
    assert (answers.exit_of_row(path[-1]) == 0).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_every_step_loosens_one_threshold(classes):
    path = path_of(make_answers(classes=classes), rising(ROWS, 2), classes)
    assert len(path) > 20
    for before, after in pairwise(path):
        assert (after <= before).all()
        assert (after != before).sum() <= 1  # none where ties left nothing to loosen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 4])
def test_time_never_grows_along_a_path(classes, seed):
    rng = np.random.default_rng(seed)
    answers = make_answers((0.5, 1.0, 2.0), classes, seed=seed)
    seconds = np.cumsum(rng.exponential(1, (ROWS, 4)), axis=1)  # another for every row
    taken = times(path_of(answers, seconds, classes), answers, seconds)
    assert taken[0] == pytest.approx(seconds[:, 3].mean())
    assert taken[-1] == pytest.approx(seconds[:, 0].mean())
    assert (np.diff(taken) <= 1e-12).all()


def test_a_class_that_is_never_predicted_never_leaves():
    answers = make_answers(classes=2)
    path = path_of(answers, rising(ROWS, 2), 3)
    assert np.isposinf([thresholds[:, 2] for thresholds in path]).all()
    assert np.isneginf(path[-1][:, :2]).all()


def test_the_path_does_not_change_what_it_is_found_from():
    answers, seconds = make_answers(), rising(ROWS, 2)
    before = (answers.predicted.copy(), answers.score.copy(), answers.label.copy(), seconds.copy())
    path_of(answers, seconds, 2)
    for found, expected in zip((answers.predicted, answers.score, answers.label, seconds), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_policies_of_a_path_do_not_share_their_thresholds():
    path = path_of(make_answers(), rising(ROWS, 2), 2)
    path[1][:] = 0
    assert np.isposinf(path[0]).all()
    assert np.isneginf(path[-1]).all()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_have_a_path(rows):
    answers = make_answers(rows=rows)
    path = path_of(answers, rising(rows, 2), 2)
    assert np.isposinf(path[0]).all()
    assert (answers.exit_of_row(path[-1]) == 0).all()


# In which order


def test_the_surest_rows_leave_first():
    answers = make_answers((1.5,))
    path = path_of(answers, rising(ROWS, 1), 2)
    # Both classes are alike here: so are their thresholds all along, as the first step of one is the first of both.
    halfway = path[len(path) // 2]
    assert abs(halfway[0, 0] - halfway[0, 1]) < 0.1
    left = answers.exit_of_row(halfway) == 0
    assert 0.2 < left.mean() < 0.95
    assert errors([halfway], answers)[0] < 0.5 * errors([path[-1]], answers)[0]


def test_the_class_that_errs_leaves_last():
    answers = make_answers((1.5,))
    label = answers.label.copy()
    said_so = answers.predicted[0] == 1
    label[said_so] = np.random.default_rng(0).integers(0, 2, said_so.sum())  # of class 1 it knows nothing
    path = path_of(ExitScores(answers.predicted, answers.score, label), rising(ROWS, 1), 2)
    first_of_1 = next(place for place, thresholds in enumerate(path) if thresholds[0, 1] < np.inf)
    assert (path[first_of_1][0, 0] < 0.7) or np.isneginf(path[first_of_1][0, 0])


@pytest.mark.parametrize("cheap", [0, 1])
def test_of_two_sites_that_know_the_same_the_one_that_saves_more_comes_first(cheap):
    answers = make_answers((1.5,)).at([0, 0])
    seconds = np.tile([9.0, 9.0, 10.0], (ROWS, 1))
    seconds[:, cheap] = 1
    path = path_of(answers, seconds, 2)
    # All of a site's thresholds fall before any of the other's: who has left by the cheap one saves nothing elsewhere.
    first_of_other = next(place for place, thresholds in enumerate(path) if (thresholds[1 - cheap] < np.inf).any())
    assert np.isneginf(path[first_of_other][cheap]).any()


def test_costs_of_the_rows_themselves_count():
    # A site that is as sure of long rows of class 1 as of short ones of class 0: the long ones save more.
    answers = make_answers((1.5,))
    long = answers.predicted[0] == 1
    seconds = np.column_stack([np.ones(ROWS), np.where(long, 100.0, 2.0)])
    path = path_of(answers, seconds, 2)
    assert np.isfinite(path[1]).tolist() == [[False, True]]


def test_a_step_at_a_site_that_saves_nothing_comes_last():
    answers = make_answers((2.5, 0.5))
    seconds = np.tile([10.0, 1.0, 10.0], (ROWS, 1))
    path = path_of(answers, seconds, 2)
    first = next(place for place, thresholds in enumerate(path) if (thresholds[0] < np.inf).any())
    assert np.isneginf(path[first][1]).all()


# Scores that are the same


@pytest.mark.parametrize("score", [0.5, 0.9, 1.0])
def test_rows_with_one_score_leave_together(score):
    answers = make_answers()
    tied = ExitScores(answers.predicted, np.full_like(answers.score, score), answers.label)
    seconds = rising(ROWS, 2)
    path = path_of(tied, seconds, 2)
    assert (tied.exit_of_row(path[0]) == 2).all()
    assert (tied.exit_of_row(path[-1]) == 0).all()
    assert (np.diff(times(path, tied, seconds)) <= 0).all()
    for thresholds in path:
        left = tied.exit_of_row(thresholds)
        for site in range(2):
            for c in range(2):
                here = (left >= site) & (tied.predicted[site] == c)
                assert (left[here] == site).all() or (left[here] > site).all()


def test_rows_with_few_scores_leave_by_score():
    answers = make_answers((1.5,))
    rounded = ExitScores(answers.predicted, answers.score.round(1), answers.label)
    path = path_of(rounded, rising(ROWS, 1), 2)
    shares = {(rounded.exit_of_row(thresholds) == 0).mean() for thresholds in path}
    assert {0, 1} < shares
    assert len(shares) <= 1 + 2 * len(np.unique(rounded.score))


# The curve of wrong answers


def curve_of(strength, rows=20_000, seed=0):
    answers = make_answers((strength,), rows=rows, seed=seed)
    wrong = answers.predicted[0] != answers.label
    return answers.score[0], wrong, wrong_curve(answers.score[0], wrong)


@pytest.mark.parametrize("strength", [0.5, 1.5, 3.0])
def test_the_curve_finds_the_share_of_wrong_answers(strength):
    score, wrong, curve = curve_of(strength)
    assert curve.mean() == pytest.approx(wrong.mean(), abs=1e-3)
    for rows in np.array_split(np.argsort(score), 5):
        assert curve[rows].mean() == pytest.approx(wrong[rows].mean(), abs=0.03)


def test_the_curve_is_the_logistic_one_that_the_labels_came_from():
    rng = np.random.default_rng(0)
    z = rng.normal(1, 2, 50_000)
    wrong = rng.random(50_000) < expit(-1 - 0.7 * z)
    curve = wrong_curve(expit(z).astype(np.float32), wrong)
    np.testing.assert_allclose(curve, expit(-1 - 0.7 * z), atol=0.02)


def assert_falls_with_the_score(score, curve):
    assert np.isfinite(curve).all()
    assert ((curve >= 0) & (curve <= 1)).all()
    assert (np.diff(curve[np.argsort(score, kind="stable")]) <= 1e-12).all()


@pytest.mark.parametrize("rows", [10, 1000, 20_000])
def test_the_curve_falls_where_sure_answers_are_right(rows):
    score, _, curve = curve_of(1.0, rows)
    assert_falls_with_the_score(score, curve)


@pytest.mark.parametrize("rows", [1, 2, 100, 10_000])
@pytest.mark.parametrize("wrong", [False, True])
def test_the_curve_is_level_where_all_answers_are_alike(rows, wrong):
    score = np.random.default_rng(0).uniform(0.5, 1, rows).astype(np.float32)
    curve = wrong_curve(score, np.full(rows, wrong))
    assert_falls_with_the_score(score, curve)
    # Half an error of each kind is added, and a prior pulls a little.
    np.testing.assert_allclose(curve, (rows + 0.5) / (rows + 1) if wrong else 0.5 / (rows + 1), rtol=0.03)


@pytest.mark.parametrize(
    ("rows", "errors", "lowest"),
    [
        *((rows, errors, 0.5) for rows, errors in [(100, 1), (1000, 5), (5000, 10), (20_000, 1), (20_000, 20)]),
        *((rows, errors, 0.0) for rows, errors in [(100, 1), (1000, 5), (20_000, 1)]),
        pytest.param(5000, 10, 0.0),
        pytest.param(20_000, 20, 0.0),
    ],
)
def test_the_curve_falls_where_only_the_least_sure_answers_are_wrong(rows, errors, lowest):
    score = np.sort(np.random.default_rng(0).uniform(lowest, 1, rows)).astype(np.float32)
    curve = wrong_curve(score, np.arange(rows) < errors)
    assert_falls_with_the_score(score, curve)
    assert curve[0] > 2 * curve[-1]


@pytest.mark.parametrize("rows", [1000, 20_000])
@pytest.mark.parametrize("heavy", [0, 5])
def test_the_curve_holds_with_scores_of_zero_and_one(rows, heavy):
    rng = np.random.default_rng(0)
    score = expit(rng.normal(0, 1 + 10 * heavy, rows)).astype(np.float32)
    score[:10], score[10:20] = 0, 1
    curve = wrong_curve(score, rng.random(rows) > score)
    assert_falls_with_the_score(score, curve)


@pytest.mark.parametrize("steepness", [1, 2, 5])
@pytest.mark.parametrize("surest", [0, pytest.param(20)], ids=["many unsure", "few unsure"])
@pytest.mark.parametrize("rows", [5000, 20_000])
def test_the_curve_falls_however_sharply_errors_end(rows, surest, steepness):
    rng = np.random.default_rng(4)
    z = np.abs(rng.normal(surest, 10, rows))  # the logit of the higher of two probabilities
    score = expit(z).astype(np.float32)
    assert_falls_with_the_score(score, wrong_curve(score, rng.random(rows) < expit(-steepness * z)))


def test_the_curve_of_one_score_is_the_share():
    wrong = np.arange(100) < 25
    np.testing.assert_allclose(wrong_curve(np.full(100, 0.75, np.float32), wrong), 0.25, atol=0.01)


# Which off-ramps are worth asking


def costs(reach, ask, once=0.0, lengths=(10.0, 100.0)):
    """Costs that grow with the length: those given are of rows of the first; all off-ramps cost alike to ask."""
    growth = np.array(lengths)[:, None] / lengths[0]
    asked = np.full(len(reach) - 1, ask)
    return Costs(np.array(lengths), growth * np.array(reach), growth * asked, np.append(np.full_like(asked, once), 0))


def find(answers, measured, alpha, classes=2, sites=None):
    """What `search` finds where every off-ramp has a site of its own, or those given."""
    return search(answers, sites or [str(e) for e in range(len(answers.score))], measured, LENGTHS, alpha, classes)


LENGTHS = np.random.default_rng(0).integers(10, 100, ROWS)


def test_a_useful_off_ramp_is_chosen():
    chosen, path = find(make_answers((3.0,)), costs([1.0, 10.0], 0.01), 0.05)
    assert chosen == [0]
    assert path[0].shape == (1, 2)


def test_off_ramps_that_are_all_useful_are_all_chosen():
    answers = make_answers((1.5, 2.5, 3.5))
    chosen, path = find(answers, costs([1.0, 4.0, 7.0, 10.0], 0.0), 0.02)
    assert chosen == [0, 1, 2]
    assert path[0].shape == (3, 2)


@pytest.mark.parametrize("useless", [0, 1, 2])
def test_an_off_ramp_that_knows_nothing_is_left_out_where_asking_costs(useless):
    strengths = [3.0, 3.2, 3.4]
    strengths[useless] = 0.0
    chosen, path = find(make_answers(strengths), costs([1.0, 4.0, 7.0, 10.0], 2.0), 0.01)
    assert useless not in chosen
    assert chosen
    assert path[0].shape == (len(chosen), 2)


@pytest.mark.parametrize("dear", [{"ask": 3.0}, {"ask": 0.0, "once": 10.0}], ids=["each row", "once"])
def test_an_off_ramp_is_chosen_by_what_asking_costs(dear):
    answers = make_answers((0.8, 3.5))
    assert find(answers, costs([1.0, 5.0, 10.0], 0.0), 0.01)[0] == [0, 1]
    assert find(answers, costs([1.0, 5.0, 10.0], **dear), 0.01)[0] == [1]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["better first", "better last"])
def test_of_two_off_ramps_at_one_site_the_better_is_chosen(order):
    answers = make_answers((3.0, 2.0)).at(order)
    chosen, _ = find(answers, costs([1.0, 1.0, 10.0], 0.1), 0.02, sites=["here", "here"])
    assert chosen == [order.index(0)]


def test_of_two_off_ramps_that_know_the_same_the_cheaper_is_chosen():
    measured = costs([1.0, 1.0, 5.0, 5.0, 10.0], 0.5)
    measured.scoring[:, [1, 2]] = 0.1
    answers = make_answers((2.0, 3.0)).at([0, 0, 1, 1])
    chosen, path = find(answers, measured, 0.02, sites=["early", "early", "late", "late"])
    assert chosen == [1, 2]
    assert path[0].shape == (2, 2)


def test_the_last_off_ramp_stays_though_it_does_not_pay():
    chosen, path = find(make_answers((0.0, 0.0)), costs([1.0, 5.0, 10.0], 20.0), 0.001)
    assert len(chosen) == 1
    assert np.isposinf(path[0]).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.005, 0.05])
def test_the_path_found_is_faster_and_as_good_as_asked_for(classes, alpha):
    answers = make_answers((2.0, 3.0, 4.0), classes)
    measured = costs([1.0, 4.0, 7.0, 10.0], 0.1)
    chosen, path = find(answers, measured, alpha, classes)
    some, seconds = answers.at(chosen), measured.seconds(LENGTHS, chosen)
    good = [place for place, error in enumerate(errors(path, some)) if error <= alpha]
    assert path[0].shape == (len(chosen), classes)
    assert times(path, some, seconds)[good[-1]] < measured.seconds(LENGTHS, []).mean()


def test_looser_errors_are_never_slower():
    answers, measured = make_answers((1.0, 2.0, 3.0)), costs([1.0, 4.0, 7.0, 10.0], 0.1)
    fastest = []
    for alpha in (0.001, 0.01, 0.1):
        chosen, path = find(answers, measured, alpha)
        some, seconds = answers.at(chosen), measured.seconds(LENGTHS, chosen)
        good = [t for t, e in zip(times(path, some, seconds), errors(path, some), strict=True) if e <= alpha]
        fastest.append(min(good))
    assert fastest[0] >= fastest[1] >= fastest[2]


# Where a search starts from


@pytest.fixture
def find_within(monkeypatch):
    """`find_within(groups, answers, measured, alpha)`: what is chosen, and the time of a row on its path at alpha."""
    monkeypatch.setattr("moco_rt.certification.policy_search._FEWER", 200)

    def find(groups, answers, measured, alpha, sites=None):
        sites, lengths = sites or [str(e) for e in range(len(answers.score))], LENGTHS[: len(answers.label)]
        chosen, path = search(answers, sites, measured, lengths, alpha, 2, groups)
        assert path[0].shape == (len(chosen), 2)
        risk = expected_errors(answers, 2)[chosen]
        return chosen, _time_along(answers.at(chosen), risk, measured.seconds(lengths, chosen), alpha, 2)

    return find


@pytest.mark.parametrize("seed", range(4))
def test_from_the_best_of_some_groups_a_search_gets_no_slower(find_within, seed):
    rng = np.random.default_rng(seed)
    answers = make_answers(rng.uniform(0.5, 4, 4), rows=500, seed=seed)
    measured = costs([*np.sort(rng.uniform(1, 10, 4)), 10.0], rng.uniform(0, 2))
    groups = [[0, 1], [1, 3], [2], [0, 1, 2, 3]]
    alone = [find_within([group], answers, measured, 0.03)[1] for group in groups]
    assert find_within(groups, answers, measured, 0.03)[1] <= min(alone)


@pytest.mark.parametrize("group", [[0, 2], [1], [2, 1]], ids=str)
def test_what_is_in_no_group_is_not_chosen(find_within, group):
    answers, measured = make_answers((3.0, 3.0, 3.0), rows=500), costs([1.0, 4.0, 7.0, 10.0], 0.0)
    chosen, _ = find_within([group], answers, measured, 0.02)
    assert set() < set(chosen) <= set(group)


def test_without_groups_all_are_one(find_within):
    answers, measured = make_answers((1.5, 2.5, 3.5), rows=500), costs([1.0, 4.0, 7.0, 10.0], 0.3)
    expected = find_within(None, answers, measured, 0.02)
    for groups in ([[2, 0, 1]], [[], range(3)]):
        assert find_within(groups, answers, measured, 0.02) == expected


@pytest.mark.parametrize("groups", [[[1], [0, 1]], [[0], [0, 1]]], ids=str)
def test_of_one_site_at_most_one_is_chosen_whatever_the_groups(find_within, groups):
    answers, measured = make_answers((2.0, 3.0), rows=500), costs([1.0, 1.0, 10.0], 0.1)
    assert find_within(groups, answers, measured, 0.02, sites=["here", "here"])[0] == [1]
