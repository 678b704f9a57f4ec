from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moco_rt.policies.conditions import FEATURES, LinearCondition, LinearRule, OffRamp, check_feature, exit_logits

WEIGHT = [1.0, -2.0, 0.5]
X = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.5, 4.0], [0.5, 0.0, 0.0], [-1.0, -2.0, 8.0]]
SCORES = [1.25, -1.75, 3.25, 0.75, 7.25]  # x @ weight + 0.25
FIRES = [True, False, True, False, True]  # where that exceeds 0.75


def condition(**changes):
    return LinearCondition(**{"weight": WEIGHT, "bias": 0.25, "threshold": 0.75, "bound": 0.01, **changes})


ARRAYS = [np.float16, np.float32, np.float64]
TENSORS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", ARRAYS)
def test_arrays_are_answered_by_arrays(dtype):
    x = np.array(X, dtype)
    score, fires = condition().score(x), condition()(x)
    assert (type(score), score.dtype) == (np.ndarray, np.float32)
    assert (type(fires), fires.dtype) == (np.ndarray, bool)
    assert score.tolist() == SCORES
    assert fires.tolist() == FIRES


@pytest.mark.parametrize("dtype", TENSORS)
def test_tensors_are_answered_by_tensors(dtype):
    x = torch.tensor(X, dtype=dtype)
    score, fires = condition().score(x), condition()(x)
    assert (type(score), score.dtype) == (torch.Tensor, torch.float32)
    assert (type(fires), fires.dtype) == (torch.Tensor, torch.bool)
    assert score.tolist() == SCORES
    assert fires.tolist() == FIRES


def test_arrays_and_tensors_have_the_same_answers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 64)).astype(np.float32)
    rule = condition(weight=rng.normal(size=64), threshold=0.5)
    np.testing.assert_allclose(rule.score(x), rule.score(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-5)
    clear = np.abs(rule.score(x) - 0.5) > 1e-4
    np.testing.assert_array_equal(rule(x)[clear], rule(torch.from_numpy(x)).numpy()[clear])


def test_no_rows_have_no_answers():
    assert condition()(np.zeros((0, 3))).shape == (0,)
    assert condition()(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_scores_that_are_not_finite_never_fire(kind, place, value):
    x = [[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]
    x[0][place] = value
    assert condition()(kind(x)).tolist() == [False, True]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
@pytest.mark.parametrize("x", [[3e38, -3e38, 0.0], [np.inf, np.inf, 0.0]])
def test_scores_that_overflow_or_cancel_never_fire(kind, x):
    assert condition()(kind([x])).tolist() == [False]


def test_condition_keeps_a_float32_copy_of_its_weight():
    weight = np.array(WEIGHT)
    rule = condition(weight=weight)
    weight[:] = 9
    assert rule.weight.dtype == np.float32
    assert rule.weight.tolist() == WEIGHT


def test_condition_cannot_be_changed():
    with pytest.raises(AttributeError):
        condition().threshold = 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weight": [[1.0, 2.0]]},
            r"LinearCondition: weight must be a finite vector \(got shape \(1, 2\), 0 not finite\)",
        ),
        ({"weight": []}, r"LinearCondition: weight must be a finite vector \(got shape \(0,\), 0 not finite\)"),
        ({"weight": 1.0}, r"LinearCondition: weight must be a finite vector \(got shape \(\), 0 not finite\)"),
        ({"weight": [1.0, math.nan]}, r"LinearCondition: weight must be a finite vector .*"),
        ({"weight": [1.0, -math.inf]}, r"LinearCondition: weight must be a finite vector .*"),
        ({"bias": math.inf}, r"LinearCondition: bias and threshold must be finite \(got inf and 0.75\)"),
        ({"threshold": math.nan}, r"LinearCondition: bias and threshold must be finite \(got 0.25 and nan\)"),
        ({"threshold": -math.inf}, r"LinearCondition: bias and threshold must be finite \(got 0.25 and -inf\)"),
        ({"bound": 0.0}, r"LinearCondition: bound must be inside \(0, 1\) \(got 0.0\)"),
        ({"bound": 1.0}, r"LinearCondition: bound must be inside \(0, 1\) \(got 1.0\)"),
        ({"bound": -0.1}, r"LinearCondition: bound must be inside \(0, 1\) \(got -0.1\)"),
        ({"bound": math.nan}, r"LinearCondition: bound must be inside \(0, 1\) \(got nan\)"),
        ({"feature": "tokens"}, r"feature must be one of cls, mean, flat, cls\+mean \(got 'tokens'\)"),
        ({"feature": ""}, r"feature must be one of cls, mean, flat, cls\+mean \(got ''\)"),
    ],
)
def test_condition_refuses_what_no_rule_can_be(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        condition(**changes)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 2), (1, 2, 3)])
@pytest.mark.parametrize("zeros", [np.zeros, torch.zeros])
def test_condition_refuses_features_of_another_size(zeros, shape):
    got = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    with pytest.raises(ValueError, match=rf"^LinearCondition: x must have shape \(rows, 3\) \(got \({got}\)\)$"):
        condition()(zeros(shape))


