from __future__ import annotations

import bisect
import math

import numpy as np
import pytest
import torch

from moco_rt._C import Exits, PackedBatch, Results

SITE = 3
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
LOGITS = torch.tensor([[0.5, -1.0, 2.0], [4.0, 0.25, -8.0], [-0.125, 16.0, 1.0]])  # of rules 0, 1, 2
NEVER = [0.0, 0.0, 0.0], -1, -1


def pack(*rows, dtype=torch.float32, tokens=None):
    """A batch of rows [(length, D)], tensors or lists, padded with NaN up to `tokens`."""
    rows = [torch.as_tensor(row).to(dtype) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    longest = tokens or int(lengths.max())
    padded = torch.full((len(rows), longest, rows[0].shape[1]), math.nan, dtype=dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    batch = PackedBatch(torch.arange(longest) < lengths[:, None])
    batch.unpad(padded)
    return batch


def numbers(*values, **options):
    """A batch of rows of one token and D = 1, so that `cls @ [1]` is the value itself."""
    return pack(*([[value]] for value in values), **options)


def results_for(batch, classes=3):
    return Results(batch.rows, classes, dtype=batch.hidden.dtype)


def add_linear(exits, rule_id, weight=(1.0,), threshold=0.0, *, feature="cls", bias=0.0):
    weight = torch.tensor(weight)
    exits.add_linear(rule_id, LOGITS[rule_id], feature=feature, weight=weight, bias=bias, threshold=threshold)


def linear_exits(*args, **options):
    exits = Exits(SITE, 3)
    add_linear(exits, 0, *args, **options)
    return exits


def mask(*answers):
    return torch.tensor(answers, dtype=torch.bool)


def outcome(results):
    """[(logits, exit_site, exit_rule)] by original row."""
    columns = (results.logits.tolist(), results.exit_site.tolist(), results.exit_rule.tolist())
    return list(zip(*columns, strict=True))


def left_by(rule_id, site=SITE):
    return LOGITS[rule_id].tolist(), site, rule_id


def fires(batch, weight, threshold, feature="cls", bias=0.0):
    """Which rows of a batch a rule fires on, as a list of bool; the batch is used up."""
    results = results_for(batch)
    exits = Exits(SITE, 3)
    exits.add_linear(0, LOGITS[0], feature=feature, weight=weight, bias=bias, threshold=threshold)
    left = exits.apply(batch, results)
    fired = (results.exit_rule == 0).tolist()
    assert left == sum(fired)
    return fired


def score_of(row, weight, feature="cls", bias=0.0):
    """The score that one row (length, D) gets, to the last bit: the least float32 threshold that it does not exceed."""

    def stays(ordinal):
        return not fires(pack(row, dtype=row.dtype), weight, float32_at(ordinal), feature, bias)[0]

    largest = int(np.float32(np.finfo(np.float32).max).view(np.int32))
    ordinals = range(-largest, largest + 1)
    return float32_at(ordinals[bisect.bisect_left(ordinals, True, key=stays)])


def float32_at(ordinal):
    """The float32 numbers in their order, 0 at ordinal 0."""
    return math.copysign(float(np.int32(abs(ordinal)).view(np.float32)), ordinal)


# Who leaves, and with what


def test_the_first_rule_that_fires_wins():
    batch = numbers(1.0, 3.0, 5.0, 7.0)
    results = results_for(batch)
    exits = Exits(SITE, 3)
    add_linear(exits, 2, threshold=6.0)
    add_linear(exits, 0, threshold=4.0)
    add_linear(exits, 1, threshold=2.0)
    assert exits.apply(batch, results) == 3
    assert outcome(results) == [NEVER, left_by(1), left_by(0), left_by(2)]
    assert batch.row_ids.tolist() == [0]
    assert batch.hidden.tolist() == [[1]]


def test_the_order_of_rules_is_the_order_they_were_added_in():
    batch = numbers(7.0)
    results = results_for(batch)
    exits = Exits(SITE, 3)
    add_linear(exits, 2, threshold=2.0)
    add_linear(exits, 0, threshold=6.0)
    exits.apply(batch, results)
    assert outcome(results) == [left_by(2)]


def test_rows_keep_their_place_through_two_sites_and_the_end():
    batch = numbers(1.0, 9.0, 2.0, 5.0, 3.0)
    results = results_for(batch)
    first, second = Exits(0, 3), Exits(4, 3)
    add_linear(first, 0, threshold=8.0)
    add_linear(second, 1, threshold=2.5)

    assert first.apply(batch, results) == 1
    assert batch.row_ids.tolist() == [0, 2, 3, 4]
    batch.unpad(batch.pad())  # the layer between the two
    assert second.apply(batch, results) == 2
    assert batch.row_ids.tolist() == [0, 2]
    last = torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])
    results.write_last(batch, last)

    assert outcome(results) == [
        ([10.0, 11.0, 12.0], -1, -1),
        left_by(0, site=0),
        ([20.0, 21.0, 22.0], -1, -1),
        left_by(1, site=4),
        left_by(1, site=4),
    ]


