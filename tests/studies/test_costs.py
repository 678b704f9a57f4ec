"""What leaving costs: the arithmetic on costs made by hand, and the form of those that are measured."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt import BagOfTokens, EarlyExitTextClassificationModel
from moco_rt.architectures.sites import all_sites
from moco_rt.policies.conditions import OffRamp
from moco_rt.studies import timing
from moco_rt.studies.costs import Costs, measure_costs

LAYERS = 3


pytestmark = pytest.mark.usefixtures("quick_off_ramps")


#: Rows of 10 and of 20 tokens, in batches that pay 0.25 for each of them once; two off-ramps.
COSTS = Costs(
    lengths=np.array([10.0, 20.0]),
    compute=np.array([[1.0, 2.0, 4.0], [2.0, 6.0, 10.0]]),
    scoring=np.array([[0.5, 0.25], [1.0, 0.5]]),
    fixed=np.array([2.0, 4.0, 0.25]),
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
    assert COSTS.seconds(np.array([10, 15, 20]), chosen) == pytest.approx(np.array(expected) + 0.25)


def test_lengths_that_were_not_timed_cost_what_the_nearest_timed_ones_do():
    assert COSTS.seconds(np.array([1, 500]), [0]).tolist() == COSTS.seconds(np.array([10, 20]), [0]).tolist()


def test_rows_keep_their_order():
    found = COSTS.seconds(np.array([20, 10, 20]), [1])
    assert found.tolist() == [[10.75, 14.75], [6.5, 8.5], [10.75, 14.75]]


@pytest.mark.parametrize("chosen", [[], [0, 1]])
def test_no_rows_cost_nothing(chosen):
    assert COSTS.seconds(np.array([], dtype=np.int64), chosen).shape == (0, len(chosen) + 1)


def make_rows(lengths):
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(5, 100, n).tolist()} for n in lengths]


def make_off_ramp(site, feature="cls"):
    if site == "tokens":
        return BagOfTokens.closed(np.zeros((64, 3)), np.zeros(3), 1.0)
    rng = np.random.default_rng(0)
    size = 32 if feature == "cls" else 64
    return OffRamp.closed(((rng.normal(size=(3, size)), np.zeros(3)),), feature=feature, site=site)


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize(
    "sites",
    [["embeddings"], ["tokens", "embeddings", "encoder.1.attention"], list(all_sites(LAYERS)[:-1])],
    ids=len,
)
@pytest.mark.parametrize("features", [["cls"], ["cls", "cls+mean"]], ids=["one feature", "two"])
def test_measured_costs_are_not_negative_and_of_ascending_lengths(tiny_bert, backend, sites, features):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3), backend=backend)
    off_ramps = [make_off_ramp(site, feature) for site in sites for feature in features]
    costs = measure_costs([model], make_rows(np.random.default_rng(1).integers(1, 60, 100)), off_ramps)[0]
    timed = len(costs.lengths)
    assert costs.compute.shape == (timed, len(off_ramps) + 1)
    assert costs.scoring.shape == (timed, len(off_ramps))
    assert costs.fixed.shape == (len(off_ramps) + 1,)
    assert (np.diff(costs.lengths) >= 0).all()
    assert costs.lengths.min() >= 1
    assert costs.lengths.max() < 60
    for seconds in (costs.compute, costs.scoring, costs.fixed):
        assert np.isfinite(seconds).all()
        assert (seconds >= 0).all()
    assert not model.policy.exits


@pytest.mark.parametrize("feature", ["cls", "cls+mean"])
def test_off_ramps_that_look_at_the_same_cost_the_same_to_ask(tiny_bert, feature):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    off_ramps = [make_off_ramp(site, feature) for site in ("encoder.0.attention", "encoder.1.attention")]
    costs = measure_costs([model], make_rows([5] * 64), off_ramps)[0]
    np.testing.assert_array_equal(costs.scoring[:, 0], costs.scoring[:, 1])
    assert costs.fixed[0] == costs.fixed[1]


@pytest.mark.parametrize("lengths", [[7], [5] * 100, [1, 60], [3, 3, 9]], ids=["one", "alike", "two", "three"])
def test_rows_may_be_few_or_all_alike(tiny_bert, lengths):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    costs = measure_costs([model], make_rows(lengths), [make_off_ramp("embeddings")])[0]
    of_rows = costs.seconds(np.array(lengths), [0])
    assert of_rows.shape == (len(lengths), 2)
    assert np.isfinite(of_rows).all()
    assert (of_rows >= 0).all()


def test_every_row_takes_some_time_whatever_the_clock_says(tiny_bert, monkeypatch):
    """As beside other work, where few rows may take as long as many, and a way less than it takes to be scored."""
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 1.0)
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    off_ramps = [make_off_ramp("embeddings"), make_off_ramp("encoder.1.attention")]
    costs = measure_costs([model], make_rows([5] * 64), off_ramps)[0]
    assert (costs.seconds(np.array([5, 7]), [0, 1]) > 0).all()


BATCH = 7.0
REACH = {"tokens": 0.125, "embeddings": 1.0, "encoder.0.attention": 3.0, "encoder.1.attention": 6.0, None: 10.0}
LOOK = {"ids": 0.0625, "cls": 0.25, "cls+mean": 0.5}
LOOK_ONCE = {"ids": 1.0, "cls": 2.0, "cls+mean": 4.0}


class Clock:
    """A model whose forwards take what they are said to take: a batch 7, and each token so much for all it meets."""

    def __init__(self, model):
        self._model = model
        self.now = 0.0
        self.policy, self.device = model.policy, model.device
        self.lengths_of, self.batch_of = model.lengths_of, model.batch_of

    def perf_counter(self):
        return self.now

    def run_batch(self, exits, rows):
        results = self._model.run_batch(exits, rows)
        (site,) = set(results.exit_site.tolist())
        name = None if site < 0 else self._model.sites[site]
        tokens = len(rows.ids)
        looks = [
            "ids" if site == "tokens" else "cls+mean" if exit.needs_mean else "cls" for site, exit in exits.items()
        ]
        self.now += BATCH + tokens * REACH[name]
        self.now += sum(LOOK_ONCE[look] + tokens * LOOK[look] for look in looks)
        return results


@pytest.mark.parametrize("lengths", [[9] * 80, [5] * 300 + [20] * 300 + [50] * 300], ids=["alike", "three lengths"])
def test_costs_are_those_of_the_clock(tiny_bert, monkeypatch, lengths):
    clock = Clock(EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3)))
    monkeypatch.setattr(timing.time, "perf_counter", clock.perf_counter)
    looks = [
        ("tokens", "ids"),
        ("embeddings", "cls+mean"),
        ("encoder.0.attention", "cls"),
        ("encoder.1.attention", "cls+mean"),
    ]
    costs = measure_costs([clock], make_rows(lengths), [make_off_ramp(*look) for look in looks])[0]
    per_token = [REACH[site] for site, _ in looks] + [REACH[None]]
    np.testing.assert_allclose(costs.compute, costs.lengths[:, None] * per_token, rtol=1e-6)
    np.testing.assert_allclose(costs.scoring, costs.lengths[:, None] * [LOOK[look] for _, look in looks], rtol=1e-6)
    np.testing.assert_allclose(64 * costs.fixed, [*(LOOK_ONCE[look] for _, look in looks), BATCH], rtol=1e-6)
    assert (np.diff(costs.lengths) >= 0).all()


def test_lengths_ascend_where_few_rows_are_of_many_lengths(tiny_bert):
    model = EarlyExitTextClassificationModel(tiny_bert(LAYERS, labels=3))
    lengths = (np.linspace(0, 1, 60) ** 3 * 50 + 1).astype(int)
    costs = measure_costs([model], make_rows(lengths), [make_off_ramp("encoder.0.attention")])[0]
    assert (np.diff(costs.lengths) >= 0).all()
