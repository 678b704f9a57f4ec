"""Objectives: what off-ramps learn of labels that may hold at once, and of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from moco_rt import MultiLabel, Regression
from moco_rt.encoding import EncodedTexts
from moco_rt.runtime.exit_points import compile_bag
from moco_rt.studies import distillation
from moco_rt.studies.distillation import distill, fit_bag, fit_off_ramp, forward, unfitted_bag, unfitted_off_ramp
from moco_rt.studies.objectives import objective_for
from moco_rt.studies.recording import Recordings

SIZE = 64
WEIGHT = np.random.default_rng(9).normal(size=(SIZE, 3)) * 3 / SIZE**0.5
BOTH = [MultiLabel({"a": 0.3, "b": 0.5, "c": 0.8}), Regression(0.5)]
tasks = pytest.mark.parametrize("task", BOTH, ids=["multi-label", "regression"])


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(distillation, "_FEWEST_STEPS", 60)


def recordings(rows, seed=0, noise=0.0, scale=1.0, shift=0.0):
    """Logits that are a linear function of the features, more or less, in units of their own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, SIZE)).astype(np.float32)
    logits = x @ WEIGHT + noise * np.maximum(x[:, :16].mean(axis=1, keepdims=True) * 4 + 1, 0.1) * rng.normal(
        size=(rows, 3)
    )
    logits = (scale * logits + shift).astype(np.float32)
    return Recordings({"embeddings": np.hstack([x, x])}, logits, np.ones(rows, np.int64), logits)


def outputs_of(off_ramp, rows):
    return forward(off_ramp.layers, torch.from_numpy(rows.feature("embeddings", off_ramp.feature))).numpy()


def test_off_ramps_learn_the_probability_of_every_label():
    better, simple = fit_off_ramp("embeddings", "cls", recordings(2000), recordings(500, 1), 0, BOTH[0])
    fresh = recordings(1000, 2)
    for off_ramp in (better, simple):
        assert (off_ramp.score, off_ramp.num_classes, off_ramp.thresholds.tolist()) == ("sides", 3, [np.inf])
        assert off_ramp.levels == pytest.approx(BOTH[0].levels(3))
        probs = expit(outputs_of(off_ramp, fresh) / off_ramp.temperature)
        assert abs(probs - expit(fresh.given)).mean() < 0.12


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (100.0, -7e3), (1e-3, 5.0)])
def test_off_ramps_learn_numbers_and_how_far_they_may_be_off_in_units_of_the_tolerance(scale, shift):
    task = Regression(0.5 * scale)
    rows, validation = (recordings(count, seed, 1.0, scale, shift) for count, seed in ((6000, 0), (1000, 1)))
    better, _ = fit_off_ramp("embeddings", "cls", rows, validation, 0, task)
    assert (better.score, better.num_classes, better.temperature) == ("deviation", 3, 1.0)
    fresh = recordings(4000, 2, 1.0, scale, shift)
    estimates, log_deviations = np.split(outputs_of(better, fresh).astype(np.float64), 2, axis=1)
    error = (estimates - fresh.given) / task.tolerance
    assert np.abs(error).mean() < 2.0
    # Of the rows that look surest fewer are off by more than the tolerance than of the others.
    off = (np.abs(error) > 1).any(axis=1)[np.argsort(log_deviations.max(axis=1))]
    assert off[:1000].mean() < 0.6 * off[-1000:].mean()
    assert 0.3 < np.sqrt((error**2).mean() / np.exp(2 * log_deviations).mean()) < 3


@tasks
@pytest.mark.parametrize("value", [0.0, 3.75, -2e4])
def test_constant_targets_are_learnt_too(task, value):
    rows = recordings(300)
    rows.given[:] = value
    for off_ramp in fit_off_ramp("embeddings", "cls", rows, rows, 0, task):
        outputs = outputs_of(off_ramp, rows)
        assert np.isfinite(outputs).all()
        assert task.same(rows.given, outputs[:, :3] / off_ramp.temperature).all()


@pytest.mark.usefixtures("few_steps")
@tasks
def test_features_that_are_constant_or_far_away_break_nothing(task):
    rows, validation = recordings(300), recordings(100, 1)
    rows.features["embeddings"][:, :4] = 7
    validation.features["embeddings"][:] *= 1e4
    for off_ramp in fit_off_ramp("embeddings", "cls", rows, validation, 0, task):
        assert all(np.isfinite(array).all() for layer in off_ramp.layers for array in layer)


@pytest.mark.usefixtures("few_steps")
@tasks
@pytest.mark.parametrize("hidden", [0, 8])
def test_a_seed_gives_the_same_bits(task, hidden):
    rows = recordings(300)
    x = rows.feature("embeddings", "cls")
    first, again = (distill(x, objective_for(task, rows.given), hidden=hidden, seed=3) for _ in range(2))
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.usefixtures("few_steps")
@tasks
@pytest.mark.parametrize("feature", ["cls", "cls+mean"])
def test_an_off_ramp_to_time_has_the_form_of_a_fitted_one(task, feature):
    made = unfitted_off_ramp("embeddings", feature, SIZE, 3, task)
    fitted, _ = fit_off_ramp("embeddings", feature, recordings(100), recordings(60, 1), 0, task)
    for name in ("score", "num_classes", "feature", "size", "levels"):
        assert getattr(made, name) == getattr(fitted, name)


# Bags of tokens


def reviews(rows, seed=0):
    """Random rows of ids, and logits that follow from how often some of them occur."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 40, rows)
    tokens = EncodedTexts(rng.integers(0, 60, lengths.sum()).astype(np.int32), lengths)
    shares = [[(row["input_ids"] % 10 == c).mean() for c in range(3)] for row in tokens]
    logits = (20 * np.array(shares) - 2).astype(np.float32)
    return Recordings({}, logits, lengths, logits, tokens)


@tasks
def test_bags_learn_answers_too(task):
    bag = fit_bag(reviews(3000), reviews(500, 1), 0, task)
    made = unfitted_bag(3, task)
    assert (bag.score, bag.levels, bag.table.shape, bag.num_classes) == (
        made.score,
        made.levels,
        made.table.shape,
        made.num_classes,
    )
    fresh = reviews(1000, 2)
    (score, _), logits = compile_bag(bag).answer(fresh.batch())
    same = task.same(fresh.given, logits.numpy())
    surest = np.argsort(-score.numpy())[:300]
    assert same[surest].mean() > same.mean() + 0.05
    assert np.isfinite(score.numpy()).all()