def test_no_row_leaves_where_no_rule_fires():
    batch = numbers(1.0, 2.0)
    results = results_for(batch)
    assert linear_exits(threshold=2.0).apply(batch, results) == 0
    assert outcome(results) == [NEVER, NEVER]
    assert batch.hidden.tolist() == [[1], [2]]


def test_no_row_leaves_where_there_is_no_rule():
    batch = numbers(1.0, 2.0)
    results = results_for(batch)
    assert Exits(SITE, 3).apply(batch, results) == 0
    assert outcome(results) == [NEVER, NEVER]


def test_all_rows_may_leave_and_an_empty_batch_has_none_left_to():
    batch = numbers(1.0, 2.0)
    results = results_for(batch)
    exits = linear_exits(threshold=-math.inf)
    assert exits.apply(batch, results) == 2
    assert (batch.rows, batch.total_tokens, batch.max_seqlen) == (0, 0, 0)
    assert exits.apply(batch, results) == 0
    results.write_last(batch, torch.ones(0, 3))
    assert outcome(results) == [left_by(0), left_by(0)]


def test_callables_and_linear_rules_are_tried_in_the_order_they_were_added():
    batch = numbers(5.0, 5.0, 1.0, 1.0, 1.0)
    results = results_for(batch)
    exits = Exits(SITE, 3)
    exits.add_callable(0, LOGITS[0])
    add_linear(exits, 1, threshold=4.0)
    exits.add_callable(2, LOGITS[2])
    fires = [
        mask(True, False, False, True, False),
        mask(True, True, True, True, False),
    ]
    assert exits.apply(batch, results, fires) == 4
    assert outcome(results) == [left_by(0), left_by(1), left_by(2), left_by(0), NEVER]
    assert batch.row_ids.tolist() == [4]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_are_written_in_the_dtype_of_the_results(dtype):
    batch = numbers(1.0, dtype=dtype)
    results = results_for(batch)
    linear_exits().apply(batch, results)
    assert results.logits.dtype == dtype
    assert outcome(results) == [left_by(0)]


def test_results_start_as_nothing():
    results = Results(2, 3, dtype=torch.float64)
    assert outcome(results) == [NEVER, NEVER]
    assert (results.exit_site.dtype, results.exit_rule.dtype) == (torch.int64, torch.int64)


# When a rule fires


@pytest.mark.parametrize("value", [0.0, 0.1, -3.5, 1e-30, 1e30])
def test_a_score_fires_above_its_threshold_and_not_at_it(value):
    value = float(np.float32(value))
    below = float(np.nextafter(np.float32(value), np.float32(-np.inf)))
    weight = torch.ones(1)
    assert fires(numbers(value), weight, value) == [False]
    assert fires(numbers(value), weight, below) == [True]


def test_a_threshold_given_in_double_precision_is_compared_as_float32():
    assert fires(numbers(0.7), torch.ones(1), 0.7) == [False]


def test_weight_bias_and_threshold_of_a_worked_rule():
    batch = pack([[1.0, 2.0]], [[3.0, -1.0]], [[0.0, 5.0]])  # 2 x - y + 0.5: 0.5, 7.5, -4.5
    weight = torch.tensor([2.0, -1.0])
    assert fires(batch, weight, threshold=0.25, bias=0.5) == [True, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", ["cls", "mean", "flat"])
def test_a_row_with_a_number_that_is_not_finite_never_fires(feature, dtype, weight, value):
    rows = [[1.0, 1.0]], [[value, 1.0]], [[1.0, value]], [[1.0, 1.0]]
    batch = pack(*rows, dtype=dtype)
    weight = torch.full((2,), weight)
    assert fires(batch, weight, -math.inf, feature) == [True, False, False, True]


def test_a_score_that_overflows_never_fires():
    weight = torch.full((1,), 1e30)
    assert fires(numbers(1e30, 1.0), weight, 0.0) == [False, True]


@pytest.mark.parametrize("threshold", [math.inf, math.nan])
def test_a_threshold_that_nothing_exceeds_keeps_every_row(threshold):
    weight = torch.ones(1)
    assert fires(numbers(1.0, 3e38), weight, threshold) == [False, False]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("feature", "weight", "threshold", "expected"),
    [
        ("cls", [1.0, 0.0], 4.5, [False, True]),  # 1, 5
        ("mean", [1.0, 0.0], 4.5, [False, True]),  # 3, 5
        ("mean", [0.0, 1.0], 6.5, [False, True]),  # 5, 7
        ("flat", [0.0, 0.0, 0.0, 1.0], 7.5, [True, False]),  # 8, 0
        ("flat", [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], 6.5, [False, True]),  # 2, 7; a third token that no row has
    ],
)
def test_a_rule_reads_its_feature(dtype, feature, weight, threshold, expected):
    batch = pack([[1.0, 2.0], [5.0, 8.0]], [[5.0, 7.0]], dtype=dtype)
    assert fires(batch, torch.tensor(weight), threshold, feature) == expected


