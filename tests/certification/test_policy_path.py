"""A whole path of policies: what it knows of each, and that another can be chosen of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moco_rt.certification.policy_path import NOT_TESTED, PolicyPath
from moco_rt.statistics.bounds import fixed_sequence
from moco_rt.statistics.guarantee import Guarantee

INF = np.inf
#: Of a model with two classes and one exit, in two forms.
PATH = PolicyPath(
    ("as given", "int8"),
    np.array([0, 0, 1, 1, 0]),
    np.array([[[INF, INF]], [[INF, INF]], [[INF, INF]], [[INF, 0.9]], [[INF, INF]]], np.float32),
    np.array([0, 1, 2, 3, 6]),
    np.array([5.0, 4.0, 3.0, 2.0, 1.0]),
    1000,
    3,
    3,
)


def test_points_are_seconds_and_shares():
    assert PATH.operating_points()[2].tolist() == [3.0, 0.002]
    assert PATH.operating_points().shape == (5, 2)


def test_another_policy_can_be_chosen_without_data():
    assert fixed_sequence(PATH.disagreements, PATH.rows, Guarantee(0.01, 0.05)) == 3
    assert fixed_sequence(PATH.disagreements, PATH.rows, Guarantee(0.005, 0.05)) == 1


def test_each_variant_is_said_to_be_taken_or_why_not():
    assert PATH.compare_variants() == [
        "as given  4000.000 ms, same answers 99.90%: slower",
        "int8      2000.000 ms, same answers 99.70%: taken",
    ]
    cautious = replace(PATH, certified=1, chosen=1)
    assert cautious.compare_variants() == [
        "as given  4000.000 ms, same answers 99.90%: taken",
        "int8      3000.000 ms, same answers 99.80%: not certified, the first of its policies on the path",
    ]
    many = replace(PATH, rows=100_000)  # of which one differs
    assert many.compare_variants()[0] == "as given  4000.000 ms, same answers 99.9990%: slower"
    alone = replace(PATH, variants=("as given", "int8", "bfloat16"))
    assert alone.compare_variants()[2] == (
        "bfloat16  another variant is faster with fewer other answers, whatever is asked for"
    )


def test_what_rows_have_not_tested_is_said_to_be_so():
    fresh = replace(PATH, disagreements=np.array([0, NOT_TESTED, 2, 3, NOT_TESTED]))
    assert fresh.compare_variants()[0] == "as given  not tested on the rows of this certificate"
    assert fresh.operating_points()[:, 1].tolist() == [0.0, 0.002, 0.003]


@pytest.mark.parametrize("counts", [{"fired": np.zeros((5, 1), int)}, dict.fromkeys(("fired", "wrong"), np.zeros(5))])
def test_counts_by_exit_must_fit_the_thresholds(counts, one_line_error):
    with one_line_error(ValueError, "PolicyPath: fired and wrong must both have shape (5, 1)"):
        replace(PATH, **counts)


@pytest.mark.parametrize("few", [(0, 1), (-1, -1), (1001, 0), (5, -2), (2.0, 1.0)])
def test_counts_by_exit_must_be_counts(few, one_line_error):
    with one_line_error(ValueError, "PolicyPath: fired and wrong must be counts of 1000 rows"):
        replace(PATH, fired=np.full((5, 1), few[0]), wrong=np.full((5, 1), few[1]))
