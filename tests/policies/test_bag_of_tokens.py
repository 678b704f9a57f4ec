"""Bags of tokens as policies hold them, and on disk."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from moco_rt.architectures.sites import all_sites, exit_sites
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.bag_of_tokens import AnyOffRamp, BagOfTokens
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.policies.policy import CertifiedPath, Exit, Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy

HIDDEN, CLASSES, BUCKETS = 8, 3, 64
RNG = np.random.default_rng(0)


def bag(**changes):
    numbers = {
        "table": RNG.normal(size=(BUCKETS, CLASSES)),
        "bias": RNG.normal(size=CLASSES),
        "thresholds": [0.9, math.inf, -math.inf],
        "bounds": [0.01, 0.2, 0.3],
        "temperature": 1 / 3,
    }
    return BagOfTokens(**{**numbers, **changes})


def policy(of_texts=True):
    return Policy(exit_sites(3, of_texts=of_texts), CLASSES, HIDDEN)


def policy_with(some):
    made = policy()
    made.add(Exit.of(some, "tokens"))
    return made


def round_trip(saved, directory, expected=None):
    save_policy(saved, directory)
    return load_policy(directory / JSON, directory / TENSORS, expected or policy())


# In memory


def test_a_bag_holds_float32_arrays_and_knows_its_classes_and_site():
    made = bag()
    arrays = (made.table, made.bias, made.thresholds, made.bounds)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert (made.num_classes, made.site, made.feature) == (CLASSES, "tokens", "ids")
    assert isinstance(made, AnyOffRamp)


def test_by_a_closed_bag_nobody_leaves():
    made = BagOfTokens.closed(np.zeros((4, 2)), np.zeros(2), 2.0)
    assert np.isposinf(made.thresholds).all()
    assert made.temperature == 2.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"table": np.zeros((3, 3))},
            "table must have shape (buckets, classes), a power of two and at least 2 (got (3",
        ),
        (
            {"table": np.zeros((0, 3))},
            "table must have shape (buckets, classes), a power of two and at least 2 (got (0",
        ),
        (
            {"table": np.zeros((4, 1))},
            "table must have shape (buckets, classes), a power of two and at least 2 (got (4",
        ),
        ({"table": np.zeros(4)}, "table must have shape (buckets, classes), a power of two and at least 2 (got (4,))"),
        ({"temperature": 0.0}, "temperature must be above 0 (got 0.0)"),
        ({"temperature": math.inf}, "temperature must be above 0 (got inf)"),
        ({"log_odds": [[1.0, 0.0]]}, "log_odds must be a slope and a shift for each of "),
        ({"log_odds": [[-1.0, 0.0]] * CLASSES}, "log_odds must be finite, slopes not negative (got "),
        ({"bias": np.zeros(2)}, "bias must have one value for each of 3 classes (got (2,))"),
        ({"thresholds": np.zeros(4)}, "thresholds must have one value for each of 3 classes (got (4,))"),
        ({"bounds": [[0.1] * 3]}, "bounds must have one value for each of 3 classes (got (1, 3))"),
        ({"bias": [0.0, math.nan, 0.0]}, "table and bias must be finite"),
        ({"table": np.full((4, 3), np.inf)}, "table and bias must be finite"),
        ({"thresholds": [0.0, math.nan, 0.0]}, "thresholds must be numbers, bounds inside (0, 1)"),
        ({"bounds": [0.0, 0.1, 0.1]}, "thresholds must be numbers, bounds inside (0, 1)"),
    ],
)
def test_what_no_bag_can_be_is_refused(one_line_error, changes, words):
    with one_line_error(ValueError, f"BagOfTokens: {words}"):
        bag(**changes)


def test_a_policy_of_images_takes_no_bag(one_line_error):
    with one_line_error(ValueError, "encoder.2.output (got 'tokens')"):
        policy(of_texts=False).add(Exit.of(bag(), "tokens"))


@pytest.mark.parametrize("of_texts", [True, False])
@pytest.mark.parametrize("site", all_sites(3))
def test_the_last_layers_site_is_the_last_whether_tokens_is_there_or_not(one_line_error, of_texts, site):
    made = policy(of_texts)
    exit = Exit(site, 0, LinearCondition(np.ones(HIDDEN), 0.0, 0.0, 0.01), "cls", 0.01)
    if site != "encoder.2.output":
        made.add(exit)
        return
    with one_line_error(ValueError, "site must have a layer left to save (got 'encoder.2.output', the last)"):
        made.add(exit)


# On disk


def test_a_bag_comes_back_bit_by_bit(tmp_path):
    saved = bag(log_odds=[[0.5, 1 / 3]] * CLASSES)
    (exit,) = round_trip(policy_with(saved), tmp_path).exits
    found = exit.condition
    assert isinstance(found, BagOfTokens)
    for name in ("table", "bias", "thresholds", "bounds", "log_odds"):
        assert getattr(found, name).tobytes() == getattr(saved, name).tobytes()
    assert found.temperature == saved.temperature
    assert (exit.site, exit.predicted_class, exit.bound) == ("tokens", None, saved.bounds.max())


def test_the_file_says_which_kind_it_is(tmp_path):
    save_policy(policy_with(bag()), tmp_path)
    (exit,) = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))["exits"]
    assert exit == {"kind": "bag_of_tokens", "site": "tokens", "temperature": 1 / 3, "table": "exits.0.table"}


def with_path(step):
    """A policy on a path of four steps: nothing leaves, two off-ramps, one of them a bag, and the bag alone."""
    closed = BagOfTokens.closed(RNG.normal(size=(BUCKETS, CLASSES)), np.zeros(CLASSES), 1.5)
    layers = ((np.ones((CLASSES, HIDDEN)), np.zeros(CLASSES)),)
    ramp = OffRamp.closed(layers, feature="cls", site="encoder.0.attention")
    thresholds = np.full((4, 2, CLASSES), np.inf, np.float32)
    thresholds[1, 1] = thresholds[2] = thresholds[3, 0] = 0.9
    made = policy()
    path = PolicyPath(("as given",), np.zeros(4, int), thresholds, np.arange(4), np.ones(4), 700, 3, step)
    made.path = CertifiedPath([closed, ramp], path)
    made.take_step(step)
    return made


@pytest.mark.parametrize("step", range(4))
def test_exit_and_path_share_one_table_on_disk_and_after_it(tmp_path, step):
    saved = with_path(step)
    found = round_trip(saved, tmp_path / "first")
    tables = [name for name in load_file(tmp_path / "first" / TENSORS) if name.endswith("table")]
    assert tables == ["exits.0.table" if step > 1 else "path.exits.0.table"]
    closed, ramp = found.path.off_ramps[0], saved.path.off_ramps[0]
    assert closed.table.tobytes() == ramp.table.tobytes()
    assert np.isposinf(closed.thresholds).all()
    save_policy(found, tmp_path / "second")
    for file in (JSON, TENSORS):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_steps_of_a_loaded_path_bring_a_bag_and_take_it_away(tmp_path):
    found = round_trip(with_path(3), tmp_path)
    for step, sites in enumerate([[], ["encoder.0.attention"], ["tokens", "encoder.0.attention"], ["tokens"]]):
        found.take_step(step)
        assert [exit.site for exit in found.exits] == sites
    bag = found.exits[0].condition
    assert bag.table is found.path.off_ramps[0].table
    np.testing.assert_array_equal(bag.thresholds, np.full(CLASSES, 0.9, np.float32))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_that_are_older_than_the_site_load_with_their_numbers(tmp_path, version):
    """They name all sites but `tokens`, of models that take texts too."""
    saved = policy(of_texts=False)
    saved.add(Exit("encoder.1.attention", 2, LinearCondition(np.ones(HIDDEN), 0.0, 0.0, 0.01), "cls", 0.01))
    save_policy(saved, tmp_path)
    about = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    (tmp_path / JSON).write_text(json.dumps({**about, "version": version}), encoding="utf-8")
    found = load_policy(tmp_path / JSON, tmp_path / TENSORS, policy())
    assert found.sites == (*all_sites(3), "tokens")
    assert found.sites.index(found.exits[0].site) == saved.sites.index(saved.exits[0].site)


def test_a_policy_of_texts_is_refused_by_a_model_of_images(tmp_path, one_line_error):
    words = f"must be of a model with sites {all_sites(3)} (got {(*all_sites(3), 'tokens')})"
    with one_line_error(ValueError, words):
        round_trip(policy_with(bag()), tmp_path, policy(of_texts=False))


def test_a_file_without_its_table_is_refused(tmp_path, one_line_error):
    save_policy(policy_with(bag()), tmp_path)
    text = (tmp_path / JSON).read_text(encoding="utf-8").replace("exits.0.table", "exits.1.table")
    (tmp_path / JSON).write_text(text, encoding="utf-8")
    with one_line_error(ValueError, "must be whole (exits.1.table is missing)"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, policy())