def test_rules_of_one_site_may_read_different_features_and_sizes():
    batch = pack([[1.0], [5.0]], [[2.0], [3.0]], [[4.0], [-9.0]], [[0.0], [0.0]])
    results = results_for(batch)
    exits = Exits(SITE, 3)
    add_linear(exits, 0, [0.0, 1.0], 4.0, feature="flat")  # 5, 3, -9, 0
    add_linear(exits, 1, [1.0], 2.25, feature="mean")  # 3, 2.5, -2.5, 0
    add_linear(exits, 2, [1.0, 0.0, 0.0], 3.0, feature="flat")  # 1, 2, 4, 0
    assert exits.apply(batch, results) == 3
    assert outcome(results) == [left_by(0), left_by(1), left_by(2), NEVER]


def test_a_strided_weight_is_read_as_it_looks():
    weight = torch.tensor([2.0, 9.0, -1.0, 9.0])[::2]
    assert fires(pack([[1.0, 1.0]], [[1.0, 3.0]]), weight, 0.0) == [True, False]


# How exact the score is


@pytest.mark.parametrize("dim", [1, 7, 31, 32, 33, 128, 384, 768])
def test_linear_score_is_within_twice_the_error_of_plain_torch(dim):
    """Both against float64."""
    generator = torch.Generator().manual_seed(dim)
    x = torch.randn(64, dim, generator=generator)
    weight = torch.randn(dim, generator=generator)
    exact = x.double() @ weight.double() + 0.25
    score = torch.tensor([score_of(row[None], weight, bias=0.25) for row in x], dtype=torch.float64)
    ours = (score - exact).abs().max()
    plain = (x @ weight + 0.25 - exact).abs().max()
    assert ours <= 2 * plain


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", ["cls", "mean", "flat"])
def test_the_decision_on_a_row_has_the_same_bits_alone_and_in_any_batch(feature, dtype):
    dim = 37
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(length, dim, generator=generator).to(dtype) for length in (1, 2, 5, 7, 9)]
    weight = torch.randn(9 * dim if feature == "flat" else dim, generator=generator)
    for order, tokens in (([0, 1, 2, 3, 4], 9), ([4, 2, 0, 3, 1], 12), ([3, 3, 1], 7), ([2, 4], 9)):
        for place, row in enumerate(order):
            score = score_of(rows[row], weight, feature)
            below = float(np.nextafter(np.float32(score), np.float32(-np.inf)))
            together = [rows[r] for r in order]
            assert not fires(pack(*together, dtype=dtype, tokens=tokens), weight, score, feature)[place]
            assert fires(pack(*together, dtype=dtype, tokens=tokens), weight, below, feature)[place]


# What is refused


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"weight": torch.ones(2, dtype=torch.float64)}, TypeError, "weight must be torch.float32 (got torch.float64)"),
        ({"weight": torch.ones(2, 1)}, ValueError, "weight must have shape (size) (got [2, 1])"),
        ({"weight": torch.ones(0)}, ValueError, "weight must have shape (size) (got [0])"),
        ({"logits": torch.ones(2)}, ValueError, "logits must have shape [3] (got [2])"),
        ({"logits": torch.ones(1, 3)}, ValueError, "logits must have shape [3] (got [1, 3])"),
        ({"feature": "max"}, ValueError, "feature must be one of cls, mean, flat, cls+mean (got max)"),
    ],
    ids=["dtype", "two dims", "empty", "classes", "rows of logits", "feature"],
)
def test_a_bad_rule_is_refused_and_not_added(one_line_error, changed, kind, words):
    good = {"logits": LOGITS[0], "weight": torch.ones(2), "feature": "cls"}
    exits = Exits(SITE, 3)
    with one_line_error(kind, words):
        exits.add_linear(0, bias=0.0, threshold=-1.0, **{**good, **changed})
    batch = pack([[1.0, 2.0]])
    assert exits.apply(batch, results_for(batch)) == 0


