"""Exits that are made of off-ramps: who leaves by them and with what, patience, broken rows, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moco_rt._C import Exits, OffRamp, PackedBatch, Results

SITE = 3
SCORES = ("max_prob", "entropy")
LOGITS = torch.tensor([[0.5, -1.0, 2.0], [4.0, 0.25, -8.0], [-0.125, 16.0, 1.0]])  # of rules with a class of their own
STAYED = [0.0, 0.0, 0.0], -1, -1
TWO_CLASSES = [(torch.ones(2, 3), torch.zeros(2))]


def pack(*rows):
    """A batch of rows [(length, D)], lists of lists."""
    rows = [torch.tensor(row, dtype=torch.float32) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    batch = PackedBatch(torch.arange(int(lengths.max())) < lengths[:, None])
    batch.unpad(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    return batch


def sure(predicted, prob):
    """The one token of a row to which the plain off-ramp gives this class with this probability."""
    return [[math.log(prob) if c == predicted else math.log((1 - prob) / 2) for c in range(3)]]


def plain_off_ramp(score="max_prob", size=3):
    """Whose logits are the first numbers of the feature."""
    layers = [(torch.eye(3, size), torch.zeros(3))]
    return OffRamp(layers, score=score, temperature=1.0)


def exits_with(thresholds, site=SITE, *, rule_id=0, feature="cls", patience=1, off_ramp=None):
    exits = Exits(site, 3)
    add_off_ramp(exits, thresholds, rule_id, feature=feature, patience=patience, off_ramp=off_ramp)
    return exits


def add_off_ramp(exits, thresholds, rule_id=0, *, feature="cls", patience=1, off_ramp=None):
    off_ramp = off_ramp or plain_off_ramp()
    exits.add_off_ramp(rule_id, feature=feature, off_ramp=off_ramp, thresholds=list(thresholds), patience=patience)


def results_for(batch):
    return Results(batch.rows, 3, dtype=batch.hidden.dtype)


def outcome(results):
    """[(logits, exit_site, exit_rule)] by original row; logits are compared as closely as float32 allows."""
    columns = (results.logits.tolist(), results.exit_site.tolist(), results.exit_rule.tolist())
    return [(pytest.approx(logits, rel=1e-5, abs=1e-6), *left) for logits, *left in zip(*columns, strict=True)]


def left_as(predicted, prob, rule_id=0, site=SITE):
    """The outcome of a row that leaves by the plain off-ramp, which gives this class this probability."""
    return sure(predicted, prob)[0], site, rule_id


def log_softmax(logits):
    """In float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_rows_leave_above_the_threshold_of_the_class_they_are_given_with_their_own_probabilities():
    rows = sure(0, 0.9), sure(1, 0.9), sure(2, 0.9), sure(0, 0.7), sure(1, 0.99), sure(2, 0.5)
    batch = pack(*rows)
    results = results_for(batch)
    assert exits_with([0.8, 0.95, 0.6]).apply(batch, results) == 3
    assert outcome(results) == [left_as(0, 0.9), STAYED, left_as(2, 0.9), STAYED, left_as(1, 0.99), STAYED]
    assert batch.row_ids.tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("threshold", "leaves"), [(math.inf, False), (math.nan, False), (-math.inf, True), (0.0, True), (1.0, False)]
)
def test_a_class_whose_threshold_nothing_exceeds_never_leaves(threshold, leaves):
    batch = pack(sure(0, 0.9), sure(1, 0.999), sure(2, 0.9), sure(1, 0.4))
    results = results_for(batch)
    exits_with([0.8, threshold, 0.8]).apply(batch, results)
    of_class = [left_as(1, prob) if leaves else STAYED for prob in (0.999, 0.4)]
    assert outcome(results) == [left_as(0, 0.9), of_class[0], left_as(2, 0.9), of_class[1]]


