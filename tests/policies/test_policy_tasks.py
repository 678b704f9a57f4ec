"""Policies about labels that may hold at once, and about numbers: which exits they take, and their files."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moco_rt import BagOfTokens, LinearCondition, MultiLabel, Regression
from moco_rt.architectures import SINGLE_LABEL, Flags
from moco_rt.architectures.sites import all_sites
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.monitor import Monitor, watch
from moco_rt.policies.policy import CertifiedPath, Exit, Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy

HIDDEN, CLASSES, SITE = 8, 3, "encoder.0.attention"
TASKS = [
    MultiLabel(),
    MultiLabel({"a": 0.1, "b": 0.5, "c": 0.9}),
    Regression(0.25),
    Flags({"a": None, "b": 0.83, "c": None}),
]
tasks = pytest.mark.parametrize("task", TASKS, ids=["one threshold", "thresholds", "numbers", "flags"])


def make_off_ramp(task, **options):
    rng = np.random.default_rng(0)
    outputs = task.outputs(CLASSES)
    layers = ((rng.normal(size=(outputs, HIDDEN)), rng.normal(size=outputs)),)
    return OffRamp.closed(
        layers, feature="cls", site=SITE, score=task.scores[0], **{"levels": task.levels(CLASSES), **options}
    )


def make_policy(task):
    policy = Policy(all_sites(3), CLASSES, HIDDEN, task)
    thresholds = np.stack([np.full((1, task.groups(CLASSES)), level, np.float32) for level in (np.inf, 0.5)])
    path = PolicyPath(("as given",), np.zeros(2, int), thresholds, np.arange(2), np.ones(2), 300, 1, 1)
    policy.path = CertifiedPath([make_off_ramp(task)], path)
    policy.take_step(1)
    return policy


@tasks
def test_off_ramps_have_one_threshold_and_one_bound(task):
    made = make_off_ramp(task)
    assert (made.num_classes, made.size, made.levels) == (CLASSES, HIDDEN, task.levels(CLASSES))
    assert (made.thresholds.tolist(), made.bounds.shape) == ([np.inf], (1,))


@tasks
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"thresholds": [0.5] * 3}, "thresholds and bounds must have one value of "),
        ({"bounds": [0.5] * 3}, "thresholds and bounds must have one value of "),
        ({"patience": 2}, "patience must be 1 of "),
        ({"levels": [0.0]}, "levels must be one number for each label of sides or odds (got (0.0,))"),
        (
            {"levels": [0.0, 1.0, np.nan]},
            "levels must be one number for each label of sides or odds (got (0.0, 1.0, nan",
        ),
        ({"thresholds": [np.nan]}, "thresholds must be numbers, bounds inside (0, 1)"),
    ],
)
def test_what_no_off_ramp_can_be_is_refused(task, changes, words, one_line_error):
    with one_line_error(ValueError, f"OffRamp: {words}"):
        replace(make_off_ramp(task), **changes)


def test_levels_of_sides_are_finite(one_line_error):
    with one_line_error(ValueError, "OffRamp: levels must be finite of sides (got (0.0, 1.0, inf))"):
        make_off_ramp(TASKS[0], levels=[0.0, 1.0, np.inf])


def test_deviations_come_in_pairs_and_without_a_temperature(one_line_error):
    with one_line_error(ValueError, "OffRamp: outputs must be even, and temperature 1, of deviation (got 6 and 2.0)"):
        make_off_ramp(TASKS[2], temperature=2.0)
    with one_line_error(ValueError, "OffRamp: outputs must be even, and temperature 1, of deviation (got 3 and 1.0)"):
        OffRamp.closed(((np.ones((3, 2)), np.ones(3)),), feature="cls", site=SITE, score="deviation")


def make_bag(task, **options):
    rng = np.random.default_rng(1)
    outputs = task.outputs(CLASSES)
    levels = {"levels": task.levels(CLASSES), **options}
    return BagOfTokens.closed(rng.normal(size=(16, outputs)), rng.normal(size=outputs), 1.0, task.scores[0], **levels)


@tasks
def test_bags_have_one_threshold_and_one_bound(task, one_line_error):
    made = make_bag(task)
    assert (made.num_classes, made.levels) == (CLASSES, task.levels(CLASSES))
    assert (made.thresholds.tolist(), made.bounds.shape) == ([np.inf], (1,))
    with one_line_error(
        ValueError, "BagOfTokens: levels must be one number for each label of sides or odds (got (1.0,))"
    ):
        make_bag(task, levels=[1.0])
    with one_line_error(ValueError, f"BagOfTokens: thresholds and bounds must have one value of {task.scores[0]} (got"):
        replace(made, thresholds=[0.5] * 3)
    with one_line_error(ValueError, "BagOfTokens: score must be one of max_prob, entropy, sides, odds, deviation (got"):
        replace(made, score="gap")


@tasks
def test_a_bag_comes_back_bit_by_bit(tmp_path, task):
    policy = Policy(all_sites(3), CLASSES, HIDDEN, task)
    policy.sites = (*policy.sites, "tokens") if "tokens" not in policy.sites else policy.sites
    policy.add(Exit.of(make_bag(task), "tokens"))
    save_policy(policy, tmp_path)
    found = load_policy(tmp_path / JSON, tmp_path / TENSORS, policy.without_exits())
    own, other = found.exits[0].condition, policy.exits[0].condition
    for name in ("table", "bias", "thresholds", "bounds"):
        assert getattr(own, name).tobytes() == getattr(other, name).tobytes()
    assert (own.score, own.levels, own.temperature) == (other.score, other.levels, other.temperature)


@tasks
def test_a_policy_takes_off_ramps_of_its_task_alone(task, one_line_error):
    policy = Policy(all_sites(3), CLASSES, HIDDEN, task)
    policy.add(Exit.of(make_off_ramp(task), SITE))
    score = task.scores[0]
    other = make_off_ramp(TASKS[0] if task is TASKS[2] else TASKS[2])
    for ramp in (other, make_off_ramp(SINGLE_LABEL)):
        with one_line_error(ValueError, f"off-ramp must score by {score} for {task} (got {ramp.score})"):
            policy.add(Exit.of(ramp, SITE))
    with one_line_error(ValueError, f"exit must be an off-ramp for {task} (got LinearCondition)"):
        policy.add(Exit(SITE, 0, LinearCondition(np.ones(HIDDEN), 0.0, 0.0, 0.1), "cls", 0.1))
    assert len(policy.exits) == 1
    with one_line_error(
        ValueError, f"off-ramp must score by max_prob or entropy for SingleLabel(threshold=None) (got {score})"
    ):
        Policy(all_sites(3), CLASSES, HIDDEN).add(Exit.of(make_off_ramp(task), SITE))
    assert policy.without_exits().task == task


@tasks
def test_it_comes_back_bit_by_bit(tmp_path, task):
    policy = make_policy(task)
    save_policy(policy, tmp_path)
    found = load_policy(tmp_path / JSON, tmp_path / TENSORS, Policy(all_sites(3), CLASSES, HIDDEN))
    assert (found.task, found.step, len(found.exits)) == (task, 1, 1)
    for own, other in zip((*found.exits, *found.path.exits(1)), policy.exits * 2, strict=True):
        assert own.condition.thresholds.tobytes() == np.float32([0.5]).tobytes()
        assert own.condition.layers[0][0].tobytes() == other.condition.layers[0][0].tobytes()
        for name in ("score", "levels", "temperature", "feature", "site", "num_classes"):
            assert getattr(own.condition, name) == getattr(other.condition, name)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"name": "ranking", "keep_top": 3}, "must have task 'single_label' or 'flags' or 'multi_label' or"),
        ({"threshold": 0.5}, "must be whole (name is missing)"),
        ({"name": "regression"}, "must be whole (got "),
        ({"name": "regression", "tolerance": 1.0, "norm": 2}, "must be whole (got "),
        ({"name": "regression", "tolerance": -1.0}, "tolerance must be a number above 0"),
        (5, "must have task 'single_label' or"),
    ],
)
def test_an_unknown_task_is_refused(tmp_path, stored, words, one_line_error):
    save_policy(make_policy(TASKS[2]), tmp_path)
    text = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    (tmp_path / JSON).write_text(json.dumps({**text, "task": stored}), encoding="utf-8")
    with one_line_error(ValueError, words):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, Policy(all_sites(3), CLASSES, HIDDEN))


@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        (SINGLE_LABEL, [0, 1]),
        (MultiLabel(), [0, 2]),
        (Regression(0.5), [0, 1, 2]),
        (Flags({"a": 0.5, "b": None, "c": None}), [0, 1]),
    ],
    ids=["single-label", "multi-label", "numbers", "flags"],
)
def test_a_monitor_counts_by_the_task(task, wrong):
    full = torch.tensor([[1.0, -1.0, 0.5], [2.0, 1.9, -1.0], [3.0, 1.0, 0.2], [1.0, 0.75, -2.0]])
    fast = torch.tensor([[-1.0, 1.0, 0.5], [1.0, 1.9, -1.0], [3.0, 1.0, -0.4], [0.9, 0.25, -2.25]])
    monitor = Monitor(make_policy(task), rate=1.0, delta=1e-9)
    results = SimpleNamespace(logits=fast, exit_rule=torch.zeros(4, dtype=torch.int64))
    watch(monitor, results, lambda rows: SimpleNamespace(logits=full[rows]), 1)
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (4, len(wrong))
