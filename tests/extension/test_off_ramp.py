"""Off-ramps as the extension scores them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from moco_rt._C import OffRamp

SCORES = ("max_prob", "entropy")


def random_layers(*sizes, seed=0):
    """Layers of these sizes, inputs first, whose outputs are about as large as their inputs."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(outputs, inputs, generator=generator) * 2 / inputs**0.5, torch.randn(outputs, generator=generator))
        for inputs, outputs in itertools.pairwise(sizes)
    ]


def random_rows(count, size, seed=1):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def logits_of(layers, x):
    """In float64: (rows, C)."""
    out = x.double().numpy()
    for place, (weight, bias) in enumerate(layers):
        out = (np.maximum(out, 0) if place else out) @ weight.double().numpy().T + bias.double().numpy()
    return out


def exact_score(logits, score, temperature=1.0):
    """Of softmax(logits / temperature), in float64: (rows,)."""
    scaled = logits / temperature
    log_p = scaled - scaled.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    return np.exp(log_p).max(1) if score == "max_prob" else (np.exp(log_p) * log_p).sum(1)


def assert_scores(off_ramp, layers, x, score, temperature=1.0):
    got = off_ramp.score(x)
    assert (got.shape, got.dtype) == ((2, len(x)), torch.float32)
    logits = logits_of(layers, x.cpu())
    np.testing.assert_allclose(got[0], exact_score(logits, score, temperature), rtol=0, atol=2e-5)
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    np.testing.assert_array_equal(got[1][first - second > 1e-4], logits.argmax(1)[first - second > 1e-4])


# What it says of a row


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("hidden", [[], [64], [7]], ids=["one layer", "64 units", "7 units"])
def test_scores_are_those_of_plain_numpy(hidden, classes, score, temperature):
    layers = random_layers(37, *hidden, classes)
    off_ramp = OffRamp(layers, score=score, temperature=temperature)
    assert_scores(off_ramp, layers, random_rows(50, 37), score, temperature)


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("hidden", [[], [64]], ids=["one layer", "64 units"])
def test_logits_are_those_of_plain_numpy_and_alone_the_same(hidden, outputs):
    layers, x = random_layers(37, *hidden, outputs), random_rows(50, 37)
    off_ramp = OffRamp(layers, score="max_prob", temperature=1.0)
    expected = x.double()
    for i, (weight, bias) in enumerate(layers):
        expected = (expected.relu() if i else expected) @ weight.double().T + bias.double()
    found = off_ramp.logits(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([off_ramp.logits(row[None]) for row in x]), found)


def test_a_single_output_is_no_class(one_line_error):
    with one_line_error(ValueError, "OffRamp: classes must be at least 2 (got 1)"):
        OffRamp(random_layers(3, 1), score="max_prob", temperature=1.0).score(torch.ones(2, 3))


@pytest.mark.parametrize("size", [1, 2, 31, 64, 193, 768, 1536])
@pytest.mark.parametrize("rows", [1, 2, 33, 300])
@pytest.mark.parametrize("hidden", [[], [65]], ids=["one layer", "65 units"])
def test_rows_may_be_of_any_size_and_number(size, rows, hidden):
    layers = random_layers(size, *hidden, 3)
    assert_scores(OffRamp(layers, score="max_prob", temperature=1.0), layers, random_rows(rows, size), "max_prob")


def test_a_worked_row():
    off_ramp = {s: OffRamp([(torch.eye(3), torch.zeros(3))], score=s, temperature=2.0) for s in SCORES}
    x = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log() * 2  # what the temperature halves again
    np.testing.assert_allclose(off_ramp["max_prob"].score(x), [[0.5, 0.8], [0, 2]], atol=1e-6)
    entropy = [-0.5 * math.log(2) - 0.5 * math.log(4), 0.2 * math.log(0.1) + 0.8 * math.log(0.8)]
    np.testing.assert_allclose(off_ramp["entropy"].score(x), [entropy, [0, 2]], atol=1e-6)


def test_between_the_two_layers_what_is_negative_becomes_zero():
    layers = [(torch.tensor([[1.0], [-1.0]]), torch.zeros(2)), (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))]
    score, predicted = OffRamp(layers, score="max_prob", temperature=1.0).score(torch.tensor([[3.0], [-5.0], [0.0]]))
    np.testing.assert_allclose(score, 1 / (1 + np.exp([-3.0, -5.0, 0.0])), atol=1e-6)
    assert predicted.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("score", "highest"), [("max_prob", 1.0), ("entropy", 0.0)])