def test_a_callable_with_logits_of_other_classes_is_refused(one_line_error):
    with one_line_error(ValueError, "logits must have shape [3] (got [2])"):
        Exits(SITE, 3).add_callable(0, torch.ones(2))


@pytest.mark.parametrize(
    ("feature", "size", "words"),
    [
        ("cls", 3, "weight of rule 0 must have size 2, the hidden size (got 3)"),
        ("mean", 4, "weight of rule 0 must have size 2, the hidden size (got 4)"),
        ("flat", 3, "weight of rule 0 must have size a multiple of 2, the hidden size (got 3)"),
    ],
)
def test_a_weight_that_does_not_fit_the_batch_is_refused(one_line_error, feature, size, words):
    batch = pack([[1.0, 2.0], [3.0, 4.0]])
    results = results_for(batch)
    with one_line_error(ValueError, words):
        linear_exits([1.0] * size, -math.inf, feature=feature).apply(batch, results)
    assert outcome(results) == [NEVER]
    assert batch.rows == 1


@pytest.mark.parametrize(
    ("fires", "kind", "words"),
    [
        ([], ValueError, "fires must hold one answer for each callable (got 0)"),
        ([torch.ones(2)], TypeError, "answer must be torch.bool (got torch.float32)"),
        ([torch.ones(3, dtype=torch.bool)], ValueError, "answer must have shape [2] (got [3])"),
        ([torch.ones(2, 1, dtype=torch.bool)], ValueError, "answer must have shape [2] (got [2, 1])"),
        (
            [mask(False, False), mask(True, True)],
            ValueError,
            "fires must hold one answer for each callable (got 2)",
        ),
    ],
    ids=["too few", "dtype", "rows", "two dims", "too many"],
)
def test_bad_answers_are_refused_and_change_nothing(one_line_error, fires, kind, words):
    batch = numbers(1.0, 2.0)
    results = results_for(batch)
    exits = Exits(SITE, 3)
    exits.add_callable(0, LOGITS[0])
    with one_line_error(kind, words):
        exits.apply(batch, results, fires)
    assert outcome(results) == [NEVER, NEVER]
    assert batch.rows == 2


@pytest.mark.parametrize(
    ("features", "kind", "words"),
    [
        ([("cls", torch.ones(2, 4))], ValueError, "hidden states must be given by unpad first"),  # and no mean
        ([("mean", torch.ones(2, 4))], ValueError, "hidden states must be given by unpad first"),
        ([("mean", torch.ones(2, 7)), ("cls", torch.ones(2, 7))], ValueError, "must have size 7, the hidden size"),
        ([("mean", torch.ones(3, 4))], ValueError, "features must have shape (2, size) (got [3, 4])"),
        ([("mean", torch.ones(2, 4).double())], TypeError, "must be torch.float32 (got torch.float64)"),
        ([("max", torch.ones(2, 4))], ValueError, "feature must be one of cls, mean"),
    ],
)
def test_features_that_do_not_fit_are_refused(one_line_error, features, kind, words):
    batch = PackedBatch(torch.ones(2, 3, dtype=torch.int64))
    with one_line_error(kind, words):
        linear_exits([1.0] * 4).apply(batch, results_of(2), features=features)
    batch.unpad(torch.ones(2, 3, 1))  # another size than the features'
    if kind is ValueError:
        with pytest.raises(ValueError, match="must"):
            linear_exits([1.0] * 4).apply(batch, results_of(2), features=features)


def results_of(rows):
    return Results(rows, 3, dtype=torch.float32)


def test_features_of_hidden_states_elsewhere_are_read():
    batch, results = PackedBatch(torch.ones(2, 3, dtype=torch.int64)), results_of(2)
    features = [("mean", torch.zeros(2, 1)), ("cls", torch.tensor([[1.0], [-1.0]]))]
    assert linear_exits().apply(batch, results, features=features) == 1
    assert outcome(results) == [left_by(0), NEVER]


