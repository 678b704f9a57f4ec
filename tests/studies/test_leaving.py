"""Probabilities of rows that leave follow those of the model as it was given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import RowsInAll
from moco_rt.policies.conditions import OffRamp
from moco_rt.studies.leaving import compare_probabilities, with_log_odds

ROWS, NEVER = 4000, np.inf


def off_ramp(place):
    return OffRamp.closed(((np.zeros((2, 3)), np.zeros(2)),), feature="cls", site=f"encoder.{place}.attention")


def two_logits(odds):
    """Logits of two classes, of which the second has these log-odds."""
    return np.stack([np.zeros(len(odds)), odds], axis=1).astype(np.float32)


@pytest.fixture
def rows():
    """Log-odds of class 1 by the given model, and scores of two off-ramps that say too little, or too much."""
    given = np.random.default_rng(0).normal(0, 4, ROWS)
    own = np.stack([0.5 * given, 2 * given - np.sign(given)])
    score = expit(np.abs(own)).astype(np.float32)
    labels = (given > 0).astype(np.int64)
    return given, own, ExitScores.of_labels((own > 0).astype(np.int64), score, labels)


def thresholds_of(*policies):
    """(P, 2, 2) by what each of the two off-ramps must exceed."""
    return np.array([[[first] * 2, [second] * 2] for first, second in policies], np.float32)


def test_each_off_ramp_and_class_has_the_line_of_the_rows_that_leave_by_it(rows):
    given, _, scores = rows
    thresholds = thresholds_of((NEVER, NEVER), (0.9, 0.9))
    first, second = with_log_odds([off_ramp(0), off_ramp(1)], scores, two_logits(given), thresholds, 1)
    np.testing.assert_allclose(first.log_odds, [[2, 0]] * 2, atol=0.05)
    np.testing.assert_allclose(second.log_odds, [[0.5, 0.5]] * 2, atol=0.05)
    exits = scores.exit_of_row(thresholds[1])
    compared = compare_probabilities(
        [first, second], scores, exits, two_logits(given), two_logits(given), RowsInAll(np.arange(ROWS))
    )
    plain = compare_probabilities(
        [off_ramp(0), off_ramp(1)], scores, exits, two_logits(given), two_logits(given), RowsInAll(np.arange(ROWS))
    )
    assert compared.difference < 0.002 < plain.difference
    assert compared.across <= plain.across
    assert compared.calibration_error is None


def test_where_no_row_leaves_in_the_chosen_policy_the_nearest_one_says_it(rows):
    given, _, scores = rows
    thresholds = thresholds_of((NEVER, NEVER), (0.9, NEVER), (NEVER, 0.9), (0.7, 0.7))
    first, second = with_log_odds([off_ramp(0), off_ramp(1)], scores, two_logits(given), thresholds, 1)
    alone = with_log_odds([off_ramp(0), off_ramp(1)], scores, two_logits(given), thresholds[[0, 2]], 1)[1]
    np.testing.assert_array_equal(second.log_odds, alone.log_odds)
    np.testing.assert_allclose(first.log_odds, [[2, 0]] * 2, atol=0.05)


def test_few_rows_keep_what_they_have(rows):
    given, _, scores = rows
    thresholds = thresholds_of((NEVER, NEVER), (1 - 1e-6, NEVER))
    for ramp in with_log_odds([off_ramp(0), off_ramp(1)], scores, two_logits(given), thresholds, 1):
        assert ramp.log_odds.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_true_classes_give_calibration_errors(rows):
    given, _, scores = rows
    ramps = [replace(off_ramp(0), log_odds=[[1.0, 50.0]] * 2), off_ramp(1)]
    exits = np.zeros(ROWS, np.int64)
    truth = np.random.default_rng(1).random(ROWS) < expit(given)
    found = compare_probabilities(
        ramps, scores, exits, two_logits(given), two_logits(given), RowsInAll(np.arange(ROWS), truth.astype(np.int64))
    )
    assert found.calibration_error_full < 0.02 < found.calibration_error
    wrong = (truth != (given > 0)).mean()
    assert found.calibration_error == pytest.approx(wrong, abs=1e-6)  # it says that it is certain
    assert found.across == pytest.approx((expit(np.abs(given)) < 0.9).mean())
    assert "expected calibration error: " in str(found)
