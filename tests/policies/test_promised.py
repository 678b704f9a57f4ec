"""What is said of the exits in use, and the error rate that each of them is held to."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import make_inputs
from path_samples import CLASSES, HIDDEN, with_path

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.fingerprints import model_identity
from moco_rt.policies.monitor import Monitor
from moco_rt.policies.policy import Exit, Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy
from moco_rt.policies.promised import describe_promise, promised_error_rates
from moco_rt.statistics.bounds import upper_bound

SITE = "encoder.0.attention"
DELTA = 0.05
COUNTS = (ExitCount("embeddings", 0, 300, 30, 0.2), ExitCount("embeddings", 1, 100, 10, 0.2))


@pytest.fixture
def make_fast(tiny_bert):
    """make_fast(backend): a model with a path of which step 3 was chosen; the counts by step and exit are known."""

    def make(backend="auto"):
        fast = with_path(EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES), backend=backend))
        policies = fast.policy.path.policies
        fired = np.arange(policies.thresholds[..., 0].size).reshape(policies.thresholds.shape[:2]) * 10
        wrong = fired // 10
        policies = replace(policies, certified=4, chosen=3, fired=fired, wrong=wrong)
        fast.policy.path = replace(fast.policy.path, policies=policies)
        fast.policy.take_step(3)
        fast.policy.certificate = Certificate(0.1, DELTA, 1000, 30, 1.0, 0.4, COUNTS)
        return fast

    return make


@pytest.fixture
def fast(make_fast):
    return make_fast()


def always_first(bound=0.07):
    return LinearCondition(np.zeros(HIDDEN, np.float32), 1.0, 0.0, bound)


# What is said


def test_of_the_chosen_step_the_table_is_printed(fast):
    assert describe_promise(fast.policy) == fast.policy.certificate.table()


@torch.no_grad()
def negate(model):
    model.classifier.weight.neg_()


@torch.no_grad()
def load_negated(model):
    model.load_state_dict({name: -weight for name, weight in model.state_dict().items()})


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize("change", [negate, load_negated, lambda model: setattr(model.config, "pad_token_id", 3)])
def test_nothing_is_promised_of_a_model_that_was_changed_since(make_fast, change, backend):
    fast = make_fast(backend)
    fast.policy.made_for = model_identity(fast.model)
    inputs = make_inputs([5, 3])
    before = copy.deepcopy(fast.model.state_dict())
    fast(**inputs)
    assert fast.policy.is_certified
    change(fast.model)
    fast(**inputs)
    assert not fast.policy.is_certified
    said = "the model was changed since it was certified: nothing is promised of it, but of what it was:"
    assert fast.report().splitlines()[0] == said
    fast.model.config.pad_token_id = 0
    fast.load_state_dict({f"model.{name}": weight for name, weight in before.items()})
    assert fast.policy.is_certified


@pytest.mark.parametrize(("step", "differ", "expected"), [(0, 0, "1000.000"), (1, 2, "600.000"), (4, 80, "300.000")])
def test_of_another_certified_step_its_own_counts_and_time_are_printed(fast, step, differ, expected):
    fast.policy.take_step(step)
    said = fast.report()
    assert said.splitlines()[0].startswith(f"step {step} of the path is in use, which keeps what is promised of step 3")
    assert f"by step {step}: {differ} of 1,000 distinct calibration rows differ" in said
    assert f"expected {expected} ms a row instead of 1000.000: {1000 / float(expected):.2f}x" in said
    assert "0.40" not in said
    assert "left" not in said  # nobody may leave there as by the chosen step


def test_remarks_about_the_chosen_step_are_kept_from_others(fast):
    class Report:
        remarks = "class with the most other answers: LABEL_0"

    fast.search_report = Report()
    assert Report.remarks in fast.report()
    assert "other  " in fast.report()
    fast.policy.take_step(1)
    assert Report.remarks not in fast.report()
    assert "other  " not in fast.report()


def test_nothing_is_promised_of_a_step_behind_the_certified_ones(fast):
    fast.policy.take_step(5)
    assert describe_promise(fast.policy).startswith("other exits are in use than were certified")


@pytest.mark.parametrize("change", ["add", "close"])
def test_exits_without_a_path_are_certified_as_they_were_when_the_certificate_was_set(fast, change, tmp_path):
    """As of files of earlier versions, which have no path."""
    policy = Policy(fast.policy.sites, CLASSES, HIDDEN)
    ramp = OffRamp(
        ((np.zeros((CLASSES, HIDDEN), np.float32), np.zeros(CLASSES, np.float32)),),
        np.full(CLASSES, 0.9),
        np.full(CLASSES, 0.02),
        feature="cls",
    )
    policy.add(Exit.of(ramp, SITE))
    policy.certificate = fast.policy.certificate
    assert policy.is_certified
    save_policy(policy, tmp_path)
    assert load_policy(tmp_path / JSON, tmp_path / TENSORS, policy.without_exits()).is_certified
    if change == "add":
        policy.add(Exit(SITE, 0, always_first(), "cls", 0.07))
    else:
        policy.close([0])
    assert not policy.is_certified
    save_policy(policy, tmp_path)
    assert not load_policy(tmp_path / JSON, tmp_path / TENSORS, policy.without_exits()).is_certified


# What each exit is held to


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_an_exit_is_held_to_what_was_counted_at_the_step_in_use(fast, step):
    policies = fast.policy.path.policies
    fast.policy.take_step(step)
    used = np.flatnonzero(~np.isposinf(policies.thresholds[step]).all(axis=1))
    each = 1 - DELTA / len(used)
    expected = [upper_bound(policies.wrong[step, place], policies.fired[step, place], each) for place in used]
    assert promised_error_rates(fast.policy) == pytest.approx(expected)


def test_where_no_calibration_row_left_the_exit_has_its_own_bound(fast):
    policies = fast.policy.path.policies
    policies.fired[:] = 0
    policies.wrong[:] = 0
    assert promised_error_rates(fast.policy) == [exit.bound for exit in fast.policy.exits]


def test_a_path_without_counts_leaves_those_of_the_certificate(fast):
    policies = replace(fast.policy.path.policies, fired=None, wrong=None)
    fast.policy.path = replace(fast.policy.path, policies=policies)
    rates = dict(zip([exit.site for exit in fast.policy.exits], promised_error_rates(fast.policy), strict=False))
    assert rates["embeddings"] == upper_bound(40, 400, 1 - DELTA / len(fast.policy.exits))


def test_a_rule_added_by_hand_is_held_to_its_own_bound_where_a_certified_exit_stands_too(fast):
    fast.add_rule(always_first(), 0, "embeddings")
    sites = [exit.site for exit in fast.policy.exits]
    rates = promised_error_rates(fast.policy)
    assert rates[-1] == pytest.approx(0.07)
    fired, wrong = fast.policy.path.counts(3)[0]
    assert rates[sites.index("embeddings")] == upper_bound(wrong, fired, 1 - DELTA / len(sites))


@pytest.mark.parametrize("saved", [False, True])
def test_exits_of_another_step_than_the_chosen_one_are_held_to_its_counts_where_a_rule_was_added(fast, saved, tmp_path):
    fast.policy.take_step(2)
    counts = fast.policy.path.counts(2)
    fast.add_rule(always_first(), 0, SITE)
    fast.policy.close([len(counts)])
    policy = fast.policy
    if saved:
        save_policy(policy, tmp_path)
        policy = load_policy(tmp_path / JSON, tmp_path / TENSORS, policy.without_exits())
    each = 1 - DELTA / (len(counts) + 1)
    expected = [upper_bound(wrong, fired, each) for fired, wrong in counts]
    assert promised_error_rates(policy) == pytest.approx([*expected, 0.07])
    assert (policy.step, policy.is_certified, policy.closed) == (None, False, {len(counts)})


# The evidence


def test_evidence_begins_anew_with_another_certificate(fast):
    monitor = Monitor(fast.policy, 0.5)
    monitor.record_checks(np.zeros(50, int), np.zeros(50, bool), 3)
    assert monitor.state()["rows"][0] == 50
    before = [process.level for process in monitor.processes]
    fast.policy.path.policies.wrong[:] = 0
    fast.policy.certificate = replace(fast.policy.certificate, rows=2000)
    assert monitor.state()["rows"] == [0] * len(before)
    monitor.record_checks(np.zeros(7, int), np.zeros(7, bool), 3)
    assert [process.level for process in monitor.processes] == promised_error_rates(fast.policy)
    assert monitor.processes[0].rows == 7
    assert monitor.processes[0].level < before[0]
