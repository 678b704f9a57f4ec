"""How many of these very rows differ, from those that were drawn and run in full."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from rates import at_most
from scipy.stats import binom, hypergeom

from moco_rt.statistics.bounds import allowed_errors
from moco_rt.statistics.finite_rows import (
    allowed_found,
    ever_differing,
    finite_sequence,
    most_differing,
    rows_to_draw,
)
from moco_rt.statistics.guarantee import Guarantee

REPEATS = 4000
PATHS = 2000
ONE_PERCENT = Guarantee(0.01, 0.05)


def exact_cdf(found, rows, differing, drawn):
    """The hypergeometric distribution in whole numbers, divided once."""
    ways = sum(comb(differing, k) * comb(rows - differing, drawn - k) for k in range(min(found, drawn) + 1))
    return ways / comb(rows, drawn)


# Bounds on the rows that differ


@pytest.mark.parametrize("delta", [0.001, 0.05, 0.5, 0.9])
@pytest.mark.parametrize(("rows", "drawn"), [(1, 1), (2, 1), (7, 3), (30, 12), (30, 29)])
def test_bound_is_the_largest_that_the_exact_distribution_allows(rows, drawn, delta):
    for found in range(drawn + 1):
        possible = range(found, rows - drawn + found + 1)
        expected = max(K for K in possible if exact_cdf(found, rows, K, drawn) > delta)
        assert most_differing(found, drawn, rows, delta) == expected


@pytest.mark.parametrize(
    ("found", "drawn", "rows"),
    [(0, 299, 10**6), (80, 10_000, 10**6), (10_000, 10_000, 10**6), (9000, 10_000, 10**6), (4000, 500_000, 10**6),
     (0, 999_999, 10**6), (2500, 5000, 25_000)],
)  # fmt: skip
@pytest.mark.parametrize("delta", [1e-6, 0.05])
def test_bound_of_many_rows_is_where_scipys_distribution_passes_delta(found, drawn, rows, delta):
    bound = most_differing(found, drawn, rows, delta)
    assert hypergeom.cdf(found, rows, bound, drawn) > delta * (1 - 1e-7)
    assert bound == rows - drawn + found or hypergeom.cdf(found, rows, bound + 1, drawn) <= delta * (1 + 1e-7)


def test_bound_is_what_was_found_when_all_rows_were_drawn_and_all_rows_when_none_was():
    assert most_differing(3, 50, 50, 0.05) == 3
    assert most_differing(0, 0, 50, 0.05) == 50
    assert most_differing(0, 0, 0, 0.05) == 0


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize(("rows", "drawn", "differing"), [(25_000, 3000, 274), (2000, 1000, 30), (500, 450, 20)])
def test_bound_holds_as_often_as_it_says(rows, drawn, differing, delta):
    found = np.random.default_rng(rows).hypergeometric(differing, rows - differing, drawn, REPEATS)
    bounds = {k: most_differing(k, drawn, rows, delta) for k in np.unique(found).tolist()}
    broken = np.mean([bounds[k] < differing for k in found.tolist()])
    assert broken <= at_most(delta, REPEATS)


# How many drawn rows may differ


@pytest.mark.parametrize(("rows", "drawn", "allowed"), [(25_000, 3000, 23), (25_000, 5000, 48), (100_000, 10_000, 92)])
def test_allowed_rows_are_those_of_the_published_table(rows, drawn, allowed):
    assert allowed_found(drawn, rows, ONE_PERCENT) == allowed


@pytest.mark.parametrize("max_disagreement", [0.003, 0.05, 0.3])
@pytest.mark.parametrize(("rows", "drawn"), [(1, 1), (40, 0), (40, 3), (300, 120), (300, 299), (1500, 400)])
def test_allowed_rows_are_the_most_that_leave_few_enough_wrong(rows, drawn, max_disagreement):
    guarantee = Guarantee(max_disagreement, 0.05)
    left = [most_differing(k, drawn, rows, 0.05) - k for k in range(drawn + 1)]
    passes = [k for k in range(drawn + 1) if left[k] <= max_disagreement * rows]
    assert passes == list(range(allowed_found(drawn, rows, guarantee) + 1))


def test_drawing_from_ever_more_rows_allows_in_the_end_what_independent_rows_do():
    allowed = [allowed_found(3000, rows, ONE_PERCENT) for rows in (3000, 25_000, 100_000, 10**7)]
    assert allowed[0] == 3000  # none is left to be wrong
    assert allowed[1:] == sorted(allowed[1:], reverse=True)
    assert allowed[-1] == allowed_errors(3000, ONE_PERCENT)


def test_a_share_that_rounding_made_smaller_is_the_share_that_was_meant():
    assert 1 - 0.9 < 0.1
    guarantees = Guarantee.of_agreement(0.9, 0.95), Guarantee(0.1, 0.05)
    for rows in range(1000, 1100, 10):
        assert len({allowed_found(900, rows, guarantee) for guarantee in guarantees}) == 1


@pytest.mark.parametrize("beyond", [0, 1, 5, 30])
@pytest.mark.parametrize(("rows", "drawn"), [(25_000, 3000), (2000, 1000), (1000, 900)])
def test_more_wrong_answers_than_promised_pass_as_seldom_as_it_says(rows, drawn, beyond):
    """At the edge of the claim: so many rows differ that the most that may be found still leaves one too many."""
    allowed, most_wrong = allowed_found(drawn, rows, ONE_PERCENT), rows // 100
    differing = most_wrong + allowed + 1 + beyond
    found = np.random.default_rng(beyond).hypergeometric(differing, rows - differing, drawn, REPEATS)
    passing = [k for k in np.unique(found) if finite_sequence(np.array([k]), drawn, rows, ONE_PERCENT) == 0]
    assert (np.isin(found, passing) & (differing - found > most_wrong)).mean() <= at_most(0.05, REPEATS)


# Along a path of policies


# Of 25,000 rows 3,000 were drawn: 23 of these may differ.
@pytest.mark.parametrize(
    ("found", "place"),
    [([0, 5, 23, 24, 30], 2), ([23], 0), ([24, 0], -1), ([0, 24, 24, 3], 0), ([3, 3, 23, 23], 3), ([], -1)],
    ids=str,
)
def test_the_last_policy_before_the_first_that_fails_is_taken(found, place):
    assert finite_sequence(np.array(found, dtype=int), 3000, 25_000, ONE_PERCENT) == place


def test_rows_that_differed_before_stay_counted():
    differs = np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=bool)
    assert ever_differing(differs).tolist() == [0, 2, 3, 4]
    assert ever_differing(row for row in differs).tolist() == [0, 2, 3, 4]
    assert differs.sum() == 5  # left as they were
    assert ever_differing([]).tolist() == []


def broken_along(differing, rows, drawn, count):
    """The share of draws in which a policy up to the returned one gives too many wrong answers.

    differing: rows that differ, by policy; count: from (policies, drawn) bool, which differ, to what is tested.
    """
    rng, broken = np.random.default_rng(drawn), 0
    differs = np.zeros((len(differing), rows), dtype=bool)
    for policy, some in enumerate(differing):
        differs[policy, list(some)] = True
    for _ in range(PATHS):
        of_drawn = differs[:, rng.permutation(rows)[:drawn]]
        last = finite_sequence(count(of_drawn), drawn, rows, ONE_PERCENT)
        wrong = differs.sum(axis=1) - of_drawn.sum(axis=1)
        broken += (wrong[: last + 1] > rows // 100).any()
    return broken / PATHS


def much_alike(rows, drawn, policies=25):
    """Policies that differ on the same rows but for one each, as many as make the chance of a break the highest."""
    core = rows // 100 + allowed_found(drawn, rows, ONE_PERCENT) - 1
    return [[*range(core), core + policy] for policy in range(policies)]


@pytest.mark.parametrize(("rows", "drawn"), [(1000, 900), (1000, 600)])
def test_all_policies_up_to_the_returned_one_hold_at_once(rows, drawn):
    for path in (much_alike(rows, drawn), [range(some) for some in range(0, 200, 10)]):
        assert broken_along(path, rows, drawn, ever_differing) <= at_most(0.05, PATHS)


def test_counts_of_each_policy_alone_would_break_the_promise_more_often():
    alone = broken_along(much_alike(1000, 900), 1000, 900, lambda differs: differs.sum(axis=1))
    assert alone > at_most(0.05, PATHS)


# How many rows to draw


@pytest.mark.parametrize("expected", [0.0, 0.004, 0.008, 0.01, 0.03])
@pytest.mark.parametrize("rows", [1000, 25_000, 300_000])
def test_so_many_drawn_rows_pass_nine_times_of_ten(rows, expected):
    differing = round(expected * rows)

    def power(drawn):
        return hypergeom.cdf(allowed_found(drawn, rows, ONE_PERCENT), rows, differing, drawn)

    drawn = rows_to_draw(rows, ONE_PERCENT, expected)
    assert 0 < drawn <= rows
    assert power(drawn) >= 0.9
    assert power(drawn - 1) < 0.9
    assert all(power(more) > 0.87 for more in range(drawn, min(rows, drawn + 500), 23))


def test_rows_without_a_difference_need_about_as_many_as_independent_ones():
    assert rows_to_draw(10**6, ONE_PERCENT, 0.0) == 298  # rows_needed: 299
    assert rows_to_draw(10**6, ONE_PERCENT, 0.005) == pytest.approx(
        next(n for n in range(299, 5000) if binom.cdf(allowed_errors(n, ONE_PERCENT), n, 0.005) >= 0.9), rel=0.02
    )


def test_policies_that_differ_nearly_always_need_nearly_all_rows():
    assert rows_to_draw(1000, ONE_PERCENT, 1.0) == 990
    assert rows_to_draw(0, ONE_PERCENT, 0.5) == 0


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: most_differing(-1, 5, 9, 0.05), r"found must be at most drawn, .* at most rows \(got -1, 5, 9\)"),
        (lambda: most_differing(6, 5, 9, 0.05), r"found must be at most drawn, .* at most rows \(got 6, 5, 9\)"),
        (lambda: most_differing(1, 10, 9, 0.05), r"found must be at most drawn, .* at most rows \(got 1, 10, 9\)"),
        (lambda: most_differing(1, 5, 9, 1.0), r"delta must be inside \(0, 1\) \(got 1.0\)"),
        (lambda: allowed_found(10, 9, ONE_PERCENT), r"drawn must be inside \[0, 9\] \(got 10\)"),
        (lambda: finite_sequence(np.zeros(1, int), -1, 9, ONE_PERCENT), r"drawn must be inside \[0, 9\] \(got -1\)"),
        (lambda: rows_to_draw(9, ONE_PERCENT, 1.5), r"expected must be inside \[0, 1\] \(got 1.5\)"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
