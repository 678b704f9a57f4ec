from __future__ import annotations

import itertools

import numpy as np
import pytest
from rates import at_most
from scipy.stats import beta, binom, norm

from moco_rt.statistics.bounds import (
    allowed_errors,
    fixed_sequence,
    lower_bound,
    neyman_pearson_threshold,
    rows_needed,
    upper_bound,
    wrong_exit_bound,
)
from moco_rt.statistics.guarantee import Guarantee

REPEATS = 2000


# How many rows, how many errors


PUBLISHED = pytest.mark.parametrize(
    ("rows", "allowed"),
    [(1000, (4, 1, -1)), (2500, (16, 6, -1)), (5000, (38, 16, 1)), (10_000, (83, 38, 4)), (25_000, (223, 106, 16))],
)


@PUBLISHED
def test_allowed_errors_are_those_of_the_published_table(rows, allowed):
    assert tuple(allowed_errors(rows, Guarantee(max_error, 1 - 0.95)) for max_error in (0.01, 0.005, 0.001)) == allowed


@pytest.mark.parametrize(("max_error", "rows"), [(0.01, 299), (0.005, 598), (0.001, 2995)])
def test_rows_needed_are_those_of_the_published_table(max_error, rows):
    assert rows_needed(Guarantee(max_error, 1 - 0.95)) == rows


GRID = list(itertools.product([0.0001, 0.001, 0.01, 0.1, 0.19, 0.5, 0.9], [0.1, 0.271, 0.5, 0.75, 0.9, 0.95, 0.999]))


@pytest.mark.parametrize(("max_error", "confidence"), GRID)
def test_rows_needed_are_the_fewest_that_allow_no_error(max_error, confidence):
    rows = rows_needed(Guarantee(max_error, 1 - confidence))
    assert allowed_errors(rows, Guarantee(max_error, 1 - confidence)) >= 0
    assert allowed_errors(rows - 1, Guarantee(max_error, 1 - confidence)) == -1


