"""Tasks: which models they are for, and when two answers are the same."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from moco_rt import MultiLabel, Ranking, Regression, SingleLabel
from moco_rt.architectures import SINGLE_LABEL, Flags, log_odds, task_from, task_of

NAN = math.nan


def config(labels=3, problem_type=None, names=("a", "b", "c")):
    return SimpleNamespace(num_labels=labels, problem_type=problem_type, id2label=dict(enumerate(names[:labels])))


MULTI, NUMBERS = config(problem_type="multi_label_classification"), config(problem_type="regression")


def numbers(*rows):
    return np.array(rows, np.float32)


def test_a_single_label_is_the_same_where_the_highest_logit_is_of_the_same_class():
    given, found = numbers([1, 0, 0], [0, 5, 1]), numbers([9, 8, 7], [2, 1, 3])
    assert SINGLE_LABEL.same(given, found).tolist() == [True, False]


def test_a_set_of_labels_is_the_same_where_all_stay_on_their_side():
    given = numbers([1, -1, 2], [1, -1, 2], [-1, -1, -1], [0, 0, 0])
    found = numbers([9, -0.1, 1e-3], [1, 0.1, 2], [-5, -6, -7], [5, 6, 7])
    assert MultiLabel().same(given, found).tolist() == [True, False, True, True]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MultiLabel(), Flags({"a": None, "b": 0.9}), Regression(9.0)], ids=repr)
def test_nan_is_the_same_as_nan_alone(task):
    given = numbers([NAN, NAN], [2, -5], [NAN, NAN])
    found = numbers([2, -5], [NAN, NAN], [NAN, NAN])
    assert task.same(given, found).tolist() == [False, False, True]


def test_labels_have_thresholds_of_their_own():
    task = MultiLabel({"c": 0.9, "a": 0.2}).for_model(MULTI)
    assert task == MultiLabel({"a": 0.2, "b": 0.5, "c": 0.9})
    assert list(task.threshold) == ["a", "b", "c"]
    assert task.holds_from(3) == (0.2, 0.5, 0.9)
    assert task.levels(3) == pytest.approx((math.log(0.25), 0, math.log(9)))
    given = numbers([-1, 0, 2], [-1, 0, 2], [-1, 0, 2])
    found = numbers([-1.3, 0, 2.1], [-1.4, 0, 2], [-1, 0, 2.3])
    assert task.same(given, found).tolist() == [True, False, False]


def test_one_threshold_is_that_of_all_labels():
    task = MultiLabel(0.3).for_model(MULTI)
    assert task == MultiLabel(0.3)
    assert task.holds_from(3) == (0.3, 0.3, 0.3)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.731, 0.99])
def test_labels_hold_by_the_probabilities_in_float32(threshold):
    level = math.log(threshold / (1 - threshold))
    logits = (level + np.linspace(-1e-6, 1e-6, 41)[:, None] * max(1, abs(level))).astype(np.float32)
    below = np.full_like(logits, level - 1)
    holds = np.float64(np.float32(1 / (1 + np.exp(-logits.astype(np.float64))))) >= threshold
    assert 0 < holds.sum() < len(holds)
    assert (MultiLabel(threshold).same(below, logits) == ~holds[:, 0]).all()


def test_numbers_are_the_same_within_the_tolerance_all_of_them():
    given = numbers([1, 2], [1, 2], [1, 2], [NAN, 2], [NAN, 2], [math.inf, 2])
    found = numbers([1.5, 1.5], [1, 2.75], [0.25, 2.75], [NAN, 2], [1, 2], [math.inf, 2])
    assert Regression(0.5).same(given, found).tolist() == [True, False, False, True, False, True]


def test_thresholds_of_ones_own_are_compared_with_probabilities():
    task = task_of(config(), SingleLabel({"b": 0.8}))
    assert task == Flags({"a": None, "b": 0.8, "c": None})
    assert (task.levels(3)[0], task.levels(3)[1]) == (math.inf, pytest.approx(math.log(4)))
    # Whatever the label is, b has a probability of 0.85, 0.81, 0.79 and 0.4.
    given = np.log(numbers([0.1, 0.85, 0.05], [0.1, 0.81, 0.09], [0.01, 0.79, 0.2], [0.5, 0.4, 0.1]))
    assert task.flagged(given).tolist() == [[False, True, False]] * 2 + [[False] * 3] * 2
    found = np.log(numbers([0.01, 0.9, 0.09], [0.01, 0.79, 0.2], [0.1, 0.85, 0.05], [0.1, 0.4, 0.5]))
    assert task.same(given, found).tolist() == [True, False, False, True]


def test_of_two_classes_a_threshold_may_lie_anywhere():
    task = task_of(config(2), SingleLabel({"b": 0.01, "a": 0.3}))
    given, found = numbers([0, -4.5], [0, -4.5], [0, 0]), numbers([0, -4.7], [0, -4.55], [0, 0.9])
    assert task.same(given, found).tolist() == [False, True, False]


@pytest.mark.parametrize("classes", [2, 3, 50])
def test_log_odds_are_those_of_the_softmax(classes):
    logits = np.random.default_rng(0).normal(0, 3, (40, classes)).astype(np.float32)
    probs = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    np.testing.assert_allclose(log_odds(logits, 1), np.log(probs[:, 1] / (1 - probs[:, 1])), atol=1e-9)
    top = logits.argmax(1)
    own = probs[np.arange(40), top]
    np.testing.assert_allclose(log_odds(logits, top), np.log(own / (1 - own)), atol=1e-9)


@pytest.mark.parametrize(
    ("model", "expected"),
    [(config(), SINGLE_LABEL), (MULTI, MultiLabel(0.5)), (config(1, MULTI.problem_type), MultiLabel(0.5))],
)
def test_where_no_task_is_named_the_configuration_says_it(model, expected):
    assert task_of(model) == expected


@pytest.mark.parametrize("model", [config(1), NUMBERS, config(1, "regression")])
def test_numbers_need_a_task_that_is_named(model, one_line_error):
    words = "task must be Regression(tolerance=...) for a model that gives numbers, or Ranking(keep_top=...) for a rera"
    with one_line_error(ValueError, words):
        task_of(model)
    assert task_of(model, Regression(0.1)) == Regression(0.1)


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (config(), MultiLabel(), "for MultiLabel (got num_labels=3, problem_type=None)"),
        (NUMBERS, MultiLabel(), "for MultiLabel (got num_labels=3, problem_type=regression)"),
        (config(), Regression(1.0), "or one label, for Regression (got num_labels=3, problem_type=None)"),
        (MULTI, Regression(1.0), "(got num_labels=3, problem_type=multi_label_classification)"),
        (MULTI, SINGLE_LABEL, "model must choose one label of at least two"),
        (MULTI, SingleLabel({"a": 0.5}), "model must choose one label of at least two"),
        (
            config(),
            SingleLabel({"d": 0.5}),
            "threshold must map some of the classes a, b, c to numbers (got {'d': 0.5})",
        ),
        (config(2), Flags({"a": 0.5, "x": None}), "threshold must name the model's classes (got a, x)"),
        (MULTI, MultiLabel({"d": 0.5}), "threshold must map some of the classes a, b, c to numbers (got {'d': 0.5})"),
    ],
)
def test_a_model_for_another_task_is_refused(model, task, words, one_line_error):
    with one_line_error(ValueError, words):
        task_of(model, task)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, NAN, "0.5", True, {"a": 1.0}, {"a": None}])
def test_a_threshold_out_of_range_is_refused(threshold, one_line_error):
    with one_line_error(ValueError, "threshold must be a number inside (0, 1), or a dict of such (got "):
        MultiLabel(threshold)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (0.5, "threshold must map names of classes to numbers (got 0.5)"),
        ({}, "threshold must map names of classes to numbers (got {})"),
        ({"a": 1.0}, "threshold must be a number inside (0, 1), or a dict of such (got 1.0)"),
        ({"a": None}, "threshold must be a number inside (0, 1), or a dict of such (got None)"),
    ],
)
def test_thresholds_of_ones_own_go_by_class(threshold, words, one_line_error):
    with one_line_error(ValueError, words):
        SingleLabel(threshold)


@pytest.mark.parametrize("tolerance", [0, -1, NAN, math.inf, "1", True, None])
def test_a_tolerance_out_of_range_is_refused(tolerance, one_line_error):
    with one_line_error(
        ValueError, f"tolerance must be a number above 0, in the score's own units (got {tolerance!r})"
    ):
        Regression(tolerance)


@pytest.mark.parametrize("keep_top", [0, -1, 1.5, True])
def test_fewer_than_one_candidate_are_refused(keep_top, one_line_error):
    with one_line_error(ValueError, f"keep_top must be an integer of at least 1 (got {keep_top!r})"):
        Ranking(keep_top)


@pytest.mark.parametrize(
    "task",
    [
        SINGLE_LABEL,
        Flags({"a": None, "b": 0.8}),
        MultiLabel(),
        MultiLabel(0.3),
        MultiLabel({"a": 0.2, "b": 0.5}),
        Regression(0.25),
    ],
)
def test_a_task_comes_back_from_disk(task):
    assert task_from(json.loads(json.dumps(task.stored()))) == task


def test_what_a_certificate_says_stays_the_same():
    said = [task.answer for task in (SINGLE_LABEL, Flags({"a": 0.5}), MultiLabel(), Regression(0.1))]
    assert said == ["label", "side of the thresholds", "set of labels", "score within 0.1"]
