"""Estimates of scores: ridge regression within queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moco_rt.ranking.estimates import ScoreEstimate, fit_estimate


def make_queries(count, size=6, sizes=(3, 12), seed=0):
    """Features and scores that are linear in them, but for a constant of each query."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=size)
    x = [rng.normal(size=(rng.integers(*sizes), size)).astype(np.float32) for _ in range(count)]
    scores = np.full((count, max(map(len, x))), -np.inf, np.float32)
    for row, features in zip(scores, x, strict=True):
        row[: len(features)] = features @ weight + rng.normal(scale=10)
    return x, scores, weight


def test_differences_within_queries_are_learnt_whatever_the_queries_levels():
    x, scores, weight = make_queries(200)
    estimate = fit_estimate("embeddings", x, scores)
    np.testing.assert_allclose(estimate.weight, weight, rtol=0.01, atol=0.01)


def test_what_is_equal_for_all_candidates_of_a_query_says_nothing():
    x, scores, weight = make_queries(200)
    constant = [np.hstack([np.full((len(one), 1), place, np.float32), one]) for place, one in enumerate(x)]
    found = fit_estimate("embeddings", constant, scores).weight
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], weight, rtol=0.01, atol=0.01)


def test_differences_between_the_first_count_most():
    """A kink that no line can follow: the few candidates above it decide its slope."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(50, 1)).astype(np.float32) for _ in range(100)]
    scores = np.array([np.where(one[:, 0] > 1, 5 * (one[:, 0] - 1), 0) for one in x], np.float32)
    plain = np.mean([np.polyfit(one[:, 0], y, 1)[0] for one, y in zip(x, scores, strict=True)])
    assert float(fit_estimate("embeddings", x, scores).weight[0]) > 1.2 * plain


def test_an_estimate_has_the_same_bits_alone_and_among_others():
    rng = np.random.default_rng(0)
    compiled = ScoreEstimate("embeddings", rng.normal(size=772).astype(np.float32)).compiled()
    x = torch.from_numpy(rng.normal(size=(37, 772)).astype(np.float32))
    assert torch.equal(compiled.logits(x), torch.cat([compiled.logits(row[None]) for row in x]))


@pytest.mark.parametrize("weight", [np.empty(0), np.ones((2, 2)), np.array([1.0, np.inf])])
def test_a_weight_that_is_no_finite_vector_is_refused(one_line_error, weight):
    with one_line_error(ValueError, "ScoreEstimate: weight must be a finite vector"):
        ScoreEstimate("embeddings", weight)
