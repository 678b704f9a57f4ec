"""Evidence against an exit, how often it accuses wrongly, and what happens to an exit that errs."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import make_inputs
from scipy.stats import beta

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier
from moco_rt.architectures.sites import EMBEDDINGS, all_sites
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.promises import Confident
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.monitor import Alarm, Monitor
from moco_rt.policies.policy import Exit, Policy
from moco_rt.statistics.e_process import EProcess
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.costs import Costs
from moco_rt.studies.splits import split_texts
from moco_rt.studies.study import study_model
from moco_rt.tuning.accelerate import choose

HIDDEN = 32
SITES = ("encoder.0.attention", "encoder.1.attention")


def always(predicted_class=0, classes=2, bound=0.01):
    """Sends every row away with one class."""
    bias = np.zeros(classes, np.float32)
    bias[predicted_class] = 3
    never_sure = np.full(classes, -np.inf, np.float32)
    weight = np.zeros((classes, HIDDEN), np.float32)
    return OffRamp(((weight, bias),), never_sure, np.full(classes, bound, np.float32), feature="cls")


def make_policy(exits=1, bound=0.01, certificate=None):
    policy = Policy(all_sites(3), 2, HIDDEN)
    for site in SITES[:exits]:
        policy.add(Exit.of(always(bound=bound), site))
    policy.certificate = certificate
    return policy


def certify(*counts, delta=0.05):
    return Certificate(0.01, delta, 1000, 0, 1.0, 0.5, tuple(ExitCount(*count, 0.5) for count in counts))


def see(monitor, wrong, exit=0):
    monitor.record_checks(np.full(len(wrong), exit), np.asarray(wrong, bool))


# What it watches


def test_a_level_is_the_exits_bound_where_nothing_is_certified():
    monitor = Monitor(make_policy(2, bound=0.03))
    assert [process.level for process in monitor.processes] == pytest.approx([0.03, 0.03])


def test_a_level_bounds_all_classes_of_an_exit_by_the_certificates_counts():
    certificate = certify((SITES[0], 0, 400, 1), (SITES[0], 1, 200, 2), (SITES[1], 1, 50, 0), delta=0.1)
    monitor = Monitor(make_policy(2, certificate=certificate))
    each = 1 - 0.1 / 2
    expected = [beta.ppf(each, 3 + 1, 600 - 3), beta.ppf(each, 1, 50)]
    assert [process.level for process in monitor.processes] == pytest.approx(expected)


def test_a_level_is_the_exits_bound_where_no_calibration_row_left():
    monitor = Monitor(make_policy(2, bound=0.03, certificate=certify((SITES[0], 0, 400, 0))))
    assert monitor.processes[1].level == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("delta", "certificate", "expected"),
    [(None, None, 0.05), (None, certify(delta=0.2), 0.2), (0.01, None, 0.01), (0.01, certify(delta=0.2), 0.01)],
    ids=["default", "certified", "given", "given and certified"],
)
@pytest.mark.parametrize("exits", [1, 2])
def test_an_alarm_needs_the_evidence_that_all_exits_together_may_lack(exits, delta, certificate, expected):
    policy = make_policy(exits, certificate=certificate)
    monitor = Monitor(policy, delta=delta)
    process = EProcess(monitor.processes[0].level)
    while not policy.closed:
        assert process.evidence < exits / expected
        see(monitor, [True])
        process.update(1, 1)
    assert process.evidence >= exits / expected


# Which rows it looks at


def test_rows_that_ran_to_the_end_are_not_looked_at():
    monitor = Monitor(make_policy(2), rate=1)
    assert monitor.sample_rows(np.array([-1, 0, 1, -1, 0])).tolist() == [1, 2, 4]
    assert monitor.sample_rows(np.array([-1, -1])).tolist() == []
    assert monitor.sample_rows(np.array([], int)).tolist() == []


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_a_share_of_the_rows_is_looked_at(rate):
    chosen = Monitor(make_policy(), rate=rate, seed=0).sample_rows(np.zeros(100_000, int))
    assert len(chosen) / 100_000 == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 100_000))
    assert (np.diff(chosen) > 0).all()


def test_the_seed_chooses_the_rows():
    chosen = [
        Monitor(make_policy(), rate=0.1, seed=seed).sample_rows(np.zeros(1000, int)).tolist() for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_without_a_seed_every_process_checks_other_rows():
    chosen = [Monitor(make_policy(), rate=0.1).sample_rows(np.zeros(1000, int)).tolist() for _ in range(2)]
    assert chosen[0] != chosen[1]


# What it does


def test_only_the_exit_that_errs_is_closed_and_told_of_once():
    policy, alarms = make_policy(2), []
    monitor = Monitor(policy, on_alarm=alarms.append)
    see(monitor, [False] * 100, exit=0)
    for _ in range(50):
        monitor.record_checks(np.array([0, 1, 0, 1]), np.array([False, True, False, True]))
    assert policy.closed == {1}
    (alarm,) = alarms
    assert alarm == Alarm(1, SITES[1], alarm.rows, alarm.rows, pytest.approx(0.01))
    assert 2 <= alarm.rows < 20
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (200, 0)
    assert (monitor.processes[1].rows, monitor.processes[1].wrong) == (100, 100)


def test_an_exit_is_closed_before_it_is_told_of():
    policy = make_policy()
    closed = []
    monitor = Monitor(policy, on_alarm=lambda alarm: closed.append((alarm.exit, set(policy.closed))))
    see(monitor, [True] * 20)
    assert closed == [(0, {0})]


def test_an_exit_closes_without_anyone_to_tell():
    policy = make_policy()
    see(Monitor(policy), [True] * 20)
    assert policy.closed == {0}


@pytest.mark.parametrize("seed", range(3))
def test_a_stable_stream_raises_no_alarm(seed):
    rng, policy = np.random.default_rng(seed), make_policy(2, bound=0.01)
    monitor = Monitor(policy, on_alarm=lambda alarm: pytest.fail(str(alarm)))
    for _ in range(400):
        monitor.record_checks(rng.integers(0, 2, 50), rng.random(50) < 0.007)
    assert sum(process.rows for process in monitor.processes) == 20_000
    assert policy.closed == set()


def test_a_stream_that_drifts_raises_one():
    rng, policy, alarms = np.random.default_rng(0), make_policy(bound=0.01), []
    monitor = Monitor(policy, on_alarm=alarms.append)
    for share in (0.005, 0.005, 0.1):
        for _ in range(40):
            see(monitor, rng.random(50) < share)
        assert bool(alarms) == (share == 0.1)


# From one run to the next


def test_a_later_monitor_goes_on_from_the_state():
    first, second = Monitor(make_policy(2), rate=np.float32(0.25)), Monitor(make_policy(2), rate=0.25)
    see(first, [True, False, False, True], exit=0)
    see(first, [False] * 7, exit=1)
    state = json.loads(json.dumps(first.state()))
    assert len(state.pop("identity")) == 64
    assert state == {"rate": 0.25, "delta": 0.05, "step": None, "rows": [4, 7], "wrong": [2, 0]}  # as older files have
    second.restore(state)
    assert second.state() == first.state()
    assert [p.evidence for p in second.processes] == [p.evidence for p in first.processes]


def test_half_the_evidence_before_and_half_after_a_restart_close_an_exit():
    policy = make_policy()
    needed = 0
    monitor = Monitor(policy)
    while not policy.closed:
        see(monitor, [True])
        needed += 1
    policy = make_policy()
    first = Monitor(policy)
    see(first, [True] * (needed - 1))
    second = Monitor(policy)
    second.restore(first.state())
    assert policy.closed == set()
    see(second, [True])
    assert policy.closed == {0}


def test_a_state_of_more_exits_is_refused(one_line_error):
    with one_line_error(ValueError, "state must be of 1 exits at most (got 2)"):
        Monitor(make_policy(1)).restore(Monitor(make_policy(2)).state())


def test_a_state_from_before_an_exit_was_added_is_taken():
    before = Monitor(make_policy(1))
    before.record_checks(np.array([0, 0]), np.array([True, False]))
    after = Monitor(make_policy(2))
    after.restore(before.state())
    assert [(process.rows, process.wrong) for process in after.processes] == [(2, 1), (0, 0)]


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, math.nan])
def test_rates_out_of_range_are_refused(one_line_error, rate):
    with one_line_error(ValueError, f"rate must be inside (0, 1] (got {rate})"):
        Monitor(make_policy(), rate)


@pytest.mark.parametrize("delta", [0, 1, -1, math.nan])
def test_deltas_out_of_range_are_refused(one_line_error, delta):
    with one_line_error(ValueError, f"delta must be inside (0, 1) (got {delta})"):
        Monitor(make_policy(), delta=delta)


def test_a_policy_without_exits_is_refused(one_line_error):
    with one_line_error(ValueError, "policy must have exits to watch (got none)"):
        Monitor(make_policy(0))


# In a model

backends = pytest.mark.parametrize("backend", ["packed", "reference"])
INPUTS = make_inputs([5, 9, 3, 12, 7, 7, 20, 4] * 4, pairs=True)


def make_fast(tiny_bert, backend, predicted_class):
    fast = EarlyExitTextClassificationModel(tiny_bert(3, seed=2), backend=backend)
    fast.add_off_ramp(always(predicted_class), SITES[0])
    return fast


@pytest.fixture(scope="module")
def labels(tiny_bert):
    full = EarlyExitTextClassificationModel(tiny_bert(3, seed=2))(**INPUTS).logits.argmax(dim=1)
    assert len(set(full.tolist())) == 2
    return full


@backends
def test_an_exit_that_errs_closes_and_nobody_leaves_by_it_any_more(tiny_bert, labels, backend):
    rarer = int(labels.bincount().argmin())
    fast, alarms = make_fast(tiny_bert, backend, rarer), []
    monitor = fast.monitor(rate=1, on_alarm=alarms.append)
    assert (fast(**INPUTS).exit_rule == 0).all()  # what is found out about a batch changes only those to come
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (len(labels), int((labels != rarer).sum()))
    assert fast.policy.closed == {0}
    after = fast(**INPUTS)
    assert (after.exit_rule == -1).all()
    assert (after.exit_site == -1).all()
    full = EarlyExitTextClassificationModel(tiny_bert(3, seed=2), backend=backend)(**INPUTS)
    torch.testing.assert_close(after.logits, full.logits, atol=1e-5, rtol=0)
    fast(**INPUTS)
    assert [(alarm.exit, alarm.site, alarm.rows) for alarm in alarms] == [(0, SITES[0], len(labels))]


@backends
def test_an_exit_that_is_right_stays_open(tiny_bert, labels, backend):
    fast = make_fast(tiny_bert, backend, 1)
    ones = {name: tensor[labels == 1] for name, tensor in INPUTS.items()}
    monitor = fast.monitor(rate=1, on_alarm=lambda alarm: pytest.fail(str(alarm)))
    for _ in range(5):
        assert (fast(**ones).exit_rule == 0).all()
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (5 * len(ones["input_ids"]), 0)


def test_the_exits_that_stay_open_keep_their_places(tiny_bert, labels):
    fast = make_fast(tiny_bert, "packed", int(labels.bincount().argmin()))
    fast.add_off_ramp(always(1), SITES[1])
    fast.monitor(rate=1)
    fast(**INPUTS)
    assert fast.policy.closed == {0}
    after = fast(**INPUTS)
    assert (after.exit_rule == 1).all()
    assert (after.exit_site == fast.sites.index(SITES[1])).all()


def test_watching_does_not_change_the_answers(tiny_bert):
    watched, unwatched = make_fast(tiny_bert, "packed", 0), make_fast(tiny_bert, "packed", 0)
    watched.monitor(rate=0.5)
    assert torch.equal(watched(**INPUTS).logits, unwatched(**INPUTS).logits)


def test_inputs_without_segments_are_watched_too(tiny_bert):
    fast = make_fast(tiny_bert, "packed", 0)
    monitor = fast.monitor(rate=1)
    fast(INPUTS["input_ids"], INPUTS["attention_mask"])
    fast(INPUTS["input_ids"][:1])
    assert monitor.processes[0].rows == len(INPUTS["input_ids"]) + (not fast.policy.closed)


def test_an_exit_that_was_added_later_leaves_a_monitor_working(tiny_bert):
    fast = make_fast(tiny_bert, "packed", 0)
    fast.monitor(rate=1)
    fast.policy.close([0])
    fast.add_off_ramp(always(1), SITES[1])
    assert (fast(**INPUTS).exit_rule == 1).all()


# Real texts


@pytest.mark.shared
def test_exits_stay_open_on_texts_like_those_they_know_and_close_on_those_of_another_topic(shared_dir):
    model, tokenizer = load_classifier(str(shared_dir / "models" / "tiny-imdb"))

    def read(file, rows):
        with (shared_dir / "data" / file).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in itertools.islice(lines, rows)]

    fast = EarlyExitTextClassificationModel(model)
    known = [row["text"] for row in read("imdb/unlabelled.jsonl", 6000)]
    found = study_model(fast, split_texts(known, lambda some: encode(tokenizer, some, 128)), seed=0)
    # What is chosen must not depend on this machine's mood.
    reach = [0.2 if site == EMBEDDINGS else 0.5 for site in found.sites]
    costs = Costs(
        np.array([128.0]), np.array([[*reach, 1.0]]), np.full((1, len(reach)), 0.01), np.zeros(len(reach) + 1)
    )
    choose(fast, replace(found, costs=costs), Confident(Guarantee(0.02, 0.05)))
    assert fast.policy.exits
    reviews = read("imdb/test.jsonl", 20_000)
    monitor = fast.monitor(rate=0.01, seed=0, on_alarm=lambda alarm: pytest.fail(str(alarm)))
    fast.predict([row["text"] for row in reviews], tokenizer=tokenizer, max_length=128)
    assert sum(process.rows for process in monitor.processes) > 100

    news = itertools.cycle(row["text"] for row in read("mrpc/train.jsonl", None))
    drifted = [row["text"] if row["label"] == 0 else next(news) for row in reviews[:4000]]
    alarms = []
    fast.monitor(rate=0.2, seed=0, on_alarm=alarms.append)
    fast.predict(drifted, tokenizer=tokenizer, max_length=128)
    assert alarms
    assert fast.policy.step == alarms[-1].step < fast.policy.path.policies.chosen