@pytest.mark.parametrize("feature", FEATURES)
def test_features_that_rules_read_pass(feature):
    check_feature(feature)
    assert condition(feature=feature).feature == feature


def test_rule_says_what_it_settles():
    metadata = {"class": 1, "site": "encoder.0.output", "feature": "mean", "coverage": 0.4321, "bound": 0.012345}
    expected = "LinearRule(class=1, site=encoder.0.output, feature=mean, coverage=43.2%, bound=1.234%)"
    assert repr(LinearRule(condition(), metadata)) == expected


@pytest.mark.parametrize("bound", [1e-6, 0.01, 0.3])
@pytest.mark.parametrize(("predicted_class", "num_classes"), [(0, 2), (1, 2), (0, 3), (2, 3), (5, 20)])
def test_exit_logits_are_log_probabilities_with_the_bound_left_to_the_others(predicted_class, num_classes, bound):
    logits = torch.tensor(exit_logits(predicted_class, bound, num_classes), dtype=torch.float64)
    others = [i for i in range(num_classes) if i != predicted_class]
    assert logits.shape == (num_classes,)
    assert logits.exp().sum().item() == pytest.approx(1)
    torch.testing.assert_close(logits.softmax(0), logits.exp())
    assert logits[predicted_class].exp().item() == pytest.approx(1 - bound)
    assert logits[others].exp().tolist() == pytest.approx([bound / (num_classes - 1)] * (num_classes - 1))
    assert logits.argmax() == predicted_class


# Off-ramps


ONE_LAYER = (([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], [0.5, 0.0]),)
TWO_LAYERS = (([[1.0, 0.0, 2.0]] * 4, [0.5] * 4), ([[1.0] * 4, [-1.0] * 4], [0.0, 1.0]))


def off_ramp(**changes):
    return OffRamp(**{"layers": ONE_LAYER, "thresholds": [0.9, math.inf], "bounds": [0.01, 0.2], **changes})


@pytest.mark.parametrize("layers", [ONE_LAYER, TWO_LAYERS], ids=["one layer", "two layers"])
def test_an_off_ramp_holds_float32_arrays_and_knows_its_size(layers):
    made = off_ramp(layers=layers)
    assert (made.size, made.num_classes) == (3, 2)
    arrays = [*(array for layer in made.layers for array in layer), made.thresholds, made.bounds]
    assert {(type(array), array.dtype.name) for array in arrays} == {(np.ndarray, "float32")}
    assert [[array.tolist() for array in layer] for layer in made.layers] == [list(layer) for layer in layers]
    assert (made.score, made.temperature, made.feature, made.patience, made.site) == (
        *("max_prob", 1.0, "cls+mean", 1),
        None,
    )