def test_exits_ask_for_hidden_states(one_line_error):
    batch = PackedBatch(torch.ones(1, 2, dtype=torch.int64))
    with one_line_error(ValueError, "hidden states must be given by unpad first"):
        linear_exits().apply(batch, Results(1, 3, dtype=torch.float32))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3), "Results: row_ids must be below 1 (got 1)"),
        ((2, 4), "Exits: results must have 3 classes (got 4)"),
    ],
    ids=["rows", "classes"],
)
def test_results_of_another_shape_are_refused_and_change_nothing(one_line_error, shape, words):
    batch = numbers(1.0, 2.0)
    results = Results(*shape, dtype=torch.float32)
    with one_line_error(ValueError, words):
        linear_exits().apply(batch, results)
    assert set(results.exit_site.tolist()) == {-1}
    assert batch.rows == 2


@pytest.mark.parametrize(
    ("logits", "kind", "words"),
    [
        (torch.ones(2, 2), ValueError, "must have shape [2, 3] (got [2, 2])"),
        (torch.ones(1, 3), ValueError, "must have shape [2, 3] (got [1, 3])"),
        (torch.ones(3), ValueError, "must have shape [2, 3] (got [3])"),
        (torch.ones(2, 3, dtype=torch.float64), TypeError, "must be torch.float32 (got torch.float64)"),
    ],
    ids=["classes", "rows", "one dim", "dtype"],
)
def test_bad_last_logits_are_refused_and_change_nothing(one_line_error, logits, kind, words):
    batch = numbers(1.0, 2.0)
    results = results_for(batch)
    with one_line_error(kind, f"write_last: logits {words}"):
        results.write_last(batch, logits)
    assert outcome(results) == [NEVER, NEVER]


def test_last_logits_of_a_larger_batch_than_the_results_are_refused(one_line_error):
    results = Results(1, 3, dtype=torch.float32)
    with one_line_error(ValueError, "row_ids must be below 1 (got 1)"):
        results.write_last(numbers(1.0, 2.0), torch.ones(2, 3))


@pytest.mark.parametrize(("rows", "classes"), [(0, 2), (1, 0), (-1, 2)])
def test_results_without_rows_or_classes_are_refused(one_line_error, rows, classes):
    words = f"rows and classes must be at least 1 (got {rows} and {classes})"
    with one_line_error(ValueError, words):
        Results(rows, classes, dtype=torch.float32)


@pytest.mark.parametrize(("site", "classes"), [(-1, 2), (0, 0)])
def test_a_site_that_cannot_be_is_refused(one_line_error, site, classes):
    with one_line_error(ValueError, f"site must be at least 0 and classes at least 1 (got {site} and {classes})"):
        Exits(site, classes)


def test_a_rule_id_that_means_ran_to_the_end_is_refused(one_line_error):
    with one_line_error(ValueError, "rule_id must be at least 0 (got -1)"):
        Exits(0, 2).add_callable(-1, torch.zeros(2))


def test_results_of_whole_numbers_are_refused(one_line_error):
    with one_line_error(TypeError, "Results: dtype must be floating point (got torch.int32)"):
        Results(1, 2, dtype=torch.int32)


def test_a_rule_stays_what_it_was_when_it_was_added():
    exits, weight, logits = Exits(0, 2), torch.ones(2), torch.zeros(2)
    exits.add_linear(0, logits, feature="cls", weight=weight, bias=0.0, threshold=0.0)
    weight.fill_(-1)
    logits.fill_(9)
    batch = PackedBatch(torch.ones(1, 1, dtype=torch.bool))
    batch.unpad(torch.ones(1, 1, 2))
    results = Results(1, 2, dtype=torch.float32)
    assert exits.apply(batch, results) == 1
    assert results.logits.tolist() == [[0.0, 0.0]]


def test_a_flat_rule_has_no_say_in_rows_longer_than_it_was_fitted_on():
    exits = Exits(1, 2)
    weight = torch.zeros(4)
    exits.add_linear(0, torch.zeros(2), feature="flat", weight=weight, bias=1.0, threshold=0.0)
    batch = PackedBatch(torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]))
    batch.unpad(torch.ones(3, 3, 2))
    results = Results(3, 2, dtype=torch.float32)
    assert exits.apply(batch, results) == 2
    assert results.exit_rule.tolist() == [-1, 0, 0]


def test_a_broken_token_keeps_its_row_though_the_rule_reads_another():
    exits = Exits(1, 2)
    exits.add_linear(0, torch.zeros(2), feature="cls", weight=torch.zeros(2), bias=1.0, threshold=0.0)
    hidden = torch.ones(3, 2, 2)
    hidden[1, 1, 0] = float("nan")
    batch = PackedBatch(torch.ones(3, 2, dtype=torch.bool))
    batch.unpad(hidden)
    results = Results(3, 2, dtype=torch.float32)
    exits.apply(batch, results)
    assert (results.exit_site >= 0).nonzero().flatten().tolist() == [0, 2]
