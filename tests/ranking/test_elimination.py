"""Which candidates leave, and what that does to the first ones: against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt.ranking.elimination import RankScores, eliminated, first

INF = np.float32(np.inf)


def plain_exits(scores, margins):
    """The exit of each candidate, candidate by candidate."""
    exits = np.full(scores.final.shape, len(margins))
    for query in range(len(scores.final)):
        alive = list(range(scores.final.shape[1]))
        for place, margin in enumerate(margins):
            estimates = {c: scores.estimates[place, query, c] for c in alive}
            known = sorted((e for e in estimates.values() if not np.isnan(e)), reverse=True)
            if len(known) < scores.keep_top:
                continue
            last = known[scores.keep_top - 1]
            for c in list(alive):
                if estimates[c] < np.float32(last - margin):
                    exits[query, c] = place
                    alive.remove(c)
    return exits


@pytest.mark.parametrize("keep_top", [1, 3, 9, 10, 12])
def test_exits_are_those_of_a_plain_loop(keep_top):
    rng = np.random.default_rng(keep_top)
    final = rng.normal(size=(40, 10)).astype(np.float32)
    estimates = (final + rng.normal(size=(3, 40, 10))).astype(np.float32)
    estimates[1, :5, :4] = np.nan
    scores = RankScores(estimates, final, final, keep_top)
    margins = np.array([1.5, 0.5, 0.0], np.float32)
    exits = scores.exit_of_candidate(margins)
    np.testing.assert_array_equal(exits, plain_exits(scores, margins))
    assert ((exits == 3).sum(axis=1) >= min(keep_top, 10)).all()
    differs = [
        set(sorted(np.flatnonzero(row == 3), key=lambda c: -values[c])[:keep_top])
        != set(np.argsort(-values, kind="stable")[:keep_top])
        for row, values in zip(exits, final, strict=True)
    ]
    np.testing.assert_array_equal(scores.differs(exits), differs)


def test_nobody_leaves_by_an_infinite_margin_or_where_estimates_are_no_numbers():
    estimates = np.array([[3.0, 1.0, np.nan, 0.0]], np.float32)
    alive = np.ones((1, 4), bool)
    assert not eliminated(estimates, alive, 1, INF).any()
    assert eliminated(estimates, alive, 1, np.float32(1.5)).tolist() == [[False, True, False, True]]
    assert not eliminated(np.full((1, 4), np.nan, np.float32), alive, 1, np.float32(0)).any()


def test_queries_with_fewer_candidates_than_are_kept_lose_none():
    final = np.array([[2.0, 1.0, -np.inf, -np.inf], [4.0, 3.0, 2.0, 1.0]], np.float32)
    scores = RankScores(final[None], final, final, 3)
    exits = scores.exit_of_candidate(np.zeros(1, np.float32))
    assert exits[0, :2].tolist() == [1, 1]
    assert exits[1].tolist() == [1, 1, 1, 0]
    assert not scores.differs(exits).any()


def test_of_equal_scores_the_first_is_first():
    assert first(np.array([[1.0, 2.0, 2.0, 2.0]], np.float32), 2).tolist() == [[1, 2]]


def test_another_form_may_order_candidates_differently():
    given = np.array([[2.0, 1.0, 0.0]], np.float32)
    own = np.array([[1.0, 2.0, 0.0]], np.float32)
    stay = np.full((1, 3), 0)
    assert RankScores(np.empty((0, 1, 3), np.float32), own, given, 1).differs(stay).tolist() == [True]
    assert RankScores(np.empty((0, 1, 3), np.float32), own, given, 2).differs(stay).tolist() == [False]
