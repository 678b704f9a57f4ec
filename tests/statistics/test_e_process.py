"""Evidence against a promised error rate, and how often it accuses wrongly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moco_rt.statistics.e_process import EProcess

BETS = (0.5, 1, 2, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("level", [0.001, 0.01, 0.03, 0.2, 0.7])
@pytest.mark.parametrize("wrong", ["", "0", "1", "0001", "1000", "0110100000000", "1" * 30, "0" * 500], ids=len)
def test_evidence_is_the_mean_of_the_bets_products(level, wrong):
    process = EProcess(level)
    products = [math.prod(1 + bet * (int(one) - level) for one in wrong) for bet in BETS if bet < 1 / level]
    for one in wrong:
        process.update(int(one), 1)
    assert process.evidence == pytest.approx(sum(products) / len(products), rel=1e-9)
    assert (process.rows, process.wrong) == (len(wrong), wrong.count("1"))


def test_evidence_starts_at_one_falls_with_right_rows_and_grows_with_wrong_ones():
    process = EProcess(0.01)
    assert process.evidence == 1
    process.update(0, 100)
    after_right = process.evidence
    process.update(1, 1)
    assert after_right < min(1, process.evidence)


def test_rows_may_come_one_by_one_or_together_in_any_order():
    together, apart = EProcess(0.02), EProcess(0.02)
    together.update(7, 200)
    for wrong in np.random.default_rng(0).permutation(np.arange(200) < 7):
        apart.update(int(wrong), 1)
    assert together.evidence == apart.evidence


def test_evidence_of_ever_so_many_rows_stays_a_number():
    process = EProcess(0.001)
    process.update(1_000_000, 1_000_000)
    assert process.evidence > 1e100
    assert math.isfinite(process.evidence)
    process.update(0, 10**12)
    assert process.evidence == 0


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999, 1.0])
def test_high_levels_leave_bets_that_cannot_ruin(level):
    process = EProcess(level)
    process.update(0, 1)
    assert process.evidence > 0


def evidence_at_errors(level, rate, rows, rng):
    """Places of wrong rows among so many, and the evidence when each has been seen: between them it only falls."""
    process, places, evidence = EProcess(level), np.flatnonzero(rng.random(rows) < rate), []
    for gap in np.diff(places, prepend=-1):
        process.update(0, int(gap) - 1)
        process.update(1, 1)
        evidence.append(process.evidence)
    return places, np.array(evidence)


@pytest.mark.parametrize(("level", "delta"), [(0.005, 0.05), (0.02, 0.05), (0.02, 0.2)])
def test_false_alarms_are_no_more_frequent_than_promised(level, delta):
    rng, runs = np.random.default_rng(0), 400
    alarms = 0
    for _ in range(runs):
        _, evidence = evidence_at_errors(level, level, 5000, rng)
        alarms += bool((evidence >= 1 / delta).any())
    assert alarms / runs <= delta + 3 * math.sqrt(delta * (1 - delta) / runs)


# guarantee.md, G.8: 0.5% were promised. Medians of so many rows until the alarm.
@pytest.mark.parametrize(("rate", "median"), [(0.01, 1882), (0.02, 288), (0.05, 47)])
def test_higher_rates_are_caught_as_soon_as_published(rate, median):
    rng, caught = np.random.default_rng(0), []
    for _ in range(200):
        places, evidence = evidence_at_errors(0.005, rate, min(40 * median, 20_000), rng)
        assert (evidence >= 20).any()
        caught.append(places[np.argmax(evidence >= 20)] + 1)
    assert np.median(caught) == pytest.approx(median, rel=0.3)
