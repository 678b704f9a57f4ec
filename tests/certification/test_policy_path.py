"""A whole path of policies in little space: nothing of it is lost."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt.certification.bounds import fixed_sequence
from moco_rt.certification.guarantee import Guarantee
from moco_rt.certification.policy_path import PolicyPath

INF = np.inf


def path_of(*thresholds):
    made = [np.array(levels, np.float32) for levels in thresholds]
    return PolicyPath.of(made, np.arange(len(made)), 5.0 - np.arange(len(made)), 1000, 2, 1)


POLICIES = [
    [[INF, INF], [INF, INF]],
    [[INF, 0.9], [INF, INF]],
    [[INF, 0.9], [0.8, INF]],
    [[INF, 0.9], [0.8, INF]],  # a tie: nothing is left to loosen
    [[INF, 0.7], [0.8, INF]],
    [[INF, 0.7], [-INF, INF]],
]


@pytest.mark.parametrize("place", range(6))
def test_the_thresholds_of_every_policy_come_back(place):
    np.testing.assert_array_equal(path_of(*POLICIES).thresholds(place), np.array(POLICIES[place], np.float32))


def test_points_are_seconds_and_shares():
    assert path_of(*POLICIES).operating_points()[2].tolist() == [3.0, 0.002]


def test_another_policy_can_be_chosen_without_data():
    path = path_of(*POLICIES)
    assert fixed_sequence(path.disagreements, path.rows, Guarantee(0.01, 0.05)) == 4
    assert fixed_sequence(path.disagreements, path.rows, Guarantee(0.005, 0.05)) == 1
