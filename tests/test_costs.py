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


#: Rows of 10 and of 20 tokens, in batches that pay 0.25 for each of them once; two off-ramps.
COSTS = Costs(
    lengths=np.array([10.0, 20.0]),
    reach=np.array([[1.0, 2.0, 4.0], [2.0, 6.0, 10.0]]),
    ask=np.array([[0.5, 0.25], [1.0, 0.5]]),
    once=np.array([2.0, 4.0, 0.25]),
)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        # Nobody is asked: what the full model takes.
        ([], [[4.0], [7.0], [10.0]]),
        ([0], [[3.5, 6.5], [4.25, 9.75], [5.0, 13.0]]),
        ([1], [[6.25, 8.25], [8.375, 11.375], [10.5, 14.5]]),
        ([0, 1], [[7.5, 8.75, 10.75], [8.25, 11.125, 14.125], [9.0, 13.5, 17.5]]),
    ],
)
def test_rows_pay_for_the_off_ramps_they_were_asked_by_and_share_what_the_batch_pays(chosen, expected):
    assert COSTS.of(np.array([10, 15, 20]), chosen) == pytest.approx(np.array(expected) + 0.25)


def test_lengths_that_were_not_timed_cost_what_the_nearest_timed_ones_do():
    assert COSTS.of(np.array([1, 500]), [0]).tolist() == COSTS.of(np.array([10, 20]), [0]).tolist()


def test_rows_keep_their_order():
    found = COSTS.of(np.array([20, 10, 20]), [1])
    assert found.tolist() == [[10.75, 14.75], [6.5, 8.5], [10.75, 14.75]]


@pytest.mark.parametrize("chosen", [[], [0, 1]])
def test_no_rows_cost_nothing(chosen):
    assert COSTS.of(np.array([], dtype=np.int64), chosen).shape == (0, len(chosen) + 1)


def make_rows(lengths):
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(5, 100, n).tolist()} for n in lengths]


def make_off_ramp(site, feature="cls"):
    rng = np.random.default_rng(0)
    size = 32 if feature == "cls" else 64
    return OffRamp.closed(((rng.normal(size=(3, size)), np.zeros(3)),), feature=feature, site=site)


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize(
    "sites",
    [["embeddings"], ["embeddings", "encoder.0.attention", "encoder.1.attention"], list(all_sites(LAYERS)[:-1])],
    ids=len,
)
@pytest.mark.parametrize("features", [["cls"], ["cls", "cls+mean"]], ids=["one feature", "two"])
def test_measured_costs_are_positive_for_ascending_lengths(tiny_bert, backend, sites, features):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3), backend=backend)
    off_ramps = [make_off_ramp(site, feature) for site in sites for feature in features]
    costs = measure_costs(model, make_rows(np.random.default_rng(1).integers(1, 60, 100)), off_ramps)
    timed = len(costs.lengths)
    assert costs.reach.shape == (timed, len(off_ramps) + 1)
    assert costs.ask.shape == (timed, len(off_ramps))
    assert costs.once.shape == (len(off_ramps) + 1,)
    assert (np.diff(costs.lengths) >= 0).all()
    assert costs.lengths.min() >= 1
    assert costs.lengths.max() < 60
    for seconds in (costs.reach, costs.ask, costs.once):
        assert np.isfinite(seconds).all()
        assert (seconds >= 0).all()
    assert (costs.of(np.array([1, 100]), list(range(len(off_ramps)))) > 0).all()
    assert not model.policy.exits


@pytest.mark.parametrize("feature", ["cls", "cls+mean"])
def test_off_ramps_that_look_at_the_same_cost_the_same_to_ask(tiny_bert, feature):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    off_ramps = [make_off_ramp(site, feature) for site in ("embeddings", "encoder.1.attention")]
    costs = measure_costs(model, make_rows([5] * 64), off_ramps)
    np.testing.assert_array_equal(costs.ask[:, 0], costs.ask[:, 1])
    assert costs.once[0] == costs.once[1]


@pytest.mark.parametrize("lengths", [[7], [5] * 100, [1, 60], [3, 3, 9]], ids=["one", "alike", "two", "three"])
def test_rows_may_be_few_or_all_alike(tiny_bert, lengths):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    costs = measure_costs(model, make_rows(lengths), [make_off_ramp("embeddings")])
    of_rows = costs.of(np.array(lengths), [0])
    assert of_rows.shape == (len(lengths), 2)
    assert np.isfinite(of_rows).all()
    assert (of_rows > 0).all()
