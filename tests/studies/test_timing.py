"""The fastest of several runs."""

from __future__ import annotations

import pytest

from moco_rt.studies.timing import fastest, seconds_of


def fake(*seconds):
    """A timer that says these, one after the other, then only the last; and how often it was asked."""
    calls = []

    def timer():
        calls.append(seconds[min(len(calls), len(seconds) - 1)])
        return calls[-1]

    timer.calls = calls
    return timer


def test_the_fastest_run_of_each_counts():
    timers = [fake(9.0, 2.0, 5.0), fake(1.0, 3.0, 4.0)]
    assert fastest(timers, fewest=3).tolist() == [2.0, 1.0]
    assert [len(timer.calls) for timer in timers] == [3, 3]


@pytest.mark.parametrize(("seconds", "runs"), [(0.01, 20), (0.05, 12), (0.25, 3), (9.0, 3)])
def test_short_work_is_run_more_often_within_a_budget(seconds, runs):
    timer = fake(seconds)
    fastest([timer], fewest=3, most=20, budget=0.56)
    assert len(timer.calls) == runs


def test_the_order_of_turns_changes():
    turns = []
    timers = [lambda place=place: turns.append(place) or 1.0 for place in range(4)]
    fastest(timers, fewest=5)
    rounds = [tuple(turns[start : start + 4]) for start in range(0, 20, 4)]
    assert all(sorted(some) == [0, 1, 2, 3] for some in rounds)
    assert len(set(rounds)) > 1


def test_work_takes_time():
    assert seconds_of(lambda: sum(range(10_000))) > 0
