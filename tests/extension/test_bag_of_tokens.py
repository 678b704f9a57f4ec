"""Bags of tokens as the extension scores them, and rows that leave by them before anything is embedded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moco_rt._C import BagOfTokens, Exits, PackedBatch, Results, ngram_buckets

SITE = 7
SHAPES = {
    "one token": [1],
    "two tokens": [2],
    "512 tokens": [512],
    "several": [1, 512, 3, 1, 2, 40, 7],
    "many": list(range(1, 200)),
}
lengths_of = pytest.mark.parametrize("lengths", SHAPES.values(), ids=SHAPES)


def mixed(x):
    """MurmurHash3's end for 64 bits, in Python's own numbers."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        x = (x ^ x >> 33) * factor % 2**64
    return x


def buckets_of(row, buckets):
    """Of the n-grams of one row of ids."""
    found = []
    for t, token in enumerate(row):
        found.append(mixed(token) % buckets)
        if t > 0:
            found.append(mixed((row[t - 1] + 1) * 2**32 + token) % buckets)
    return found


def random_rows(lengths, seed=0, vocabulary=30_522):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, n).tolist() for n in lengths]


def batch_of(rows):
    batch = PackedBatch.of_lengths(torch.tensor([len(row) for row in rows]))
    batch.take_ids(torch.tensor([token for row in rows for token in row]), None)
    return batch


def random_table(buckets=1024, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(buckets, classes, generator=generator), torch.randn(classes, generator=generator)


def log_probs(rows, table, bias, temperature=1.0):
    """In float64: (rows, C)."""
    table, bias = table.double().numpy(), bias.double().numpy()
    logits = [bias + table[buckets_of(row, len(table))].sum(0) / math.sqrt(2 * len(row) - 1) for row in rows]
    scaled = np.array(logits) / temperature
    return scaled - np.log(np.exp(scaled).sum(1, keepdims=True))


# What it says of a row


@lengths_of
@pytest.mark.parametrize("buckets", [1, 2, 1024, 2**20])
def test_ngrams_are_tokens_and_pairs_of_neighbours_of_one_row(lengths, buckets):
    rows = random_rows(lengths)
    expected = [bucket for row in rows for bucket in buckets_of(row, buckets)]
    found = ngram_buckets(batch_of(rows), buckets)
    assert found.dtype == torch.int64
    assert found.tolist() == expected
    assert len(found) == sum(2 * n - 1 for n in lengths)


@lengths_of
@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.5])
def test_scores_are_those_of_plain_python(lengths, classes, temperature):
    rows, (table, bias) = random_rows(lengths), random_table(classes=classes)
    score, predicted = BagOfTokens(table, bias, temperature=temperature).score(batch_of(rows))
    expected = log_probs(rows, table, bias, temperature)
    np.testing.assert_allclose(score, np.exp(expected).max(1), rtol=1e-4)
    np.testing.assert_array_equal(predicted, expected.argmax(1))


def test_the_order_of_tokens_counts_and_so_do_repetitions():
    table, bias = random_table()
    bag = BagOfTokens(table, bias, temperature=1.0)
    scores = bag.score(batch_of([[5, 6, 7], [7, 6, 5], [5, 6, 6, 7]]))[0].tolist()
    assert len(set(scores)) == 3


def test_large_ids_are_not_mistaken_for_pairs():
    rows = [[2**31 - 1], [0, 2**31 - 1], [2**31 - 1, 0]]
    assert ngram_buckets(batch_of(rows), 2**30).tolist() == [b for row in rows for b in buckets_of(row, 2**30)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_alone_and_in_any_batch_on_any_threads(threads):
    rows = random_rows([1, 512, 3, *range(300, 340)])
    bag = BagOfTokens(*random_table(2**12), temperature=0.7)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.cat([bag.score(batch_of([row])) for row in rows], 1)
        torch.set_num_threads(threads)
        assert torch.equal(bag.score(batch_of(rows)), alone)
        assert torch.equal(bag.score(batch_of(rows[::-1])), alone.flip(1))
    finally:
        torch.set_num_threads(before)


def test_a_bag_stays_what_it_was_when_it_was_made():
    table, bias = random_table()
    bag, batch = BagOfTokens(table, bias, temperature=1.0), batch_of(random_rows([5, 9]))
    before = bag.score(batch)
    for tensor in (table, bias):
        tensor.fill_(math.nan)
    assert torch.equal(bag.score(batch), before)


def test_strided_tables_are_read_as_they_look():
    table, bias = random_table()
    batch = batch_of(random_rows([5, 9]))
    strided = BagOfTokens(table.T.contiguous().T, torch.stack([bias, bias], 1)[:, 0], temperature=1.0)
    assert torch.equal(strided.score(batch), BagOfTokens(table, bias, temperature=1.0).score(batch))


# Who leaves


def leave(rows, thresholds, dtype=torch.float32, table=None):
    """Let rows leave by a bag: the batch that is left, and the results."""
    batch, results = batch_of(rows), Results(len(rows), 3, dtype=dtype)
    exits = Exits(SITE, 3)
    exits.add_bag(4, bag=BagOfTokens(*(table or random_table()), temperature=1.3), thresholds=thresholds)
    left = exits.apply(batch, results)
    assert left == len(rows) - batch.rows
    return batch, results


@lengths_of
@pytest.mark.parametrize("threshold", [-math.inf, 0.6, math.inf], ids=["all", "some", "none"])
def test_sure_rows_leave_with_their_own_log_probabilities_and_the_ids_of_the_others_stay(lengths, threshold):
    rows, table = random_rows(lengths, seed=3), random_table()
    batch, results = leave(rows, [threshold] * 3, table=table)
    expected = log_probs(rows, *table, 1.3)
    leaves = np.exp(expected).max(1) > threshold
    assert results.exit_site.tolist() == [SITE if left else -1 for left in leaves]
    assert results.exit_rule.tolist() == [4 if left else -1 for left in leaves]
    np.testing.assert_allclose(results.logits[leaves], expected[leaves], rtol=0, atol=1e-4)
    assert not results.logits[~leaves].any()
    stay = np.flatnonzero(~leaves)
    assert batch.row_ids.tolist() == stay.tolist()
    assert batch.ids.tolist() == [token for row in stay for token in rows[row]]
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum([lengths[row] for row in stay])]


