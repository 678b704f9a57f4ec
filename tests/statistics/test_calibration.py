"""Temperature scaling, and how likely a row with a given score is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from score_samples import make_scores

from moco_rt.statistics.calibration import calibration_error, fit_log_odds, fit_temperature, wrong_curve


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_the_one_the_labels_came_from(classes, temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(logits, np.eye(classes)[labels]) == pytest.approx(temperature, rel=0.07)


@pytest.mark.parametrize(("right", "lowest", "highest"), [(True, 0, 0.06), (False, 19, 21)])
def test_the_temperature_stays_in_bounds_where_all_labels_are_right_or_wrong(right, lowest, highest):
    logits = np.random.default_rng(0).normal(0, 5, (500, 2))
    labels = logits.argmax(axis=1)
    found = fit_temperature(logits, np.eye(2)[labels if right else 1 - labels])
    assert lowest < found < highest


def test_rows_that_are_not_finite_are_left_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (500, 2))
    probs = np.full((500, 2), 0.5)
    certain = np.array([[-np.inf, 0.0]])
    assert fit_temperature(np.vstack([logits, certain]), np.vstack([probs, [[0, 1]]])) == fit_temperature(logits, probs)
    assert fit_temperature(certain, np.array([[0.0, 1.0]])) == 1.0


# Lines of log-odds


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.3, 2.5), (2.0, -1.0)])
def test_the_line_is_the_one_that_log_odds_came_from_whatever_some_rows_say(slope, shift):
    rng = np.random.default_rng(0)
    own = rng.normal(4, 1.5, 3000)
    given = slope * own + shift + 0.2 * rng.normal(size=3000)
    given[:150] *= -1  # the other model's class is another one
    assert fit_log_odds(own, given) == pytest.approx((slope, shift), abs=0.15)


def test_surer_rows_never_become_less_sure():
    own = np.linspace(1, 5, 100)
    slope, shift = fit_log_odds(own, 6 - own)
    assert slope == pytest.approx(0, abs=1e-3)
    assert shift == pytest.approx(3, abs=0.05)


def test_few_rows_or_broken_ones_say_nothing():
    assert fit_log_odds(np.ones(19), np.zeros(19)) == (1.0, 0.0)
    own = np.append(np.full(19, np.inf), 1.0)
    assert fit_log_odds(own, np.zeros(20)) == (1.0, 0.0)
    rng = np.random.default_rng(0)
    own = rng.normal(size=100)
    broken = np.append(own, [np.nan, np.inf])
    assert fit_log_odds(broken, np.append(2 * own, [0.0, 1.0])) == fit_log_odds(own, 2 * own)


def test_equal_rows_have_a_line():
    slope, shift = fit_log_odds(np.full(50, 3.0), np.full(50, 7.0))
    assert slope * 3 + shift == pytest.approx(7, abs=1e-3)


def test_the_calibration_error_is_the_gap_between_what_is_said_and_what_is_right():
    probs = np.repeat([0.55, 0.95], 100)
    right = np.concatenate([np.arange(100) < 50, np.arange(100) < 80])
    assert calibration_error(probs, right) == pytest.approx((0.05 + 0.15) / 2)
    assert calibration_error(np.ones(10), np.ones(10, bool)) == 0


# The curve of wrong answers


def curve_of(strength, rows=20_000, seed=0):
    scores = make_scores((strength,), rows=rows, seed=seed)
    return scores.score[0], scores.wrong[0], wrong_curve(scores.score[0], scores.wrong[0])


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


def test_a_row_without_numbers_on_either_side_is_left_out_of_the_temperature():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (500, 3)).astype(np.float32)
    probs = np.exp(logits / 2)
    probs /= probs.sum(axis=1, keepdims=True)
    expected = fit_temperature(logits, probs)
    logits, probs = np.vstack([logits, np.full((2, 3), 1.0)]), np.vstack([probs, np.full((2, 3), np.nan)])
    assert fit_temperature(logits.astype(np.float32), probs) == expected == pytest.approx(2, rel=1e-3)