def test_a_sure_row_has_the_highest_score_and_a_tie_the_lowest(score, highest):
    off_ramp = OffRamp([(torch.eye(4), torch.zeros(4))], score=score, temperature=1.0)
    (sure, tie), predicted = off_ramp.score(torch.tensor([[0.0, 0.0, 1e4, 0.0], [5.0] * 4]))
    assert sure == highest
    assert tie == pytest.approx({"max_prob": 0.25, "entropy": -math.log(4)}[score])
    assert predicted.tolist() == [2, 0]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("hidden", [[], [64]], ids=["one layer", "two layers"])
@pytest.mark.parametrize("size", [5, 256, 1000])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(size, hidden, score):
    off_ramp = OffRamp(random_layers(size, *hidden, 3), score=score, temperature=0.7)
    x = random_rows(200, size)
    together = off_ramp.score(x)
    for rows in ([0], [7], [199], [5, 3, 0], list(range(33)), list(range(199, -1, -1))):
        assert torch.equal(off_ramp.score(x[rows]), together[:, rows])


def test_no_rows_have_no_scores():
    assert OffRamp(random_layers(4, 2), score="entropy", temperature=1.0).score(torch.zeros(0, 4)).shape == (2, 0)


def test_strided_tensors_are_read_as_they_look():
    layers = random_layers(6, 8, 3)
    strided = [(weight.T.contiguous().T, torch.stack([bias, bias], 1)[:, 0]) for weight, bias in layers]
    x = random_rows(10, 6)
    expected = OffRamp(layers, score="entropy", temperature=1.0).score(x)
    found = OffRamp(strided, score="entropy", temperature=1.0).score(x.T.contiguous().T)
    assert torch.equal(found, expected)


def test_an_off_ramp_stays_what_it_was_when_it_was_made():
    layers = random_layers(6, 8, 3)
    off_ramp = OffRamp(layers, score="entropy", temperature=1.0)
    x = random_rows(10, 6)
    before = off_ramp.score(x)
    for tensor in (tensor for layer in layers for tensor in layer):
        tensor.fill_(math.nan)
    assert torch.equal(off_ramp.score(x), before)


@pytest.mark.parametrize("score", SCORES)
def test_nan_is_no_score_and_its_neighbours_do_not_notice(score):
    off_ramp = OffRamp(random_layers(5, 3), score=score, temperature=1.0)
    x = random_rows(4, 5)
    expected = off_ramp.score(x)
    x[1, 2] = math.nan
    found = off_ramp.score(x)
    assert found[0, 1].isnan()
    assert 0 <= found[1, 1] < 3
    assert torch.equal(found[:, [0, 2, 3]], expected[:, [0, 2, 3]])


# What is refused


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"layers": []}, ValueError, "layers must be one or two (got 0)"),
        ({"layers": random_layers(3, 3, 3, 2)}, ValueError, "layers must be one or two (got 3)"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0 (got 0)"),
        ({"temperature": -2.0}, ValueError, "temperature must be above 0 (got -2)"),
        ({"temperature": math.nan}, ValueError, "temperature must be above 0 (got nan)"),
        (
            {"score": "margin"},
            ValueError,
            "score must be one of max_prob, entropy, sides, odds, deviation (got margin)",
        ),
        (
            {"layers": [(torch.ones(2, 3).double(), torch.ones(2))]},
            TypeError,
            "weight must be torch.float32 (got torch.float64)",
        ),
        (
            {"layers": [(torch.ones(2), torch.ones(2))]},
            ValueError,
            "weight must have shape (outputs, inputs) (got [2])",
        ),
        (
            {"layers": [(torch.ones(2, 0), torch.ones(2))]},
            ValueError,
            "weight must have shape (outputs, inputs) (got [2, 0])",
        ),
        ({"layers": [(torch.ones(2, 3), torch.ones(3))]}, ValueError, "bias must have shape [2] (got [3])"),
        ({"layers": [(torch.ones(2, 3), torch.ones(2, 1))]}, ValueError, "bias must have shape [2] (got [2, 1])"),
        (
            {"layers": [*random_layers(3, 4), *random_layers(5, 2)]},
            ValueError,
            "the second layer must take what the first gives, 4 (got 5)",
        ),
    ],
)
def test_what_no_off_ramp_can_be_is_refused(one_line_error, changed, kind, words):
    with one_line_error(kind, f"OffRamp: {words}"):
        OffRamp(**{"layers": random_layers(3, 2), "score": "entropy", "temperature": 1.0, **changed})


@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (torch.ones(2, 4), ValueError, "x must have shape [2, 3] (got [2, 4])"),
        (torch.ones(3), ValueError, "x must have shape [3, 3] (got [3])"),
        (torch.ones(2, 3).double(), TypeError, "x must be torch.float32 (got torch.float64)"),
    ],
    ids=["size", "one dim", "dtype"],
)
def test_rows_that_do_not_fit_are_refused(one_line_error, x, kind, words):
    with one_line_error(kind, f"OffRamp: {words}"):
        OffRamp(random_layers(3, 2), score="entropy", temperature=1.0).score(x)
