"""A monitor of a policy with a certified path: it steps back along it, and what several processes have seen adds up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from moco_rt.architectures.sites import all_sites
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.monitor import Monitor
from moco_rt.policies.policy import CertifiedPath, Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy

SIZE, CLASSES = 8, 2
SITES = ("encoder.0.attention", "encoder.1.attention")
#: Thresholds by policy of (exit, class); what calibration rows differ under each; the last was chosen.
LEVELS = (np.inf, 0.9, 0.8, 0.7, 0.6)
DIFFERING = (0, 2, 5, 8, 10)


def ramp(site):
    layer = (np.ones((CLASSES, SIZE), np.float32), np.zeros(CLASSES, np.float32))
    return OffRamp((layer,), np.full(CLASSES, np.inf), np.full(CLASSES, 0.02), feature="cls", site=site)


def make_policy(variant=(0, 0, 0, 0, 0)):
    """A policy of two off-ramps, of which the second is used from the third policy of the path on."""
    policy = Policy(all_sites(2), CLASSES, SIZE)
    thresholds = np.full((len(LEVELS), len(SITES), CLASSES), np.inf, np.float32)
    thresholds[:, 0] = np.array(LEVELS)[:, None]
    thresholds[2:, 1] = 0.95
    last = len(LEVELS) - 1
    path = PolicyPath(
        ("as given", "int8"),
        np.array(variant),
        thresholds,
        np.array(DIFFERING),
        np.arange(5.0, 0, -1),
        1000,
        last,
        last,
    )
    policy.path = CertifiedPath([ramp(site) for site in SITES], path)
    policy.take_step(last)
    return policy


def err(monitor, rows=2000, exit=0, step=None):
    """Record rows of one exit that are wrong throughout."""
    monitor.record_checks(np.full(rows, exit), np.ones(rows, bool), monitor.step if step is None else step)


def thresholds_of(policy):
    return [(exit.site, float(exit.condition.thresholds[0])) for exit in policy.exits]


# Steps by hand


def test_a_step_puts_the_exits_of_that_policy_in_place():
    policy = make_policy()
    assert policy.step == 4
    assert thresholds_of(policy) == [(SITES[0], pytest.approx(0.6)), (SITES[1], pytest.approx(0.95))]
    policy.take_step(1)
    assert (policy.step, thresholds_of(policy)) == (1, [(SITES[0], pytest.approx(0.9))])
    policy.take_step(0)
    assert (policy.step, policy.exits) == (0, ())


@pytest.mark.parametrize("step", [-1, 5, 2.5])
def test_a_step_that_is_not_on_the_path_is_refused_and_changes_nothing(step, one_line_error):
    policy = make_policy()
    before = policy.state
    with one_line_error(ValueError, "step must be one of 0, 1, 2, 3, 4"):
        policy.take_step(step)
    assert policy.state is before


def test_policies_of_other_variants_are_no_steps(one_line_error):
    policy = make_policy(variant=(0, 1, 0, 1, 1))
    with one_line_error(ValueError, "step must be one of 1, 3, 4"):
        policy.take_step(2)
    assert policy.safer_step() == 1


def test_without_a_path_there_are_no_steps(one_line_error):
    policy = Policy(all_sites(2), CLASSES, SIZE)
    with one_line_error(ValueError, "step must be of a certified path"):
        policy.take_step(0)
    assert (policy.step, policy.safer_step()) == (None, None)


def test_an_exit_added_by_hand_leaves_the_path():
    policy = make_policy()
    policy.take_step(1)
    policy.add(make_policy().exits[1])
    assert (policy.step, policy.safer_step()) == (None, None)


# Steps back


@pytest.mark.parametrize(("step", "expected"), [(4, 2), (3, 1), (2, 1), (1, 0), (0, None)])
def test_the_safer_step_changed_at_most_half_as_many_answers(step, expected):
    policy = make_policy()
    policy.take_step(step)
    assert policy.safer_step() == expected


def test_where_calibration_rows_show_no_step_that_is_safer_it_is_the_safest_of_all():
    policy = make_policy()
    policy.path = replace(policy.path, policies=replace(policy.path.policies, disagreements=np.array([0, 0, 0, 0, 1])))
    assert policy.safer_step() == 3
    policy.take_step(3)
    assert policy.safer_step() == 0


def test_an_alarm_steps_back_says_so_and_begins_anew(caplog):
    policy, alarms = make_policy(), []
    monitor = Monitor(policy, 0.5, alarms.append)
    err(monitor)
    assert [(alarm.exit, alarm.site, alarm.wrong, alarm.step) for alarm in alarms] == [(0, SITES[0], 2000, 2)]
    assert (policy.step, monitor.step, policy.closed) == (2, 2, frozenset())
    assert [process.rows for process in monitor.processes] == [0, 0]
    assert "back to step 2" in caplog.text


def test_alarm_after_alarm_leads_to_no_exits_at_all():
    policy = make_policy()
    monitor = Monitor(policy, 0.5)
    steps = []
    while policy.exits:
        err(monitor)
        steps.append(policy.step)
    assert steps == [2, 1, 0]


def test_rows_of_a_policy_that_is_not_in_use_any_more_are_not_counted():
    policy = make_policy()
    monitor = Monitor(policy, 0.5)
    policy.take_step(3)
    err(monitor, step=4)
    assert (policy.step, monitor.step) == (3, 3)
    assert [process.rows for process in monitor.processes] == [0, 0]


# Several processes


def test_states_of_processes_add_up():
    states = []
    for wrong in (1, 0, 2):
        monitor = Monitor(make_policy(), 0.5)
        monitor.record_checks(np.zeros(100, int), np.arange(100) < wrong, monitor.step)
        states.append(json.loads(json.dumps(monitor.state())))
    watcher = Monitor(make_policy(), 0.5)
    for state in states:
        watcher.merge(state)
    assert [(process.rows, process.wrong) for process in watcher.processes] == [(300, 3), (0, 0)]


def test_evidence_that_no_process_has_alone_steps_back_together():
    policy = make_policy()
    watcher = Monitor(policy, 0.5)
    for _ in range(20):
        process = Monitor(make_policy(), 0.5)
        process.record_checks(np.zeros(10, int), np.arange(10) < 1, process.step)
        assert process.step == 4
        watcher.merge(process.state())
    assert policy.step < 4


def test_a_process_that_has_stepped_back_is_followed_and_one_that_has_not_is_left_out():
    ahead, behind = Monitor(make_policy(), 0.5), Monitor(make_policy(), 0.5)
    err(ahead)
    ahead.record_checks(np.zeros(50, int), np.zeros(50, bool), ahead.step)
    behind.record_checks(np.zeros(70, int), np.zeros(70, bool), behind.step)
    behind.merge(ahead.state())
    assert (behind.step, [process.rows for process in behind.processes]) == (2, [50, 0])
    behind.merge(Monitor(make_policy(), 0.5).state())
    assert (behind.step, [process.rows for process in behind.processes]) == (2, [50, 0])


def test_states_are_judged_when_all_are_added():
    """Of many processes one has more errors than it should, which says nothing: it is not judged by itself."""
    unlucky, others = Monitor(make_policy(), 0.5, delta=1e-9), []
    unlucky.record_checks(np.zeros(100, int), np.arange(100) < 12, 4)
    for _ in range(9):
        others.append(Monitor(make_policy(), 0.5))
        others[-1].record_checks(np.zeros(100, int), np.arange(100) < 1, 4)
    alone, together = Monitor(make_policy(), 0.5), Monitor(make_policy(), 0.5)
    alone.merge(unlucky.state())
    assert alone.step < 4
    together.merge(*(process.state() for process in (unlucky, *others)))
    assert (together.step, together.processes[0].rows, together.processes[0].wrong) == (4, 1000, 21)


@pytest.mark.parametrize("step", [4, 1])
def test_what_was_seen_under_another_certificate_is_left_out(step):
    before, now = make_policy(), make_policy()
    before.take_step(step)
    seen, watcher = Monitor(before, 0.5), Monitor(now, 0.5)
    seen.record_checks(np.zeros(100, int), np.zeros(100, bool), step)
    now.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    watcher.merge(seen.state())
    watcher.restore(seen.state())
    assert (now.step, watcher.step, [process.rows for process in watcher.processes]) == (4, 4, [0, 0])


def test_a_process_that_has_no_exits_left_is_followed():
    watcher = Monitor(make_policy(), 0.5)
    watcher.merge({"step": 0, "rows": [], "wrong": []})
    assert (watcher.step, watcher.processes) == (0, [])


def test_a_state_of_more_exits_is_refused(one_line_error):
    state = Monitor(make_policy(), 0.5).state() | {"rows": [1, 2, 3], "wrong": [0, 0, 0]}
    with one_line_error(ValueError, "state must be of 2 exits at most"):
        Monitor(make_policy(), 0.5).merge(state)


# On disk


def test_the_step_in_use_is_saved_with_all_others(tmp_path):
    policy = make_policy()
    policy.take_step(2)
    save_policy(policy, tmp_path)
    again = load_policy(tmp_path / JSON, tmp_path / TENSORS, Policy(all_sites(2), CLASSES, SIZE))
    assert (again.step, thresholds_of(again)) == (2, thresholds_of(policy))
    again.take_step(4)
    assert thresholds_of(again) == thresholds_of(make_policy())


def test_a_monitor_goes_on_only_from_a_state_of_its_own_step():
    monitor = Monitor(make_policy(), 0.5)
    monitor.record_checks(np.zeros(100, int), np.zeros(100, bool), monitor.step)
    stepped = make_policy()
    stepped.take_step(1)
    later = Monitor(stepped, 0.5)
    later.restore(monitor.state())
    assert [process.rows for process in later.processes] == [0]


def test_the_certificate_is_about_the_steps_up_to_the_last_that_was_certified():
    policy = make_policy()
    policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    for step in policy.path.possible_steps():
        policy.take_step(step)
        assert policy.is_certified == (step <= policy.path.policies.certified)
    policy.take_step(0)
    assert policy.is_certified
    policy.certificate = None
    assert not policy.is_certified


@pytest.mark.parametrize("change", ["add", "close"])
def test_exits_changed_by_hand_are_not_those_that_were_certified(change):
    policy = make_policy()
    policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    policy.take_step(1)
    if change == "add":
        policy.add(policy.exits[0])
    else:
        policy.close([0])
    assert not policy.is_certified
