"""Off-ramps that learn a model's probabilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch_defaults import float64_default

from moco_rt.architectures import SINGLE_LABEL
from moco_rt.encoding import EncodedTexts
from moco_rt.statistics.calibration import fit_temperature
from moco_rt.studies import distillation
from moco_rt.studies.distillation import fit_bag, fit_off_ramp, unfitted_bag
from moco_rt.studies.objectives import objective_for
from moco_rt.studies.recording import Recordings

one_and_two_layers = pytest.mark.parametrize("hidden", [0, 16], ids=["one layer", "two layers"])


def distill(x, probs, **options):
    """Layers that learn probabilities."""
    with np.errstate(divide="ignore"):
        return distillation.distill(x, objective_for(SINGLE_LABEL, np.log(probs)), **options)


def teacher(rows, size=12, classes=3, seed=0, sharp=1.0):
    """Features, and probabilities that are a softmax of some of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, size)).astype(np.float32)
    return x, softmax(sharp * x[:, :classes])


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).astype(np.float32)


def answer(layers, x):
    """Probabilities, in float32 as off-ramps are scored."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
    weight, bias = layers[-1]
    return softmax(x @ weight.T + bias)


def error_on_fresh_rows(layers, change=lambda x: x, **options):
    """Mean absolute error of the probabilities, and the share of other labels."""
    x, probs = teacher(2000, seed=1, **options)
    found = answer(layers, change(x))
    return abs(found - probs).mean(), (found.argmax(1) != probs.argmax(1)).mean()


@one_and_two_layers
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_layers_have_the_shapes_of_an_off_ramp_in_float32(hidden, classes):
    layers = distill(*teacher(100, classes=classes), hidden=hidden, seed=0)
    sizes = [12, *([hidden] if hidden else []), classes]
    expected = [((outputs, inputs), (outputs,)) for inputs, outputs in itertools.pairwise(sizes)]
    assert [(weight.shape, bias.shape) for weight, bias in layers] == expected
    arrays = [array for layer in layers for array in layer]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert all(np.isfinite(array).all() for array in arrays)


@one_and_two_layers
def test_a_seed_gives_the_same_bits_and_another_seed_others(hidden):
    rows = teacher(600)
    first, again, other = (distill(*rows, hidden=hidden, seed=seed) for seed in (7, 7, 8))
    for (weight, bias), (same_weight, same_bias), (other_weight, _) in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(weight, same_weight)
        np.testing.assert_array_equal(bias, same_bias)
        assert not np.array_equal(weight, other_weight)


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16), float64_default],
    ids=["no_grad", "inference_mode", "autocast", "float64"],
)
@pytest.mark.parametrize("hidden", [0, 16])
def test_whatever_torch_is_set_to_the_bits_are_the_same(around, hidden):
    rows = teacher(300)
    expected = distill(*rows, hidden=hidden, seed=0)
    with around():
        found = distill(*rows, hidden=hidden, seed=0)
    for (weight, bias), (same_weight, same_bias) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(weight, same_weight)
        np.testing.assert_array_equal(bias, same_bias)


def test_the_number_of_threads_is_left_alone():
    threads = torch.get_num_threads()
    distill(*teacher(10), hidden=0, seed=0)
    assert torch.get_num_threads() == threads


@one_and_two_layers
def test_nothing_that_it_is_given_is_changed(hidden):
    x, probs = teacher(300)
    before = x.copy(), probs.copy()
    distill(x, probs, hidden=hidden, seed=0)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(probs, before[1])


@one_and_two_layers
def test_the_probabilities_of_fresh_rows_are_learnt(hidden):
    error, wrong = error_on_fresh_rows(distill(*teacher(1500), hidden=hidden, seed=0))
    assert error < 0.08
    assert wrong < 0.15


def test_unsure_rows_stay_unsure():
    """Probabilities are learnt, not labels: a teacher that is never surer than it must be has a pupil like it."""
    x, probs = teacher(1500, sharp=0.3)
    found = answer(distill(x, probs, hidden=0, seed=0), x)
    assert abs(found.max(1).mean() - probs.max(1).mean()) < 0.05
    assert abs(found - probs).mean() < 0.05


def test_a_hidden_layer_learns_what_one_layer_cannot():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 4)).astype(np.float32)
    positive = np.where(x[:, 0] * x[:, 1] > 0, 0.95, 0.05)  # the signs agree
    probs = np.column_stack([1 - positive, positive]).astype(np.float32)
    wrong = [(answer(distill(x, probs, hidden=h, seed=0), x).argmax(1) != probs.argmax(1)).mean() for h in (0, 64)]
    assert wrong[0] > 0.3
    assert wrong[1] < 0.1


@one_and_two_layers
@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_the_scale_of_features_does_not_matter(hidden, scale):
    x, probs = teacher(1500)

    def change(x):
        return (x * np.float32(scale) + np.float32(3 * scale)).astype(np.float32)

    error, wrong = error_on_fresh_rows(distill(change(x), probs, hidden=hidden, seed=0), change)
    assert error < 0.08
    assert wrong < 0.15


@one_and_two_layers
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3])
def test_constant_features_do_no_harm(hidden, value):
    """Such are, before the first layer, those of a first token that is the same in every row."""
    x, probs = teacher(1500)

    def change(x):
        return np.concatenate([x, np.full((len(x), 4), value, np.float32)], 1)

    error, wrong = error_on_fresh_rows(distill(change(x), probs, hidden=hidden, seed=0), change)
    assert error < 0.08
    assert wrong < 0.15


@one_and_two_layers
def test_constant_features_may_differ_in_their_last_bits(hidden):
    """As they do from one processor to the next."""
    x, probs = teacher(1500)
    constant = np.random.default_rng(2).normal(size=32).astype(np.float32)
    layers = distill(np.concatenate([x, np.tile(constant, (len(x), 1))], 1), probs, hidden=hidden, seed=0)
    here, there = (answer(layers, np.concatenate([x, np.tile(c, (len(x), 1))], 1)) for c in (constant, constant + 1e-6))
    assert abs(here - there).max() < 1e-3


@pytest.mark.parametrize("rows", [1, 2, 255, 256, 257])
def test_rows_may_be_few(rows):
    layers = distill(*teacher(rows), hidden=4, seed=0)
    assert all(np.isfinite(array).all() for layer in layers for array in layer)


def test_a_class_that_never_appears_is_given_to_nobody():
    x, probs = teacher(1500, classes=2)
    padded = np.concatenate([probs, np.zeros((len(probs), 1), np.float32)], 1)
    found = answer(distill(x, padded, hidden=16, seed=0), x)
    assert found[:, 2].mean() < 0.15
    assert (found.argmax(1) < 2).all()


@pytest.mark.parametrize("sharpness", [0.25, 4.0])
def test_the_temperature_fits_the_probabilities_of_validation_rows(monkeypatch, sharpness):
    """Those of a model that is surer, or less sure, of these rows than of those that were learnt from."""
    monkeypatch.setattr(distillation, "_FEWEST_STEPS", 200)

    def recordings(rows, seed, sharp):
        x, probs = teacher(rows, seed=seed, sharp=sharp)
        return Recordings({"embeddings": np.hstack([x, x])}, np.log(probs), np.ones(rows, np.int64), np.log(probs))

    validation = recordings(500, 1, sharpness)
    better, simple = fit_off_ramp("embeddings", "cls", recordings(1500, 0, 1.0), validation, seed=0)
    assert simple.temperature == 1.0
    x = validation.feature("embeddings", "cls")
    logits = np.log(answer(better.layers, x))
    assert better.temperature == pytest.approx(fit_temperature(logits, softmax(validation.given)), rel=1e-3)
    assert (better.temperature < 0.5) if sharpness > 1 else (better.temperature > 2)


# Bags of tokens


def reviews(rows, seed=0, classes=2, sharp=2.0):
    """Random rows of ids, and logits that follow from how often some of them, and a pair of them, occur."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, rows)
    tokens = EncodedTexts(rng.integers(0, 60, lengths.sum()).astype(np.int32), lengths)
    logits = np.zeros((rows, classes), np.float32)
    for place, row in enumerate(tokens):
        ids = row["input_ids"]
        for c in range(classes):
            pairs = ((ids[:-1] == c) & (ids[1:] >= 30)).sum()
            logits[place, c] = sharp * ((ids % 10 == c).sum() + 2 * pairs) / len(ids) ** 0.5
    return Recordings({}, logits, lengths, logits, tokens)


