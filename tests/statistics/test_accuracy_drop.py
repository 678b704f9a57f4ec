"""How much accuracy is lost, from labelled rows on which two models are compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rates import at_most

from moco_rt.statistics.accuracy_drop import drop_bound, drop_p_value, drop_sequence

DELTA = 0.05


def sample(rng, rows, differ, drop, repeats):
    """Losses (repeats, rows) int8 of which a share `differ` is not 0, with mean `drop`."""
    uniform = rng.random((repeats, rows), dtype=np.float32)
    lost, differing = uniform < (differ + drop) / 2, uniform < differ
    return lost.astype(np.int8) - (differing & ~lost).astype(np.int8)


def certified(losses, max_drop):
    return np.mean([drop_p_value(d, max_drop, DELTA) <= DELTA for d in losses])


def slow_p_value(d, max_drop, delta):
    """The same row by row, as the paper writes it."""
    m = (1 - max_drop) / 2
    wealth = best = 1.0
    total, squares, variance = 0.5, 0.25, 0.25
    for i, loss in enumerate(d, 1):
        x = (1 - int(loss)) / 2
        lam = min(math.sqrt(2 * math.log(1 / delta) / (len(d) * variance)), 1 / (2 * m))
        wealth *= 1 + lam * (x - m)
        best = max(best, wealth)
        total += x
        squares += (x - total / (i + 1)) ** 2
        variance = squares / (i + 1)
    return 1 / best


@pytest.mark.parametrize("max_drop", [0.0, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("delta", [0.01, 0.3])
@pytest.mark.parametrize(
    ("rows", "differ", "drop"), [(1, 0, 0), (7, 0.9, 0), (300, 0, 0), (2000, 0.05, 0), (900, 0.3, -0.3)]
)
def test_p_value_is_one_over_the_highest_product_of_bets(rows, differ, drop, delta, max_drop):
    for d in sample(np.random.default_rng(rows), rows, differ, drop, 3):
        assert drop_p_value(d, max_drop, delta) == pytest.approx(slow_p_value(d, max_drop, delta), rel=1e-9)
        assert drop_p_value(d.astype(np.int64), max_drop, delta) == drop_p_value(d, max_drop, delta)


def test_nothing_is_shown_by_no_rows_and_nothing_by_rows_that_are_all_lost():
    assert drop_p_value(np.zeros(0, np.int8), 0.1, DELTA) == 1
    assert drop_p_value(np.ones(1000, np.int8), 0.5, DELTA) == 1
    assert drop_bound(np.zeros(0, np.int8), DELTA) == 1.0
    assert drop_bound(np.ones(1000, np.int8), DELTA) == 1.0


# guarantee.md, G.10: shares of runs certified where nothing is lost, by labels that differ and points of drop.
@pytest.mark.parametrize(
    ("rows", "differ", "shares"),
    [
        (1800, 0.04, (0.14, 0.47, 0.81)),
        (2700, 0.06, (0.19, 0.49, 0.84)),
        (5000, 0.04, (0.40, 0.93, 0.99)),
        (10_000, 0.06, (0.52, 0.97, 1.0)),
    ],
)
def test_shares_of_runs_certified_are_those_of_the_published_table(rows, differ, shares):
    losses = sample(np.random.default_rng(rows), rows, differ, 0.0, 500)
    for max_drop, share in zip((0.005, 0.01, 0.015), shares, strict=True):
        assert certified(losses, max_drop) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("rows", "differ", "drop"),
    [(5000, 0.04, 0.01), (1800, 0.04, 0.01), (300, 0.05, 0.05), (100, 1.0, 0.0), (2000, 0.3, 0.0), (40, 0.5, 0.5)],
)
def test_a_larger_drop_is_certified_as_seldom_as_it_says(rows, differ, drop):
    losses = sample(np.random.default_rng(rows), rows, differ, drop, 2500)
    assert certified(losses, drop) <= at_most(DELTA, len(losses))


@pytest.mark.parametrize("rows", [20, 300, 3000])
@pytest.mark.parametrize(("differ", "drop"), [(0.0, 0.0), (0.04, 0.0), (0.3, 0.1), (0.5, -0.2)])
def test_p_value_never_grows_with_the_drop(rows, differ, drop):
    drops = np.linspace(0, 0.9999, 60)
    for d in sample(np.random.default_rng(rows), rows, differ, drop, 5):
        values = np.array([drop_p_value(d, max_drop, DELTA) for max_drop in drops])
        assert (np.diff(values) <= 1e-12).all()


@pytest.mark.parametrize(("rows", "differ", "drop"), [(50, 0.1, 0.0), (1800, 0.04, 0.01), (5000, 0.1, 0.05)])
def test_bound_is_the_first_drop_that_is_certified(rows, differ, drop):
    for d in sample(np.random.default_rng(rows), rows, differ, drop, 20):
        bound = drop_bound(d, DELTA)
        assert round(bound * 10_000) / 10_000 == bound
        assert bound == 1.0 or drop_p_value(d, bound, DELTA) <= DELTA
        assert drop_p_value(d, bound - 1e-4, DELTA) > DELTA


def test_bound_is_zero_where_the_fast_model_is_surely_better():
    assert drop_bound(sample(np.random.default_rng(0), 5000, 0.2, -0.1, 1)[0], DELTA) == 0.0


def test_bound_holds_as_often_as_it_says():
    losses = sample(np.random.default_rng(0), 1000, 0.08, 0.03, 2000)
    assert np.mean([drop_bound(d, DELTA) < 0.03 for d in losses]) <= at_most(DELTA, len(losses))


def test_the_last_policy_before_the_first_that_fails_is_taken():
    good, bad = np.zeros(3000, np.int8), np.ones(3000, np.int8)
    assert drop_sequence(np.array([good, good, good]), 0.01, DELTA) == 2
    assert drop_sequence(np.array([good, bad, good]), 0.01, DELTA) == 0
    assert drop_sequence(np.array([bad, good, good]), 0.01, DELTA) == -1
    assert drop_sequence(np.zeros((2, 20), np.int8), 0.01, DELTA) == -1  # too few rows for any policy
    assert drop_sequence(np.zeros((0, 20), np.int8), 0.01, DELTA) == -1


def test_a_path_breaks_its_promise_as_seldom_as_it_says():
    """Policies lose ever more; the third is the first that loses more than promised."""
    rng, repeats, broken = np.random.default_rng(0), 2000, 0
    for _ in range(repeats):
        uniform = rng.random(1500, dtype=np.float32)
        path = np.array([(uniform < drop).astype(np.int8) for drop in (0.0, 0.01, 0.0201, 0.025)])
        broken += drop_sequence(path, 0.02, DELTA) >= 2
    assert broken / repeats <= at_most(DELTA, repeats)


@pytest.mark.parametrize(
    ("d", "max_drop", "delta", "message"),
    [
        ([0, 2, -1], 0.01, 0.05, r"d must be from -1 to 1 \(got -1 to 2\)"),
        ([0], 1.0, 0.05, r"max_drop must be inside \[0, 1\) \(got 1.0\)"),
        ([0], -0.1, 0.05, r"max_drop must be inside \[0, 1\) \(got -0.1\)"),
        ([0], 0.1, 0.0, r"delta must be inside \(0, 1\) \(got 0.0\)"),
    ],
)
def test_numbers_that_cannot_be_are_refused(d, max_drop, delta, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        drop_p_value(np.array(d), max_drop, delta)
    with pytest.raises(ValueError, match=f"^{message}$"):
        drop_sequence(np.array([d]), max_drop, delta)