@pytest.mark.parametrize("rows", [1, 2, 10, 59, 60, 1000, 31_415])
@pytest.mark.parametrize(("max_error", "confidence"), GRID)
def test_allowed_errors_are_the_most_that_the_binomial_test_rejects(rows, max_error, confidence):
    errors = allowed_errors(rows, Guarantee(max_error, 1 - confidence))
    assert errors == -1 or binom.cdf(errors, rows, max_error) <= (1 - confidence) * (1 + 1e-9)
    assert binom.cdf(errors + 1, rows, max_error) > (1 - confidence) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("errors", "rows", "percent"),
    [(0, 872, "0.343"), (0, 2500, "0.120"), (0, 25_000, "0.012"), (6, 25_000, "0.047"), (25, 25_000, "0.140")],
)
def test_upper_bounds_are_those_of_the_published_table(errors, rows, percent):
    assert f"{100 * upper_bound(errors, rows, 0.95):.3f}" == percent


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("rows", [1, 7, 100, 10_000])
def test_bounds_are_clopper_and_pearsons(rows, confidence):
    for count in {0, rows // 3, rows - 1}:
        assert upper_bound(count, rows, confidence) == pytest.approx(beta.ppf(confidence, count + 1, rows - count))
    for count in {1, rows // 3 + 1, rows}:
        expected = beta.ppf(1 - confidence, count, rows - count + 1)
        assert lower_bound(count, rows, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_bounds_that_no_row_speaks_against_are_the_whole_range(rows):
    assert upper_bound(rows, rows, 0.95) == 1
    assert lower_bound(0, rows, 0.95) == 0


@pytest.mark.parametrize(("errors", "rows"), [(0, 299), (4, 1000), (223, 25_000)])
def test_allowed_errors_and_upper_bound_say_the_same(errors, rows):
    level = upper_bound(errors, rows, 0.95)
    assert allowed_errors(rows, Guarantee(level * 1.0001, 1 - 0.95)) == errors
    assert allowed_errors(rows, Guarantee(level * 0.9999, 1 - 0.95)) == errors - 1


# Neyman-Pearson


def test_threshold_lets_four_of_a_thousand_through():
    scores = np.random.default_rng(0).permutation(1000).astype(np.float32)
    threshold = neyman_pearson_threshold(scores, Guarantee(0.01, 1 - 0.95))
    assert threshold == 995  # the 996th smallest
    assert (scores > threshold).sum() == 4


@pytest.mark.parametrize(("rows", "max_error", "confidence"), [(59, 0.05, 0.95), (400, 0.02, 0.9), (3000, 0.2, 0.999)])
def test_threshold_has_the_rank_of_tong_feng_and_li(rows, max_error, confidence):
    ranks = np.arange(1, rows + 1)
    violation = binom.sf(ranks - 1, rows, 1 - max_error)  # sum over j >= k of C(n, j) (1 - a)^j a^(n - j)
    expected = ranks[violation <= 1 - confidence].min()
    assert neyman_pearson_threshold(ranks.astype(float), Guarantee(max_error, 1 - confidence)) == expected


def test_threshold_leaves_the_scores_as_they_were():
    scores = np.arange(100, 0, -1.0)
    neyman_pearson_threshold(scores, Guarantee(0.1, 1 - 0.95))
    np.testing.assert_array_equal(scores, np.arange(100, 0, -1.0))


@pytest.mark.parametrize(("rows", "max_error", "confidence"), [(299, 0.01, 0.95), (200, 0.05, 0.9), (1000, 0.01, 0.95)])
def test_threshold_keeps_its_promise_as_often_as_it_says(rows, max_error, confidence):
    uniform = np.random.default_rng(rows).random((REPEATS, rows))
    exceeding = 1 - np.array(
        [neyman_pearson_threshold(scores, Guarantee(max_error, 1 - confidence)) for scores in uniform]
    )
    broken = (exceeding > max_error).mean()
    assert broken <= at_most(1 - confidence, REPEATS)
    # And no more careful than it must be: the rank decides how often exactly.
    exact = binom.cdf(allowed_errors(rows, Guarantee(max_error, 1 - confidence)), rows, max_error)
    assert broken == pytest.approx(exact, abs=at_most(exact, REPEATS) - exact)


@pytest.mark.parametrize("levels", [2, 10, 50])
def test_ties_break_the_promise_no_more_often(levels):
    rows, max_error, confidence = 300, 0.02, 0.95
    scores = np.random.default_rng(levels).integers(0, levels, (REPEATS, rows)).astype(float)
    thresholds = np.array([neyman_pearson_threshold(row, Guarantee(max_error, 1 - confidence)) for row in scores])
    assert (
        (scores > thresholds[:, None]).sum(axis=1) <= allowed_errors(rows, Guarantee(max_error, 1 - confidence))
    ).all()
    assert ((levels - 1 - thresholds) / levels > max_error).mean() <= at_most(1 - confidence, REPEATS)


def test_threshold_of_equal_scores_is_that_score():
    assert neyman_pearson_threshold(np.full(500, 0.25), Guarantee(0.01, 1 - 0.95)) == 0.25


@pytest.mark.parametrize("rows", [0, 1, 298])
def test_too_few_rows_are_refused_with_how_many_are_needed(rows):
    message = rf"^scores must be at least 299 to promise max_error=0.01 with confidence 0.95 \(got {rows}\)$"
    with pytest.raises(ValueError, match=message):
        neyman_pearson_threshold(np.zeros(rows), Guarantee(0.01, 1 - 0.95))


# The rate of wrong exits


def test_wrong_exit_bound_puts_three_bounds_at_a_third_together():
    each = 1 - 0.05 / 3
    false_alarm = beta.ppf(each, 5, 996)
    coverage = beta.ppf(1 - each, 700, 301)
    other = beta.ppf(each, 1001, 1000)
    expected = false_alarm * other / (false_alarm * other + coverage * (1 - other))
    assert wrong_exit_bound(4, 1000, 700, 1000, 0.95) == pytest.approx(expected)


@pytest.mark.parametrize(("counts", "worse"), [((4, 1000, 700, 1000), (5, 1000, 700, 1000)),
                                               ((4, 1000, 700, 1000), (4, 1000, 600, 1000)),
                                               ((4, 1000, 700, 1000), (4, 1000, 350, 500))])  # fmt: skip
def test_wrong_exit_bound_grows_with_what_speaks_against_the_rule(counts, worse):
    assert wrong_exit_bound(*counts, 0.95) < wrong_exit_bound(*worse, 0.95)
    assert wrong_exit_bound(*counts, 0.95) < wrong_exit_bound(*counts, 0.99)


@pytest.mark.parametrize("class_rows", [0, 10])
def test_a_rule_that_never_hits_its_class_may_always_be_wrong(class_rows):
    assert wrong_exit_bound(0, 500, 0, class_rows, 0.95) == 1


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("others", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_wrong_exit_bound_holds_as_often_as_it_says(distance, others, confidence):
    rng = np.random.default_rng(0)
    rows, max_error, broken = 600, 0.05, 0
    for other_rows in rng.binomial(rows, others, REPEATS):
        of_others, of_class = rng.normal(size=other_rows), rng.normal(distance, size=rows - other_rows)
        threshold = neyman_pearson_threshold(of_others, Guarantee(max_error, 1 - confidence))
        errors, hits = int((of_others > threshold).sum()), int((of_class > threshold).sum())
        bound = wrong_exit_bound(errors, other_rows, hits, rows - other_rows, confidence)
        wrong, right = others * norm.sf(threshold), (1 - others) * norm.sf(threshold - distance)
        broken += wrong / (wrong + right) > bound
    assert broken / REPEATS <= at_most(1 - confidence, REPEATS)


# Along a path of policies


@PUBLISHED
def test_a_path_of_one_more_error_each_is_certified_up_to_the_published_table(rows, allowed):
    path = np.arange(500)
    assert (
        tuple(fixed_sequence(path, rows, Guarantee(max_error, 1 - 0.95)) for max_error in (0.01, 0.005, 0.001))
        == allowed
    )


@pytest.mark.parametrize("rows", [1, 60, 1000])
@pytest.mark.parametrize(("max_error", "confidence"), GRID)
def test_a_path_of_one_more_error_each_is_certified_as_far_as_errors_are_allowed(rows, max_error, confidence):
    allowed = allowed_errors(rows, Guarantee(max_error, 1 - confidence))
    assert fixed_sequence(np.arange(rows + 1), rows, Guarantee(max_error, 1 - confidence)) == allowed


# Of 1,000 rows 4 may differ at 1%.
@pytest.mark.parametrize(
    ("disagreements", "place"),
    [
        ([0, 1, 5, 4, 0], 1),  # what follows the first failure is not looked at, however good
        ([3, 0, 4, 2, 5], 3),
        ([4, 5], 0),
        ([0], 0),
        ([0, 4, 4, 4], 3),
        ([5, 0, 0], -1),
        ([1000], -1),
        ([], -1),
    ],
    ids=str,
)
def test_the_last_policy_before_the_first_that_fails_is_taken(disagreements, place):
    assert fixed_sequence(np.array(disagreements, dtype=int), 1000, Guarantee(0.01, 1 - 0.95)) == place


def test_rows_too_few_for_a_clean_sample_certify_no_policy():
    assert fixed_sequence(np.zeros(3, int), 298, Guarantee(0.01, 1 - 0.95)) == -1
    assert fixed_sequence(np.zeros(3, int), 299, Guarantee(0.01, 1 - 0.95)) == 2