def answers_of_bag(bag, rows):
    """Probabilities of rows, n-gram by n-gram."""
    logits = []
    for place in range(len(rows.lengths)):
        ngrams, counts = rows.ngrams(np.array([place]), len(bag.table))
        logits.append(bag.bias + bag.table[ngrams.numpy()].sum(0) / float(counts[0]) ** 0.5)
    return softmax(np.array(logits) / bag.temperature)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_bag_learns_probabilities_from_tokens_alone(classes):
    bag = fit_bag(reviews(1500, classes=classes), reviews(300, seed=1, classes=classes), seed=0)
    fresh = reviews(300, seed=2, classes=classes)
    error = abs(answers_of_bag(bag, fresh) - softmax(fresh.logits)).mean()
    ignorant = abs(softmax(fresh.logits).mean(0) - softmax(fresh.logits)).mean()
    assert error < 0.6 * ignorant
    assert (bag.table.shape, bag.bias.shape) == ((2**18, classes), (classes,))
    assert np.isposinf(bag.thresholds).all()


def test_a_seed_gives_the_same_bag_and_another_seed_another():
    rows, validation = reviews(400), reviews(100, seed=1)
    first, again, other = (fit_bag(rows, validation, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.table, again.table)
    np.testing.assert_array_equal(first.bias, again.bias)
    assert first.temperature == again.temperature
    assert not np.array_equal(first.table, other.table)


def test_a_bags_temperature_fits_the_probabilities_of_validation_rows():
    rows = reviews(1000)
    plain, sharp = (fit_bag(rows, reviews(400, seed=1, sharp=sharpness), 0) for sharpness in (2.0, 8.0))
    np.testing.assert_array_equal(plain.table, sharp.table)
    assert sharp.temperature < 0.5 * plain.temperature


@pytest.mark.parametrize(("classes", "buckets"), [(2, 2**18), (16, 2**18), (17, 2**17), (150, 2**14), (1000, 2**12)])
def test_the_table_takes_at_most_16_mib(classes, buckets):
    tokens = reviews(2).tokens
    logits = np.eye(classes, dtype=np.float32)[:2]
    rows = Recordings({}, logits, tokens.lengths, logits, tokens)
    bag = fit_bag(rows, rows, 0)
    assert len(bag.table) == buckets
    assert bag.table.nbytes <= 2**24
    assert unfitted_bag(classes).table.shape == bag.table.shape


@pytest.mark.parametrize("rows", [1, 2, 128, 129])
def test_a_bag_may_learn_from_few_rows(rows):
    bag = fit_bag(reviews(rows), reviews(50, seed=1), 0)
    assert np.isfinite(bag.table).all()
    assert 0 < bag.temperature < np.inf


def test_the_number_of_threads_is_left_alone_by_a_bag():
    threads = torch.get_num_threads()
    fit_bag(reviews(10), reviews(10), 0)
    assert torch.get_num_threads() == threads
