"""Off-ramps for labels that may hold at once, and for numbers, as the extension scores them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from moco_rt._C import BagOfTokens, Exits, OffRamp, PackedBatch, Results, ngram_buckets

never = math.inf
LEVELS, ODDS = [0.0, -1.5, 0.75], [0.5, never, -1.0]
#: Options of an off-ramp by its kind, but for the layers.
OPTIONS = {
    "sides": {"score": "sides", "temperature": 0.7, "levels": LEVELS},
    "odds": {"score": "odds", "temperature": 0.7, "levels": ODDS},
    "deviation": {"score": "deviation", "temperature": 1.0},
}


def layers_of(size, outputs, hidden=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [size, *([hidden] if hidden else []), outputs]
    return [
        (torch.randn(o, i, generator=generator) * 2 / i**0.5, torch.randn(o, generator=generator))
        for i, o in itertools.pairwise(sizes)
    ]


def rows_of(count, size, seed=1):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def plain(layers, x):
    """The outputs of plain torch, in the dtype of x."""
    for place, (weight, bias) in enumerate(layers):
        x = torch.nn.functional.linear(x.relu() if place else x, weight.to(x.dtype), bias.to(x.dtype))
    return x


def of_sides(z, temperature):
    """Scores and logits in the dtype of z: (rows,) and (rows, C)."""
    z = z / temperature
    return torch.nn.functional.logsigmoid((z - torch.tensor(LEVELS, dtype=z.dtype)).abs()).sum(1).exp(), z


def of_odds(z, temperature):
    """The same; the second of three classes is not compared with a level."""
    log_probs = (z / temperature).log_softmax(1)
    score = torch.zeros(len(z), dtype=z.dtype)
    for c, level in enumerate(ODDS):
        if level < never:
            others = log_probs[:, [other for other in range(3) if other != c]].logsumexp(1)
            score += torch.nn.functional.logsigmoid((log_probs[:, c] - others - level).abs())
    return score.exp(), log_probs


def of_deviation(z):
    estimates, log_deviations = z.chunk(2, dim=1)
    return 1 / (1 + log_deviations.amax(1).exp()), estimates


def make(kind, size=37, hidden=None):
    layers = [(w, b) for w, b in layers_of(size, 6 if kind == "deviation" else 3, hidden)]
    return OffRamp(layers, **OPTIONS[kind]), layers


def exact(kind, layers, x):
    return scored(kind, plain([(w.cpu(), b.cpu()) for w, b in layers], x))


def scored(kind, z):
    if kind == "deviation":
        return of_deviation(z)
    return of_sides(z, 0.7) if kind == "sides" else of_odds(z, 0.7)


kinds = pytest.mark.parametrize("kind", OPTIONS)
hiddens = pytest.mark.parametrize("hidden", [None, 64], ids=["one layer", "two layers"])


@kinds
@hiddens
@pytest.mark.parametrize("size", [1, 31, 256, 1000])
def test_it_errs_at_most_twice_as_much_as_plain_torch(kind, hidden, size):
    off_ramp, layers = make(kind, size, hidden)
    x = rows_of(200, size)
    (scores, groups), logits = off_ramp.answer(x)
    assert (scores.dtype, logits.dtype, logits.shape) == (torch.float32, torch.float32, (200, 3))
    assert not groups.any()
    for found, single, double in zip(
        (scores, logits), exact(kind, layers, x), exact(kind, layers, x.double()), strict=True
    ):
        torch_error = (single.double() - double).abs().max()
        assert (found.double() - double).abs().max() <= 2 * torch_error + 1e-6 * double.abs().max()


@kinds
@hiddens
def test_a_row_has_the_same_bits_alone_and_in_any_batch(kind, hidden):
    off_ramp, _ = make(kind, 256, hidden)
    x = rows_of(200, 256)
    scores, logits = off_ramp.answer(x)
    assert torch.equal(off_ramp.score(x), scores)
    for rows in ([0], [7], [199], [5, 3, 0], list(range(33)), list(range(199, -1, -1))):
        alone = off_ramp.answer(x[rows])
        assert torch.equal(alone[0], scores[:, rows])
        assert torch.equal(alone[1], logits[rows])


def identity(outputs, **options):
    return OffRamp([(torch.eye(outputs), torch.zeros(outputs))], **options)


def test_worked_rows_of_sides():
    off_ramp = identity(2, score="sides", temperature=2.0, levels=[0.0, 1.0])
    scores, logits = off_ramp.answer(torch.tensor([[4.0, -2.0], [0.0, 2.0], [-200.0, 200.0]]))
    expected = np.exp(log_expit([2.0, 0.0, 100.0]) + log_expit([2.0, 0.0, 99.0]))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
    assert logits.tolist() == [[2.0, -1.0], [0.0, 1.0], [-100.0, 100.0]]


def test_worked_rows_of_odds():
    off_ramp = identity(3, score="odds", temperature=1.0, levels=[math.log(4), never, never])
    z = torch.log(torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.2, 1e-30], [0.5, 0.5, 1e-30]]))
    scores, logits = off_ramp.answer(z)
    odds = np.log([9.0, 4.0, 1.0]) - np.log(4)
    np.testing.assert_allclose(scores[0], np.exp(log_expit(np.abs(odds))), rtol=1e-5)
    np.testing.assert_allclose(logits.exp(), z.exp(), rtol=1e-5, atol=1e-7)


def test_worked_rows_of_deviation():
    off_ramp = identity(4, score="deviation", temperature=1.0)
    scores, logits = off_ramp.answer(torch.tensor([[3.0, -4.0, 0.0, -1.0], [3.0, 4.0, -100.0, -90.0], [1, 2, 0, 1000]]))
    np.testing.assert_allclose(scores[0], [0.5, 1.0, 0.0], rtol=1e-6)
    assert logits.tolist() == [[3.0, -4.0], [3.0, 4.0], [1.0, 2.0]]


@kinds
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("output", [0, 1, 2, 3])
def test_a_row_with_an_output_that_is_not_finite_has_no_score(kind, broken, output):
    levels = {} if kind == "deviation" else {"levels": [0.0] * 4}
    off_ramp = identity(4, score=kind, temperature=1.0, **levels)
    z = torch.zeros(3, 4)
    z[1, output] = broken
    # Through the off-ramp's bias, for products with the identity would break all outputs.
    whole = off_ramp.score(torch.zeros(1, 4))[0, 0]
    found = off_ramp.score(z)[0]
    assert found[0] == found[2] == whole
    assert found[1].isnan()


def test_no_rows_have_no_scores():
    scores, logits = make("deviation")[0].answer(torch.zeros(0, 37))
    assert (scores.shape, logits.shape) == ((2, 0), (0, 3))


# Bags of tokens


def ids_of(*lengths):
    """A batch of random ids, before it is embedded."""
    ids = torch.randint(0, 1000, (sum(lengths),), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return batch_of(ids, lengths)


def batch_of(ids, lengths):
    batch = PackedBatch.of_lengths(torch.tensor(lengths))
    batch.take_ids(ids, None)
    return batch


def make_bag(kind):
    (table, bias), *_ = layers_of(128, 6 if kind == "deviation" else 3)
    table = table.T.contiguous() * 3
    return BagOfTokens(table, bias, **OPTIONS[kind]), table, bias


@kinds
def test_a_bag_scores_as_an_off_ramp_does(kind):
    bag, table, bias = make_bag(kind)
    batch = ids_of(3, 1, 40, 7)
    (scores, groups), logits = bag.answer(batch)
    counts = 2 * torch.tensor([3, 1, 40, 7]) - 1
    sums = [rows.sum(0) for rows in table[ngram_buckets(batch, 128)].double().split(counts.tolist())]
    z = bias.double() + torch.stack(sums) / counts.double().sqrt()[:, None]
    expected = scored(kind, z)
    torch.testing.assert_close(scores.double(), expected[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(logits.double(), expected[1], rtol=1e-5, atol=1e-5)
    assert not groups.any()


@kinds
def test_a_bag_lets_rows_leave_before_they_are_embedded(kind):
    bag = make_bag(kind)[0]
    batch = ids_of(*[5] * 20)
    (score, _), logits = bag.answer(batch)
    exits = Exits(9, 3)
    exits.add_bag(2, bag=bag, thresholds=[float(score.median())])
    results = Results(20, 3, dtype=torch.bfloat16)
    left = score > score.median()
    assert exits.apply(batch, results) == int(left.sum()) > 0
    assert torch.equal(results.logits[left], logits[left].to(torch.bfloat16))
    with pytest.raises(ValueError, match=r"^Exits: bag must have 3 classes and 1 thresholds \(got 3 and 3\)$"):
        exits.add_bag(2, bag=bag, thresholds=[0.5] * 3)


# As exits


def pack(x):
    batch = PackedBatch(torch.ones(len(x), 1, dtype=torch.bool))
    batch.unpad(x[:, None])
    return batch


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_above_the_threshold_leave_with_the_off_ramps_own_logits_rounded(kind, dtype):
    off_ramp, _ = make(kind)
    x = rows_of(50, 37)
    (score, _), logits = off_ramp.answer(x)
    threshold = float(score.median())
    exits = Exits(4, 3)
    exits.add_off_ramp(7, feature="cls", off_ramp=off_ramp, thresholds=[threshold], patience=1)
    batch, results = pack(x), Results(50, 3, dtype=dtype)
    left = score > threshold
    assert exits.apply(batch, results) == int(left.sum()) > 0
    assert torch.equal(results.exit_site, torch.where(left, 4, -1))
    assert torch.equal(results.exit_rule, torch.where(left, 7, -1))
    assert torch.equal(results.logits[left], logits[left].to(dtype))
    assert batch.row_ids.tolist() == (~left).nonzero()[:, 0].tolist()


def test_a_single_number_is_enough():
    off_ramp = identity(2, score="deviation", temperature=1.0)
    exits = Exits(0, 1)
    exits.add_off_ramp(0, feature="cls", off_ramp=off_ramp, thresholds=[0.5], patience=1)
    batch, results = (
        pack(torch.tensor([[3.0, -1.0], [4.0, 1.0]])),
        Results(2, 1, dtype=torch.float32),
    )
    assert exits.apply(batch, results) == 1
    assert results.logits.tolist() == [[3.0], [0.0]]


# What is refused


@pytest.mark.parametrize(
    ("outputs", "options", "words"),
    [
        (3, {"score": "sides", "temperature": 1.0}, "OffRamp: levels must have 3 values (got 0)"),
        (3, {"score": "sides", "temperature": 1.0, "levels": [0.0]}, "OffRamp: levels must have 3 values (got 1)"),
        (3, {"score": "odds", "temperature": 1.0}, "OffRamp: levels must have 3 values (got 0)"),
        (4, {"score": "deviation", "temperature": 1.0, "levels": [0.0]}, "OffRamp: levels must have 0 values (got 1)"),
        (3, {"score": "max_prob", "temperature": 1.0, "levels": [0.0] * 3}, "levels must have 0 values (got 3)"),
        (
            3,
            {"score": "deviation", "temperature": 1.0},
            "OffRamp: outputs must come in pairs of the score deviation (got 3)",
        ),
        (
            4,
            {"score": "deviation", "temperature": 2.0},
            "OffRamp: temperature must be 1 of the score deviation (got 2)",
        ),
    ],
)
def test_what_does_not_fit_the_score_is_refused(one_line_error, outputs, options, words):
    with one_line_error(ValueError, words):
        identity(outputs, **options)


@pytest.mark.parametrize(("kind", "thresholds"), [("sides", 3), ("sides", 0), ("deviation", 3)])
def test_more_than_one_threshold_is_refused(one_line_error, kind, thresholds):
    words = f"Exits: off_ramp must have 3 classes and 1 thresholds (got 3 and {thresholds})"
    with one_line_error(ValueError, words):
        Exits(0, 3).add_off_ramp(0, feature="cls", off_ramp=make(kind)[0], thresholds=[0.0] * thresholds, patience=1)
