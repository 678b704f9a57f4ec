"""Queries with their candidates, checked at the door."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt.ranking.candidates import list_candidates, make_candidates


def test_pairs_are_of_the_query_and_each_document():
    candidates = make_candidates("what", iter(["one", "two"]))
    assert candidates.pairs == [("what", "one"), ("what", "two")]
    assert candidates.retrieved is None
    assert candidates.features.shape == (2, 0)


def test_retrieved_scores_are_described_within_their_query():
    features = make_candidates("what", ["a", "b", "c", "d"], [1.0, 5.0, 3.0, 3.0]).features
    assert features.shape == (4, 4)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, 0], [1, 5, 3, 3])
    np.testing.assert_allclose(features[:, 1], np.array([-2, 2, 0, 0]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(features[:, 2], [-4, 0, -2, -2])
    np.testing.assert_allclose(features[:, 3], [0.75, 0, 0.25, 0.5])  # of equal ones the first ranks first


def test_equal_scores_are_described_without_dividing_by_zero():
    assert np.isfinite(make_candidates("what", ["a", "b"], [2.0, 2.0]).features).all()


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((3, ["a"]), TypeError, "query must be a text (got int)"),
        (("q", "abc"), TypeError, "documents must be a sequence of texts (got one str)"),
        (("q", 5), TypeError, "documents must be a sequence of texts (got one int)"),
        (("q", ["a", None]), TypeError, "documents[1] must be a text (got NoneType)"),
        (("q", []), ValueError, "documents must hold at least one document (got none)"),
        (("q", ["\ud800"]), ValueError, "documents[0] must be valid Unicode"),
        (("q", ["a", "b"], [1.0]), ValueError, "scores must be one finite number for each of the 2 documents"),
        (("q", ["a"], [10**400]), ValueError, "scores must be one finite number for each of the 1 documents"),
        (("q", ["a"], [1e300]), ValueError, "scores must be one finite number for each of the 1 documents"),
        (("q", ["a"], {"a": 1}), ValueError, "scores must be one finite number for each of the 1 documents"),
        (("q", ["a"], [[1], [2, 3]]), ValueError, "scores must be one finite number for each of the 1 documents"),
        (("q", ["a"], [np.nan]), ValueError, "scores must be one finite number for each of the 1 documents"),
    ],
)
def test_what_cannot_be_ranked_is_refused(one_line_error, arguments, kind, words):
    with one_line_error(kind, words):
        make_candidates(*arguments)


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        ("text", TypeError, "inputs must be tuples of query and documents (got one str)"),
        (["text"], TypeError, "(query, documents, scores) to rank by (got str at place 0)"),
        ([], ValueError, "inputs must hold at least one query (got none)"),
        ([("q", ["a"]), ("q", [])], ValueError, "inputs[1]: documents must hold at least one document"),
        ([("q", ["a"], [1.0]), ("r", ["a"])], ValueError, "scores for all queries or for none (got 1 of 2)"),
    ],
)
def test_inputs_that_are_no_queries_are_refused(one_line_error, inputs, kind, words):
    with one_line_error(kind, words):
        list_candidates(inputs)