@pytest.mark.parametrize("score", ["max_prob", "entropy"])
@pytest.mark.parametrize("feature", ["cls", "mean", "cls+mean"])
def test_scores_and_features_of_an_off_ramp_pass(score, feature):
    made = off_ramp(score=score, feature=feature, patience=3, temperature=0.1)
    assert (made.score, made.feature, made.patience) == (score, feature, 3)


@pytest.mark.parametrize("thresholds", [[math.inf, math.inf], [-math.inf, 0.0]])
def test_a_class_may_always_leave_or_never(thresholds):
    assert off_ramp(thresholds=thresholds).thresholds.tolist() == thresholds


def test_an_off_ramp_cannot_be_changed():
    with pytest.raises(AttributeError):
        off_ramp().temperature = 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": "flat"}, "OffRamp: feature must be cls, mean or cls+mean (got flat)"),
        ({"feature": "tokens"}, "feature must be one of cls, mean, flat, cls+mean (got 'tokens')"),
        ({"score": "gap"}, "OffRamp: score must be one of max_prob, entropy, sides, odds, deviation (got 'gap')"),
        ({"temperature": 0.0}, "OffRamp: temperature must be above 0 (got 0.0)"),
        ({"temperature": -1.0}, "OffRamp: temperature must be above 0 (got -1.0)"),
        ({"temperature": math.inf}, "OffRamp: temperature must be above 0 (got inf)"),
        ({"temperature": math.nan}, "OffRamp: temperature must be above 0 (got nan)"),
        ({"patience": 0}, "OffRamp: patience must be at least 1 (got 0)"),
        ({"layers": ()}, "OffRamp: layers must be one or two (got 0)"),
        ({"layers": (*TWO_LAYERS, TWO_LAYERS[1])}, "OffRamp: layers must be one or two (got 3)"),
        (
            {"layers": (([1.0, 2.0], [0.0, 0.0]),)},
            "OffRamp: weight and bias must have shape (outputs, 2) and (outputs,) (got (2,) and (2,))",
        ),
        (
            {"layers": ((ONE_LAYER[0][0], [0.0]),)},
            "OffRamp: weight and bias must have shape (outputs, 3) and (outputs,) (got (2, 3) and (1,))",
        ),
        (
            {"layers": (TWO_LAYERS[0], ONE_LAYER[0])},
            "OffRamp: weight and bias must have shape (outputs, 4) and (outputs,) (got (2, 3) and (2,))",
        ),
        ({"layers": (([[math.nan], [1.0]], [0.0, 0.0]),)}, "OffRamp: weight and bias must be finite"),
        ({"layers": (([[1.0], [1.0]], [0.0, -math.inf]),)}, "OffRamp: weight and bias must be finite"),
        (
            {"layers": (([[1.0, 2.0]], [0.0]),), "thresholds": [0.0], "bounds": [0.1]},
            "OffRamp: thresholds and bounds must have one value for each of at least two classes "
            "(got (1,) and (1,), 1 classes)",
        ),
        (
            {"thresholds": [0.0] * 3},
            "OffRamp: thresholds and bounds must have one value for each of at least two classes "
            "(got (3,) and (2,), 2 classes)",
        ),
        (
            {"bounds": [0.1]},
            "OffRamp: thresholds and bounds must have one value for each of at least two classes "
            "(got (2,) and (1,), 2 classes)",
        ),
        ({"thresholds": [0.0, math.nan]}, "OffRamp: thresholds must be numbers, bounds inside (0, 1)"),
        ({"bounds": [0.0, 0.1]}, "OffRamp: thresholds must be numbers, bounds inside (0, 1)"),
        ({"bounds": [0.1, 1.0]}, "OffRamp: thresholds must be numbers, bounds inside (0, 1)"),
        ({"bounds": [0.1, math.nan]}, "OffRamp: thresholds must be numbers, bounds inside (0, 1)"),
    ],
)
def test_what_no_off_ramp_can_be_is_refused(one_line_error, changes, message):
    with one_line_error(ValueError, message):
        off_ramp(**changes)