@pytest.mark.parametrize("score", SCORES)
def test_a_score_fires_above_its_threshold_and_not_at_it(score):
    off_ramp = plain_off_ramp(score)
    rows = sure(0, 0.9), sure(1, 0.6)
    scores = off_ramp.score(torch.tensor([row[0] for row in rows]))[0].tolist()
    below = [float(np.nextafter(np.float32(value), np.float32(-np.inf))) for value in scores]
    for thresholds, left in (([*scores, 0.0], 0), ([*below, 0.0], 2)):
        batch = pack(*rows)
        assert exits_with(thresholds, off_ramp=off_ramp).apply(batch, results_for(batch)) == left


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("cls", [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]),
        ("mean", [[2.0, 0.0, 4.0], [0.0, 4.0, 0.0]]),
        ("cls+mean", [[4.0, 0.0, 9.0], [9.0, 4.0, 0.0]]),
    ],
)
def test_an_off_ramp_reads_its_feature(feature, expected):
    batch = pack([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0]], [[9.0, 0.0, 0.0]])
    batch.keep_mean()
    batch.unpad(torch.tensor([[[4.0, 0.0, 0.0], [0.0, 0.0, 8.0]], [[0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]))
    size = 6 if feature == "cls+mean" else 3
    weight = torch.eye(3).repeat(1, size // 3)  # cls + mean
    off_ramp = OffRamp([(weight, torch.zeros(3))], score="max_prob", temperature=1.0)
    results = results_for(batch)
    exits_with([0.5] * 3, feature=feature, off_ramp=off_ramp).apply(batch, results)
    assert outcome(results) == [(log_softmax(logits).tolist(), SITE, 0) for logits in expected]


def test_the_first_added_that_fires_wins_whatever_it_is():
    rows = [sure(0, 0.99), sure(1, 0.99), sure(2, 0.8), sure(1, 0.8)]
    batch = pack(*rows)
    results = results_for(batch)
    exits = Exits(SITE, 3)
    add_off_ramp(exits, [0.9, math.inf, math.inf], 0)
    exits.add_callable(1, LOGITS[2])
    add_off_ramp(exits, [0.7, 0.9, 0.7], 2)
    weight = torch.tensor([0.0, 1.0, 0.0])  # log p(1)
    exits.add_linear(3, LOGITS[0], feature="cls", weight=weight, bias=0.0, threshold=-1.0)
    answers = torch.tensor([True, False, False, False])
    assert exits.apply(batch, results, [answers]) == 4
    by_rules = [(LOGITS[0].tolist(), SITE, 3)]
    assert outcome(results) == [left_as(0, 0.99), left_as(1, 0.99, 2), left_as(2, 0.8, 2), *by_rules]


# What rows leave with


def leave_all(off_ramp, x, dtype=torch.float32):
    """The logits of rows (n, D), one token each, that all leave by an off-ramp."""
    batch = PackedBatch.of_lengths(torch.ones(len(x), dtype=torch.long))
    batch.unpad(x[:, None])
    results = Results(len(x), 3, dtype=dtype)
    assert exits_with([-math.inf] * 3, off_ramp=off_ramp).apply(batch, results) == len(x)
    return results.logits


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("hidden", [0, 7], ids=["one layer", "two layers"])
def test_rows_leave_with_the_off_ramps_own_log_probabilities(hidden, temperature, score):
    rng = np.random.default_rng(0)
    sizes = [5, *([hidden] if hidden else []), 3]
    layers = [(rng.normal(size=(o, i)), rng.normal(size=o)) for i, o in zip(sizes, sizes[1:])]  # noqa: B905, RUF007
    x = rng.normal(size=(40, 5))
    expected = x
    for place, (weight, bias) in enumerate(layers):
        expected = (np.maximum(expected, 0) if place else expected) @ weight.T + bias
    as_tensors = [(torch.tensor(w).float(), torch.tensor(b).float()) for w, b in layers]
    off_ramp = OffRamp(as_tensors, score=score, temperature=temperature)
    found = leave_all(off_ramp, torch.tensor(x).float())
    np.testing.assert_allclose(found, log_softmax(expected / temperature), rtol=1e-5, atol=2e-5)
    assert len(found.unique(dim=0)) == len(found)  # no two rows share their probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_label_is_the_predicted_class_however_its_probability_is_rounded(dtype):
    """Also where two logits tie: the first class is predicted."""
    nearly = [[0.0, float(np.float32(gap)), -1.0] for gap in (1e-30, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2)]
    x = torch.tensor([*nearly, [2.0, 2.0, 2.0], [1.0, 2.0, 2.0], [0.0, 0.0, -5.0], [-9.0, -9.0, -9.0]])
    off_ramp = plain_off_ramp()
    predicted = off_ramp.score(x)[1].long()
    assert predicted.tolist() == [1] * 6 + [0, 1, 0, 0]
    logits = leave_all(off_ramp, x, dtype)
    assert logits.dtype == dtype
    assert torch.equal(logits.argmax(1), predicted)
    # Nor does it share its place with another class, so that classes may be put in another order.
    assert torch.equal(logits.flip(1).argmax(1), 2 - predicted)
    exact = torch.from_numpy(log_softmax(x.double().numpy()))
    assert ((logits - exact).abs() <= 3 * max(torch.finfo(dtype).eps, 1e-7) * exact.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_leaves_with_the_same_bits_alone_and_in_any_batch(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 37, generator=generator)
    layers = [(torch.randn(3, 37, generator=generator), torch.randn(3, generator=generator))]
    off_ramp = OffRamp(layers, score="max_prob", temperature=1.7)
    together = leave_all(off_ramp, x, dtype)
    for rows in ([0], [99], [5, 3, 0], list(range(33))):
        assert torch.equal(leave_all(off_ramp, x[rows], dtype), together[rows])


# Log-odds that are replaced by a line of them


def with_lines(lines, dtype=torch.float32):
    """`leave(rows)`: probabilities with which rows leave that the plain off-ramp gives these log-probabilities."""

    def leave(rows):
        batch = pack(*([row] for row in rows))
        results = Results(len(rows), 3, dtype=dtype)
        exits = Exits(SITE, 3)
        exits.add_off_ramp(
            0, feature="cls", off_ramp=plain_off_ramp(), thresholds=[-math.inf] * 3, patience=1, log_odds=lines
        )
        exits.apply(batch, results)
        return results.logits.double().exp()

    return leave


def odds(prob):
    return math.log(prob / (1 - prob))


def test_the_log_odds_of_the_predicted_class_follow_its_line():
    rows = np.log([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.1, 0.15, 0.75]])
    found = with_lines([2.0, 0.5, 0.0, 1.25, 1.0, 0.0])(rows.tolist())
    expected = [2 * odds(0.9) + 0.5, 1.25, odds(0.75)]
    for c, log_odds in enumerate(expected):
        assert odds(float(found[c, c])) == pytest.approx(log_odds, rel=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    others = found[0, 1:] / found[0, 1:].sum()
    np.testing.assert_allclose(others, [0.6, 0.4], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shift", [-1000.0, -3.0, 0.0, 1000.0])
def test_the_predicted_class_stays_the_likeliest_whatever_the_line(shift, dtype):
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 3, (200, 3)).astype(np.float32)
    found = with_lines([0.5, shift] * 3, dtype)(rows.tolist())
    assert torch.isfinite(found).all()
    assert found.argmax(1).tolist() == rows.argmax(1).tolist()


def test_a_certain_class_stays_certain():
    found = with_lines([1.0, -1.0] * 3)([[0.0, -1e30, -1e30]])
    assert found.tolist() == [[1.0, 0.0, 0.0]]


def test_a_row_with_lines_has_the_same_bits_alone_and_in_any_batch():
    rows = np.random.default_rng(1).normal(0, 3, (50, 3)).tolist()
    leave = with_lines([0.7, 1.3, 1.1, -0.2, 0.0, 4.0])
    together = leave(rows)
    for place in range(0, 50, 7):
        assert torch.equal(leave([rows[place]])[0], together[place])


# Patience: each tuple is what the off-ramps at sites 0, 1, 2 say of one row, and where it leaves.


def walk(rows, patience, thresholds=(0.0, 0.0, 0.0)):
    """Where rows leave that get these (class, probability) at three sites: [site or -1]."""
    batch = pack(*(sure(*row[0]) for row in rows))
    results = results_for(batch)
    for site in range(3):
        batch.unpad(torch.tensor([sure(*rows[row][site]) for row in batch.row_ids.tolist()]))
        exits_with(thresholds, site, rule_id=site, patience=patience).apply(batch, results)
        if batch.rows == 0:
            break
    return results.exit_site.tolist()


@pytest.mark.parametrize(
    ("patience", "expected"), [(1, [0, 0, 0, 0]), (2, [1, 2, -1, 1]), (3, [2, -1, -1, -1]), (4, [-1] * 4)]
)
def test_patience_waits_for_so_many_off_ramps_in_a_row_to_agree(patience, expected):
    classes = [(1, 1, 1), (1, 2, 2), (1, 2, 1), (0, 0, 2)]
    assert walk([[(c, 0.9) for c in row] for row in classes], patience) == expected


def test_an_off_ramp_that_is_unsure_counts_for_the_streak_and_lets_nobody_leave():
    rows = [[(1, 0.5), (1, 0.9), (1, 0.9)], [(1, 0.9), (1, 0.5), (1, 0.9)], [(1, 0.9), (1, 0.9), (1, 0.9)]]
    assert walk(rows, patience=2, thresholds=[0.8] * 3) == [1, 2, 1]


def test_a_streak_is_a_rows_own_whoever_leaves_around_it():
    rows = [[(0, 0.9)] * 3, [(1, 0.9), (0, 0.9), (0, 0.9)], [(2, 0.9)] * 3, [(1, 0.9), (2, 0.9), (0, 0.9)]]
    assert walk(rows, patience=2) == [1, 2, 1, -1]


def test_streaks_belong_to_one_batch_of_results():
    exits = exits_with([0.0] * 3, patience=2)
    for _ in range(2):
        batch = pack(sure(1, 0.9))
        assert exits.apply(batch, results_for(batch)) == 0


def test_two_off_ramps_of_one_site_are_two_in_a_row():
    batch = pack(sure(1, 0.9))
    results = results_for(batch)
    exits = exits_with([0.0] * 3, patience=2)
    add_off_ramp(exits, [0.0] * 3, rule_id=1, patience=2)
    exits.apply(batch, results)
    assert outcome(results) == [left_as(1, 0.9, rule_id=1)]


def test_streaks_are_not_counted_where_the_caller_says_that_nobody_is_patient(one_line_error):
    exits = Exits(SITE, 3, count_streaks=False)
    with one_line_error(ValueError, "Exits: patience must be 1 where streaks are not counted (got 2)"):
        add_off_ramp(exits, [0.0] * 3, rule_id=0, patience=2)
    add_off_ramp(exits, [0.8] * 3, rule_id=1)
    batch = pack(sure(1, 0.9), sure(2, 0.7))
    results = results_for(batch)
    assert exits.apply(batch, results) == 1
    assert outcome(results) == [left_as(1, 0.9, rule_id=1), STAYED]


# Rows that are broken


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("place", [0, 1], ids=["first token", "another token"])
@pytest.mark.parametrize("feature", ["cls", "mean", "cls+mean"])
@pytest.mark.parametrize("hidden", [False, True], ids=["one layer", "two layers"])
def test_a_row_with_a_number_that_is_not_finite_never_leaves(hidden, feature, place, sign, value):
    """Nor where a ReLU makes minus infinity, or a weight of 0 all of it, finite again."""
    fine = [[1.0, 1.0], [1.0, 1.0]]
    broken = [list(token) for token in fine]
    broken[place][1] = value
    batch = pack(fine, broken, fine)
    batch.keep_mean()
    size = 4 if feature == "cls+mean" else 2
    layers = [(torch.full((3, size), sign), torch.tensor([1.0, 0.0, 0.0]))]
    layers += [(torch.eye(3), torch.zeros(3))] if hidden else []
    off_ramp = OffRamp([(w, b) for w, b in layers], score="max_prob", temperature=1.0)
    results = results_for(batch)
    exits = exits_with([-math.inf] * 3, feature=feature, off_ramp=off_ramp)
    assert exits.apply(batch, results) == 2
    assert results.exit_site.tolist() == [SITE, -1, SITE]
    assert results.logits[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_whose_kept_mean_was_broken_never_leaves_by_it(value):
    batch = pack([[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, value]])
    batch.keep_mean()
    batch.unpad(torch.ones(2, 2, 2))
    layers = [(-torch.ones(3, 4), torch.zeros(3))]
    layers += [(torch.eye(3), torch.zeros(3))]
    off_ramp = OffRamp(layers, score="max_prob", temperature=1.0)
    results = results_for(batch)
    exits_with([-math.inf] * 3, feature="cls+mean", off_ramp=off_ramp).apply(batch, results)
    assert results.exit_site.tolist() == [SITE, -1]


# What exits refuse


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"thresholds": [0.0] * 2}, "Exits: off_ramp must have 3 classes and 3 thresholds (got 3 and 2)"),
        (
            {"off_ramp": OffRamp(TWO_CLASSES, score="entropy", temperature=1.0)},
            "Exits: off_ramp must have 3 classes and 3 thresholds (got 2 and 3)",
        ),
        ({"patience": 0}, "Exits: patience must be at least 1 (got 0)"),
        ({"log_odds": [1.0, 0.0]}, "Exits: log_odds must have 2 * 3 values of a single class, else none (got 2)"),
        ({"log_odds": [1.0, 0.0] * 2 + [-0.5, 0.0]}, "Exits: log_odds must be finite, slopes not negative (got -0.5)"),
        ({"log_odds": [1.0, math.nan] * 3}, "Exits: log_odds must be finite, slopes not negative (got nan)"),
        ({"rule_id": -1}, "Exits: rule_id must be at least 0 (got -1)"),
        ({"feature": "max"}, "feature must be one of cls, mean, flat, cls+mean (got max)"),
    ],
)
def test_a_bad_exit_is_refused_and_not_added(one_line_error, changed, words):
    good = {"feature": "cls", "off_ramp": plain_off_ramp(), "thresholds": [-1.0] * 3, "patience": 1}
    exits = Exits(SITE, 3)
    with one_line_error(ValueError, words):
        exits.add_off_ramp(**{"rule_id": 0, **good, **changed})
    batch = pack(sure(0, 0.9))
    assert exits.apply(batch, results_for(batch)) == 0


@pytest.mark.parametrize(
    ("feature", "size", "words"),
    [
        ("cls", 4, "weight of rule 0 must have size 3, the hidden size (got 4)"),
        ("mean", 6, "weight of rule 0 must have size 3, the hidden size (got 6)"),
        ("cls+mean", 3, "weight of rule 0 must have size 2 * 3, the hidden size (got 3)"),
    ],
)
def test_an_off_ramp_that_does_not_fit_the_batch_is_refused(one_line_error, feature, size, words):
    batch = pack(sure(0, 0.9))
    results = results_for(batch)
    exits = exits_with([-1.0] * 3, feature=feature, off_ramp=plain_off_ramp(size=size))
    with one_line_error(ValueError, words):
        exits.apply(batch, results)
    assert outcome(results) == [STAYED]
    assert batch.rows == 1


def test_cls_and_mean_are_not_read_before_a_mean_was_kept(one_line_error):
    batch = pack(sure(0, 0.9))
    exits = exits_with([-1.0] * 3, feature="cls+mean", off_ramp=plain_off_ramp(size=6))
    with one_line_error(ValueError, "pool: cls+mean needs the mean of an earlier keep_mean (got none)"):
        exits.apply(batch, results_for(batch))
