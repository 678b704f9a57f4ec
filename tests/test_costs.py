"""What leaving costs: the arithmetic on costs made by hand, and the form of those that are measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.costs import Costs, measure_costs
from moco_rt.rules import OffRamp
from moco_rt.sites import all_sites

LAYERS = 3


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models as small as these gain nothing from a second thread, and wait for it where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


#: Rows of 10 and of 20 tokens that leave at one of two sites or run to the end.
COSTS = Costs(
    lengths=np.array([10.0, 20.0]),
    seconds=np.array([[1.0, 2.0, 4.0], [2.0, 6.0, 10.0]]),
    exit_point=np.array([0.5, 1.0]),
)


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        # Nobody is asked: what the full model takes.
        ([], [[4.0], [7.0], [10.0]]),
        # Who leaves at the only site has paid for being asked there within its seconds; who goes on pays apart.
        ([0], [[1.0, 4.5], [1.5, 7.75], [2.0, 11.0]]),
        ([1], [[2.0, 4.5], [4.0, 7.75], [6.0, 11.0]]),
        ([0, 1], [[1.0, 2.5, 5.0], [1.5, 4.75, 8.5], [2.0, 7.0, 12.0]]),
    ],
)
def test_rows_pay_for_the_sites_they_were_asked_at_before(sites, expected):
    assert COSTS.of(np.array([10, 15, 20]), sites).tolist() == expected


def test_lengths_that_were_not_timed_cost_what_the_nearest_timed_ones_do():
    assert COSTS.of(np.array([1, 500]), [0]).tolist() == [[1.0, 4.5], [2.0, 11.0]]


def test_rows_keep_their_order():
    found = COSTS.of(np.array([20, 10, 20]), [1])
    assert found.tolist() == [[6.0, 11.0], [2.0, 4.5], [6.0, 11.0]]


def test_no_rows_cost_nothing():
    assert COSTS.of(np.array([], dtype=np.int64), [0, 1]).shape == (0, 3)


def make_rows(lengths):
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(5, 100, n).tolist()} for n in lengths]


@pytest.fixture(scope="module")
def off_ramp():
    rng = np.random.default_rng(0)
    layers = ((rng.normal(size=(3, 64)), np.zeros(3)),)
    return OffRamp(layers, [0.9] * 3, [0.01] * 3, site="embeddings")


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize(
    "sites",
    [["embeddings"], ["embeddings", "encoder.0.attention", "encoder.1.attention"], list(all_sites(LAYERS)[:-1])],
    ids=len,
)
def test_measured_costs_are_positive_for_ascending_lengths(tiny_bert, off_ramp, backend, sites):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3), backend=backend)
    costs = measure_costs(model, make_rows(np.random.default_rng(1).integers(1, 60, 100)), sites, off_ramp)
    timed = len(costs.lengths)
    assert costs.seconds.shape == (timed, len(sites) + 1)
    assert costs.exit_point.shape == (timed,)
    assert (np.diff(costs.lengths) >= 0).all()
    assert costs.lengths.min() >= 1
    assert costs.lengths.max() < 60
    assert (costs.seconds > 0).all()
    assert np.isfinite(costs.seconds).all()
    assert (costs.exit_point >= 0).all()
    assert not model.policy.exits


@pytest.mark.parametrize("lengths", [[7], [5] * 100, [1, 60], [3, 3, 9]], ids=["one", "alike", "two", "three"])
def test_rows_may_be_few_or_all_alike(tiny_bert, off_ramp, lengths):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    costs = measure_costs(model, make_rows(lengths), ["embeddings"], off_ramp)
    of_rows = costs.of(np.array(lengths), [0])
    assert of_rows.shape == (len(lengths), 2)
    assert np.isfinite(of_rows).all()
    assert (of_rows > 0).all()