def test_every_class_has_a_threshold_of_its_own():
    rows = random_rows([5] * 60)
    predicted = log_probs(rows, *random_table(), 1.3).argmax(1)
    assert set(predicted) == {0, 1, 2}
    _, results = leave(rows, [math.inf, -math.inf, math.inf])
    assert results.exit_site.tolist() == [SITE if c == 1 else -1 for c in predicted]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_label_is_the_predicted_class_however_its_probability_is_rounded(dtype):
    table, bias = torch.zeros(8, 3), torch.tensor([0.0, 1e-9, 1e-9])
    _, results = leave([[1, 2], [3]], [-math.inf] * 3, dtype, (table, bias))
    assert results.logits.argmax(1).tolist() == [1, 1]


def test_two_bags_of_one_site_are_asked_in_their_order():
    rows = random_rows([5] * 40)
    batch, results = batch_of(rows), Results(40, 3, dtype=torch.float32)
    exits = Exits(SITE, 3)
    for rule_id, threshold in ((0, 0.8), (1, 0.5)):
        bag = BagOfTokens(*random_table(seed=rule_id), temperature=1.0)
        exits.add_bag(rule_id, bag=bag, thresholds=[threshold] * 3)
    exits.apply(batch, results)
    first, second = (np.exp(log_probs(rows, *random_table(seed=seed))).max(1) for seed in (0, 1))
    assert results.exit_rule.tolist() == np.where(first > 0.8, 0, np.where(second > 0.5, 1, -1)).tolist()
    assert {-1, 0, 1} == set(results.exit_rule.tolist())


# What is refused


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"table": torch.ones(3, 2)}, ValueError, "table must have shape (a power of two, at least 2) (got [3, 2])"),
        ({"table": torch.ones(0, 2)}, ValueError, "table must have shape (a power of two, at least 2) (got [0, 2])"),
        ({"table": torch.ones(4, 1)}, ValueError, "table must have shape (a power of two, at least 2) (got [4, 1])"),
        ({"table": torch.ones(4)}, ValueError, "table must have shape (a power of two, at least 2) (got [4])"),
        ({"table": torch.ones(4, 2).double()}, TypeError, "table must be torch.float32 (got torch.float64)"),
        ({"bias": torch.ones(3)}, ValueError, "bias must have shape [2] (got [3])"),
        ({"bias": torch.ones(2).double()}, TypeError, "bias must be torch.float32 (got torch.float64)"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0 (got 0)"),
    ],
)
def test_what_no_bag_can_be_is_refused(one_line_error, changed, kind, words):
    with one_line_error(kind, f"BagOfTokens: {words}"):
        BagOfTokens(**{"table": torch.ones(4, 2), "bias": torch.ones(2), "temperature": 1.0, **changed})


def test_a_batch_without_ids_is_refused(one_line_error):
    bag, batch = BagOfTokens(*random_table(), temperature=1.0), PackedBatch.of_lengths(torch.tensor([2]))
    with one_line_error(ValueError, "PackedBatch: ids must be given by take_ids first (got none)"):
        bag.score(batch)
    exits = Exits(SITE, 3)
    exits.add_bag(0, bag=bag, thresholds=[0.0] * 3)
    with one_line_error(ValueError, "PackedBatch: ids must be given by take_ids first (got none)"):
        exits.apply(batch, Results(1, 3, dtype=torch.float32))


def test_other_rules_are_refused_where_nothing_is_embedded(one_line_error):
    exits = Exits(SITE, 3)
    exits.add_linear(0, torch.zeros(3), feature="cls", weight=torch.ones(2), bias=0.0, threshold=0.0)
    with one_line_error(ValueError, "PackedBatch: hidden states must be given by unpad first (got none)"):
        exits.apply(batch_of([[1, 2]]), Results(1, 3, dtype=torch.float32))


@pytest.mark.parametrize(
    ("classes", "thresholds", "words"),
    [
        (2, 3, "Exits: bag must have 3 classes and 3 thresholds (got 2 and 3)"),
        (3, 2, "Exits: bag must have 3 classes and 3 thresholds (got 3 and 2)"),
    ],
)
def test_a_bag_of_other_classes_is_refused(one_line_error, classes, thresholds, words):
    bag = BagOfTokens(*random_table(classes=classes), temperature=1.0)
    with one_line_error(ValueError, words):
        Exits(SITE, 3).add_bag(0, bag=bag, thresholds=[0.0] * thresholds)


def test_buckets_are_a_power_of_two(one_line_error):
    with one_line_error(ValueError, "ngram_buckets: buckets must be a power of two (got 3)"):
        ngram_buckets(batch_of([[1]]), 3)
