"""Promises class by class, each on its own rows."""

from __future__ import annotations

import numpy as np
import pytest
from rates import at_most

from moco_rt.statistics.bounds import allowed_errors, fixed_sequence, rows_needed
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.statistics.per_class import class_counts, class_rows_needed, per_class_sequence

DELTA = 0.05


def test_rows_and_differing_rows_are_counted_by_the_class_that_the_given_model_gives():
    given = np.array([0, 2, 2, 0, 2, 2])
    rows, differing = class_counts(given, np.array([0, 1, 0, 1, 1, 0], dtype=bool), 4)
    assert rows.tolist() == [2, 0, 4, 0]
    assert differing.tolist() == [1, 0, 2, 0]
    assert rows.dtype == differing.dtype == np.int64
    assert [counts.tolist() for counts in class_counts(given[:0], np.zeros(0, bool), 2)] == [[0, 0], [0, 0]]


def test_rows_needed_are_those_of_a_guarantee():
    shares = np.array([0.01, 0.005, 0.001, np.nan, 0.2, 0.999])
    needed = class_rows_needed(shares, DELTA)
    assert needed[:4].tolist() == [299, 598, 2995, 0]
    for share, rows in zip(shares, needed.tolist(), strict=True):
        assert np.isnan(share) or rows == rows_needed(Guarantee(share, DELTA))


def test_every_class_must_pass_on_its_own_rows():
    rows, shares = np.array([1000, 5000]), np.array([0.01, 0.005])
    assert [allowed_errors(n, Guarantee(a, DELTA)) for n, a in zip(rows, shares, strict=True)] == [4, 16]
    path = np.array([[0, 0], [4, 3], [3, 16], [5, 16], [0, 0]])
    assert per_class_sequence(path, rows, shares, DELTA) == 2
    assert per_class_sequence(path[3:], rows, shares, DELTA) == -1
    assert per_class_sequence(path[:3], rows, shares, DELTA) == 2
    assert per_class_sequence(path[:0], rows, shares, DELTA) == -1
    assert per_class_sequence(np.array([[0, 17]]), rows, shares, DELTA) == -1


def test_classes_without_a_promise_are_not_looked_at():
    rows = np.array([1000, 5, 0])
    path = np.array([[0, 5, 0], [4, 0, 0], [5, 0, 0]])
    assert per_class_sequence(path, rows, np.array([0.01, np.nan, np.nan]), DELTA) == 1


@pytest.mark.parametrize(("rare", "place"), [(0, -1), (298, -1), (299, 0)])
def test_a_class_with_too_few_rows_passes_under_no_policy(rare, place):
    assert per_class_sequence(np.zeros((1, 2), int), np.array([9000, rare]), np.array([0.01, 0.01]), DELTA) == place


def test_a_single_class_is_the_promise_about_all_rows():
    path = np.array([0, 1, 4, 3, 5, 0])
    alone = per_class_sequence(path[:, None], np.array([1000]), np.array([0.01]), DELTA)
    assert alone == fixed_sequence(path, 1000, Guarantee(0.01, DELTA)) == 3


@pytest.mark.parametrize("rows", [30_000, 60_000])
def test_the_promise_of_a_rare_class_is_broken_as_seldom_as_it_says(rows):
    """One row of a hundred is of class 1, which breaks its promise by next to nothing; class 0 breaks none."""
    rng, repeats = np.random.default_rng(rows), 2500
    rare = rng.binomial(rows, 0.01, repeats)
    of_class = np.column_stack([rows - rare, rare])
    differing = rng.binomial(of_class, [0.001, 0.0101])
    shares = np.array([0.01, 0.01])
    passed = [per_class_sequence(d[None], n, shares, DELTA) == 0 for d, n in zip(differing, of_class, strict=True)]
    assert 0 < np.mean(passed) <= at_most(DELTA, repeats)


def test_many_classes_at_the_edge_need_no_correction():
    """All of ten classes break their promises, or one alone: neither passes more often than promised."""
    rng, repeats, rows, shares = np.random.default_rng(0), 2500, np.full(10, 400), np.full(10, 0.01)
    for rates in (np.full(10, 0.0101), np.array([0.0] * 9 + [0.0101])):
        differing = rng.binomial(rows, rates, (repeats, 10))
        passed = [per_class_sequence(d[None], rows, shares, DELTA) == 0 for d in differing]
        assert np.mean(passed) <= at_most(DELTA, repeats)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_counts(np.array([0, 3]), np.zeros(2, bool), 3), r"given must be inside \[0, 3\) \(got 3\)"),
        (lambda: class_counts(np.array([-1]), np.zeros(1, bool), 3), r"given must be inside \[0, 3\) \(got -1\)"),
        (lambda: class_rows_needed(np.array([1.0]), 0.05), r"max_disagreement must be inside \(0, 1\) \(got 1.0\)"),
        (lambda: class_rows_needed(np.array([0.1]), 0.0), r"delta must be inside \(0, 1\) \(got 0.0\)"),
        (
            lambda: per_class_sequence(np.zeros((1, 1), int), np.array([9]), np.array([0.0]), 0.05),
            r"max_disagreement must be inside \(0, 1\) \(got 0.0\)",
        ),
        (
            lambda: per_class_sequence(np.zeros((1, 1), int), np.array([9]), np.array([np.nan]), 0.05),
            r"max_disagreement must be a number for one class at least \(got NaN for all\)",
        ),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
