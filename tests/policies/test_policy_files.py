"""What a policy is after it was saved and loaded, and which files are refused."""

from __future__ import annotations

import copy
import json
import math
import shutil
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures.sites import all_sites
from moco_rt.certification.certificate import Certificate, ClassPromise, ExitCount
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies import policy_files
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.policies.fingerprints import fingerprint
from moco_rt.policies.policy import CertifiedPath, Exit, Policy
from moco_rt.policies.policy_files import JSON, TENSORS, VERSION, load_policy, save_policy

HIDDEN, CLASSES = 8, 3
ATTENTION, OUTPUT = "encoder.0.attention", "encoder.1.output"
RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def make_off_ramp(hidden=0, **options):
    """Of one layer, or of two."""
    size = HIDDEN * (2 if options.get("feature", "cls+mean") == "cls+mean" else 1)
    sizes = [size, *([hidden] if hidden else []), CLASSES]
    layers = tuple((random(outputs, inputs), random(outputs)) for inputs, outputs in pairwise(sizes))
    return OffRamp(layers, random(CLASSES), RNG.uniform(0.001, 0.1, CLASSES).astype(np.float32), **options)


def make_linear(feature="cls", size=HIDDEN, **options):
    return LinearCondition(random(size), 0.1 + 0.2, -1 / 3, 1e-3 / 7, feature, **options)


def empty():
    return Policy(all_sites(3), CLASSES, HIDDEN)


def policy_of(*exits):
    policy = empty()
    for exit in exits:
        policy.add(exit)
    return policy


def round_trip(policy, directory, expected=None):
    save_policy(policy, directory)
    return load_policy(directory / JSON, directory / TENSORS, expected or empty())


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def edit(file, **changes):
    """Change some entries of a JSON file."""
    text = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**text, **changes}), encoding="utf-8")


# There and back again


@pytest.mark.parametrize("hidden", [0, 5], ids=["one layer", "two layers"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature": "cls", "score": "entropy", "temperature": 1 / 3},
        {"feature": "mean", "patience": 3},
        {"score": "max_prob", "temperature": 1.7, "site": ATTENTION},
        {"log_odds": [[0.5, 1 / 3], [0.0, -2.0], [1.0, 0.0]]},
    ],
    ids=["default", "entropy", "patience", "site", "log-odds"],
)
def test_off_ramps_come_back_bit_by_bit(tmp_path, hidden, options):
    saved = make_off_ramp(hidden, **options)
    (exit,) = round_trip(policy_of(Exit.of(saved, ATTENTION)), tmp_path).exits
    found = exit.condition
    assert isinstance(found, OffRamp)
    assert len(found.layers) == (2 if hidden else 1)
    for layer, expected in zip(found.layers, saved.layers, strict=True):
        assert_same_bits(layer[0], expected[0])
        assert_same_bits(layer[1], expected[1])
    assert_same_bits(found.thresholds, saved.thresholds)
    assert_same_bits(found.bounds, saved.bounds)
    for name in ("score", "temperature", "feature", "patience"):
        assert getattr(found, name) == getattr(saved, name)
    if saved.log_odds is None:
        assert found.log_odds is None
    else:
        assert_same_bits(found.log_odds, saved.log_odds)
    assert (exit.site, exit.predicted_class, exit.feature) == (ATTENTION, None, saved.feature)
    assert exit.bound == saved.bounds.max()
    assert found.site == ATTENTION


def test_infinite_thresholds_come_back(tmp_path):
    thresholds = np.array([math.inf, -math.inf, 0.5], np.float32)
    saved = OffRamp(((random(CLASSES, HIDDEN), random(CLASSES)),), thresholds, np.full(CLASSES, 0.01), feature="cls")
    (exit,) = round_trip(policy_of(Exit.of(saved, ATTENTION)), tmp_path).exits
    assert_same_bits(exit.condition.thresholds, thresholds)


def test_weights_that_are_views_come_back(tmp_path):
    weight, bias = random(HIDDEN, 2 * CLASSES).T[::2], random(2 * CLASSES)[::2]
    saved = OffRamp(((weight, bias),), random(CLASSES), np.full(CLASSES, 0.01), feature="cls")
    condition = LinearCondition(random(2 * HIDDEN)[::2], 0.0, 0.0, 0.01)
    policy = policy_of(Exit.of(saved, ATTENTION), Exit(ATTENTION, 0, condition, "cls", 0.01))
    off_ramp, linear = (exit.condition for exit in round_trip(policy, tmp_path).exits)
    np.testing.assert_array_equal(off_ramp.layers[0][0], weight)
    np.testing.assert_array_equal(off_ramp.layers[0][1], bias)
    np.testing.assert_array_equal(linear.weight, condition.weight)


@pytest.mark.parametrize(("feature", "size"), [("cls", HIDDEN), ("mean", HIDDEN), ("flat", 5 * HIDDEN)])
@pytest.mark.parametrize("fitted_at", [None, OUTPUT])
def test_linear_conditions_come_back_bit_by_bit(tmp_path, feature, size, fitted_at):
    saved = make_linear(feature, size, site=fitted_at)
    # The bound of the exit may be another than the condition's.
    (exit,) = round_trip(policy_of(Exit(OUTPUT, 2, saved, feature, 0.07)), tmp_path).exits
    found = exit.condition
    assert isinstance(found, LinearCondition)
    assert_same_bits(found.weight, saved.weight)
    assert (found.bias, found.threshold, found.bound) == (saved.bias, saved.threshold, saved.bound)
    assert (exit.site, exit.predicted_class, exit.feature, exit.bound) == (OUTPUT, 2, feature, 0.07)
    assert (found.feature, found.site) == (feature, OUTPUT)


def many_exits():
    """So many that their names in the file do not sort as their places do."""
    exits = []
    for place in range(12):
        if place % 3 == 0:
            exits.append(Exit(OUTPUT, place % CLASSES, make_linear(), "cls", 0.01))
        else:
            exits.append(Exit.of(make_off_ramp(hidden=place % 3 - 1 and 4), (ATTENTION, OUTPUT)[place % 2]))
    return exits


def test_many_exits_come_back_in_their_order(tmp_path):
    saved = policy_of(*many_exits())
    found = round_trip(saved, tmp_path)
    assert len(found.exits) == 12
    for exit, expected in zip(found.exits, saved.exits, strict=True):
        assert (exit.site, type(exit.condition)) == (expected.site, type(expected.condition))
        if isinstance(exit.condition, LinearCondition):
            assert_same_bits(exit.condition.weight, expected.condition.weight)
        else:
            assert len(exit.condition.layers) == len(expected.condition.layers)
            assert_same_bits(exit.condition.layers[0][0], expected.condition.layers[0][0])


COUNTS = (ExitCount(ATTENTION, 1, 900, 2, 0.7e-2), ExitCount(OUTPUT, 0, 5, 0, 0.4))
CLASS_PROMISES = (ClassPromise(0, 0.01, 200, 1), ClassPromise(1, None, 80, 3), ClassPromise(2, 0.1 / 3, 20, 0))
CERTIFICATE = Certificate(0.01, 1 - 0.95, 5000, 17, 0.1 + 0.2, 1e-3 / 3, COUNTS)


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        CERTIFICATE,
        Certificate(0.02, 0.1, 300, 0, 1.0, 1.0, (), accuracy_full=0.91, accuracy=0.9),
        Certificate(0.02, 0.1, 300, 4, 1.0, 0.5, COUNTS, rows_in_all=900, disagreement_in_all=0.1 / 3),
        Certificate(0.02, 0.1, 300, 4, 1.0, 0.5, COUNTS, variant="int8+bfloat16"),
        Certificate(None, 0.1, 300, 4, 1.0, 0.5, COUNTS, promise="per class", classes=CLASS_PROMISES),
        Certificate(None, 0.1, 300, 4, 1.0, 0.5, COUNTS, promise="accuracy", max_drop=0.1 / 7, drop_bound=0.0103),
    ],
    ids=["none", "exits", "accuracy", "copies", "variant", "promise per class", "promise of accuracy"],
)
def test_a_certificate_comes_back(tmp_path, certificate):
    policy = policy_of(*many_exits()[:1])
    policy.certificate = certificate
    assert round_trip(policy, tmp_path).certificate == certificate


def test_closed_exits_stay_closed(tmp_path):
    policy = policy_of(*many_exits())
    policy.close({11, 2})
    found = round_trip(policy, tmp_path)
    assert found.closed == {2, 11}
    assert 2 not in dict(found.at(found.exits[2].site))
    assert found.made_for == {}


def test_what_a_policy_was_made_for_comes_back(tmp_path):
    policy = empty()
    policy.made_for = {"weights": "ab", "dtype": "float32", "tokenizer": "cd", "max_length": 128}
    assert round_trip(policy, tmp_path).made_for == policy.made_for


def test_a_policy_without_exits_comes_back(tmp_path):
    found = round_trip(empty(), tmp_path)
    assert (found.exits, found.closed, found.certificate) == ((), set(), None)
    assert (found.sites, found.num_classes, found.hidden_size) == (all_sites(3), CLASSES, HIDDEN)


def test_a_policy_saved_again_is_the_same_file(tmp_path):
    policy = policy_of(*many_exits())
    policy.certificate = CERTIFICATE
    found = round_trip(policy, tmp_path / "first")
    save_policy(found, tmp_path / "second")
    for file in (JSON, TENSORS):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_policy_is_written_over_an_older_one(tmp_path):
    save_policy(policy_of(*many_exits()), tmp_path)
    assert len(round_trip(policy_of(*many_exits()[:2]), tmp_path).exits) == 2


def test_a_missing_directory_is_made(tmp_path):
    assert round_trip(empty(), tmp_path / "of" / "some" / "run").exits == ()


def test_the_file_can_be_read_by_a_person_and_holds_no_code(tmp_path):
    policy = policy_of(*many_exits()[:2])
    save_policy(policy, tmp_path)
    text = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    assert (text["format"], text["version"]) == ("moco_rt policy", VERSION)
    assert [exit["kind"] for exit in text["exits"]] == ["linear", "off_ramp"]
    assert all(tensor.dtype == np.float32 for tensor in load_file(tmp_path / TENSORS).values())
    assert {file.name for file in tmp_path.iterdir()} == {JSON, TENSORS}
    assert not any(file.stat().st_mode & stat.S_IXUSR for file in tmp_path.iterdir())


# Version 3


def certified_path():
    """A path over two forms of a model, and two off-ramps of which the second is not in the policy that was chosen."""
    thresholds = np.full((5, 2, CLASSES), np.inf, np.float32)
    thresholds[2:, 0, 1] = 0.9
    thresholds[3:, 1, 2] = 0.75
    thresholds[4, 1, 2] = -np.inf
    ramps = [OffRamp.closed(make_off_ramp().layers, feature="cls+mean", site=site) for site in (ATTENTION, OUTPUT)]
    disagreements, seconds = np.array([0, 3, 4, 8, 90]), np.array([4.0, 3.0, 2.5, 1 / 3, 0.1])
    variants = ("as given", "int8")
    return CertifiedPath(
        ramps, PolicyPath(variants, np.array([0, 0, 1, 1, 1]), thresholds, disagreements, seconds, 700, 3, 2)
    )


def test_the_whole_certified_path_comes_back(tmp_path):
    path = certified_path()
    policy = policy_of(Exit.of(make_off_ramp(), ATTENTION))
    policy.path = path
    found = round_trip(policy, tmp_path).path
    assert_same_bits(found.policies.thresholds, path.policies.thresholds)
    for name in ("variant", "disagreements", "seconds"):
        values, expected = getattr(found.policies, name), getattr(path.policies, name)
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)
    assert (found.policies.fired, found.policies.wrong) == (None, None)  # as in files of earlier versions
    assert found.policies.variants == ("as given", "int8")
    assert (found.policies.rows, found.policies.certified, found.policies.chosen) == (700, 3, 2)
    assert [ramp.site for ramp in found.off_ramps] == [ATTENTION, OUTPUT]
    for ramp, expected in zip(found.off_ramps, path.off_ramps, strict=True):
        assert_same_bits(ramp.layers[0][0], expected.layers[0][0])


@pytest.mark.parametrize("off_ramps", [0, 2])
def test_a_path_whose_policies_have_no_exits_comes_back(tmp_path, off_ramps):
    ramps = certified_path().off_ramps[:off_ramps]
    thresholds = np.full((1, off_ramps, CLASSES), np.inf, np.float32)
    policy = empty()
    policy.path = CertifiedPath(
        ramps, PolicyPath(("as given",), np.zeros(1, int), thresholds, np.zeros(1, int), np.ones(1), 300, 0, 0)
    )
    found = round_trip(policy, tmp_path).path
    assert len(found.off_ramps) == off_ramps
    assert_same_bits(found.policies.thresholds, thresholds)


@pytest.mark.parametrize("variant", [None, "as given", "int8"])
def test_the_file_says_what_the_policy_is_about(tmp_path, variant):
    policy = policy_of(*many_exits()[:1])
    policy.made_for = {"dtype": "bfloat16", "weights": "w"}
    policy.certificate = None if variant is None else replace(CERTIFICATE, variant=variant)
    save_policy(policy, tmp_path)
    text = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    about = {name: text[name] for name in ("task", "dtype", "variant", "promise", "path")}
    assert about == {
        "task": "single_label",
        "dtype": "bfloat16",
        "variant": variant or "as given",
        "promise": "confident",
        "path": None,
    }


def test_what_is_no_truth_value_is_refused(tmp_path, one_line_error):
    save_policy(empty(), tmp_path)
    edit(tmp_path / JSON, certified="yes")
    with one_line_error(ValueError, f"{tmp_path / JSON} must be whole (got certified that is no boolean)"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


@pytest.mark.parametrize(("step", "said"), [([1], "no integer"), (True, "no integer"), (9, "the path"), (3, "exits")])
def test_a_step_that_the_exits_are_not_of_is_refused(tmp_path, one_line_error, step, said):
    policy = empty()
    policy.path = certified_path()
    policy.take_step(2)
    save_policy(policy, tmp_path)
    edit(tmp_path / JSON, step=step)
    with one_line_error(ValueError, said):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


def test_exits_other_than_those_of_their_step_are_refused(tmp_path, one_line_error):
    policy = empty()
    policy.path = certified_path()
    policy.take_step(2)
    save_policy(policy, tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    save_file(tensors | {"exits.0.thresholds": tensors["exits.0.thresholds"] - 1}, tmp_path / TENSORS)
    with one_line_error(ValueError, f"{tmp_path / JSON} must be whole (got a step that the path does not have, or"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


def test_a_step_that_is_taken_while_a_policy_is_written_is_not_mixed_with_the_one_before(tmp_path, monkeypatch):
    policy = empty()
    policy.path = certified_path()
    policy.take_step(4)

    def slowly(tensors, file):
        policy.take_step(3)  # as an alarm does
        save_file(tensors, file)

    monkeypatch.setattr(policy_files, "save_file", slowly)
    found = round_trip(policy, tmp_path)
    assert (policy.step, found.step) == (3, 4)
    assert_same_bits(found.exits[1].condition.thresholds, policy.path.exits(4)[1].condition.thresholds)


@pytest.mark.parametrize("field", ["task", "promise"])
def test_what_a_later_moco_rt_may_write_is_refused_by_name(tmp_path, one_line_error, field):
    save_policy(empty(), tmp_path)
    edit(tmp_path / JSON, **{field: "ranking"})
    with one_line_error(ValueError, f"{tmp_path / JSON} must have {field} '"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


# Versions 1 and 2

DATA = Path(__file__).parent / "data"


@pytest.fixture
def old(tmp_path):
    """A copy of a folder that version 0.1 has written."""
    shutil.copytree(DATA / "policy-v1", tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def older_path(old):
    """The same model with a policy of version 2, which has a path of the kind of those days."""
    shutil.copytree(DATA / "policy-v2", old, dirs_exist_ok=True)
    text = json.loads((old / JSON).read_text(encoding="utf-8"))
    assert (text["version"], text["variant"], text["path"]["rows"]) == (2, "full", 525)
    return old


def test_a_policy_of_version_2_answers_as_it_did_without_its_path(older_path, word_tokenizer, tmp_path):
    fast = EarlyExitTextClassificationModel.from_pretrained(older_path)
    found = fast.predict(make_texts(40), tokenizer=word_tokenizer)
    before = json.loads((older_path / "answers.json").read_text())
    assert found.labels.tolist() == before["labels"]
    assert found.exit_rule.tolist() == before["exit_rule"]
    certificate = fast.policy.certificate
    assert (certificate.rows, certificate.disagreements, certificate.variant) == (525, 39, "as given")
    assert fast.policy.path is None
    fast.save_pretrained(tmp_path / "new")
    text = json.loads((tmp_path / "new" / JSON).read_text(encoding="utf-8"))
    assert (text["version"], text["variant"], text["path"]) == (VERSION, "as given", None)
    again = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "new")
    assert again.policy.certificate == certificate
    assert again.policy.made_for == fast.policy.made_for


def test_a_policy_of_version_2_is_bound_to_its_model(older_path, tiny_bert, one_line_error):
    other = EarlyExitTextClassificationModel(tiny_bert(3, hidden=16, labels=3, seed=1))
    with one_line_error(ValueError, "was made for a model with another weights: "):
        other.load_policy(older_path)


def make_texts(count):
    rng = np.random.default_rng(0)
    words = ["a", "the", "film", "good", "bad", "not", "was", "but"]
    return [" ".join(rng.choice(words, size=rng.integers(4, 21))) for _ in range(count)]


def test_a_policy_of_version_1_answers_as_it_did(old, word_tokenizer):
    fast = EarlyExitTextClassificationModel.from_pretrained(old)
    assert json.loads((old / JSON).read_text(encoding="utf-8"))["version"] == 1
    found, before = (
        fast.predict(make_texts(40), tokenizer=word_tokenizer),
        json.loads((old / "answers.json").read_text()),
    )
    assert found.labels.tolist() == before["labels"]
    assert found.exit_rule.tolist() == before["exit_rule"]
    certificate = fast.policy.certificate
    assert (certificate.rows, certificate.disagreements, certificate.rows_in_all) == (420, 69, None)
    assert fast.policy.path is None


def test_a_policy_of_version_1_becomes_one_of_today(old, word_tokenizer, tmp_path):
    fast = EarlyExitTextClassificationModel.from_pretrained(old)
    fast.save_pretrained(tmp_path / "new")
    text = json.loads((tmp_path / "new" / JSON).read_text(encoding="utf-8"))
    assert (text["version"], text["dtype"]) == (VERSION, "float32")
    assert text["made_for"]["weights"] == fingerprint(fast.model)
    again = EarlyExitTextClassificationModel.from_pretrained(tmp_path / "new")
    assert again.policy.certificate == fast.policy.certificate
    assert again.policy.made_for == fast.policy.made_for
    again.predict(["a good film"], tokenizer=word_tokenizer)


def test_a_policy_of_version_1_is_bound_to_its_model_and_tokenizer(old, tiny_bert, word_tokenizer, one_line_error):
    fast = EarlyExitTextClassificationModel.from_pretrained(old)
    other = copy.deepcopy(word_tokenizer)
    other.add_tokens(["splendid"])
    with one_line_error(ValueError, "tokenizer must be the one that the policy was found with"):
        fast.predict(["good"], tokenizer=other)
    other = EarlyExitTextClassificationModel(tiny_bert(3, hidden=16, labels=3, seed=1))
    with one_line_error(ValueError, "was made for a model with another sampled_weights: "):
        other.load_policy(old)


# What is refused


@pytest.mark.parametrize("file", [JSON, TENSORS])
@pytest.mark.parametrize("kept", [0, 30], ids=["empty", "cut off"])
def test_a_broken_file_is_refused_by_its_name(tmp_path, one_line_error, file, kept):
    save_policy(policy_of(*many_exits()), tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:kept])
    with one_line_error(ValueError, f"{tmp_path / file} must be a "):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


@pytest.mark.parametrize("field", ["exits", "closed", "certificate", "made_for", "sites", "task", "dtype"])
def test_a_field_that_is_missing_is_named(tmp_path, one_line_error, field):
    save_policy(policy_of(*many_exits()), tmp_path)
    text = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    del text[field]
    (tmp_path / JSON).write_text(json.dumps(text))
    with one_line_error(ValueError, f"{tmp_path / JSON} must be whole ({field} is missing)"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


def test_a_tensor_that_is_missing_is_named(tmp_path, one_line_error):
    save_policy(policy_of(Exit.of(make_off_ramp(), ATTENTION)), tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    del tensors["exits.0.bounds"]
    save_file(tensors, tmp_path / TENSORS)
    with one_line_error(ValueError, f"{tmp_path / TENSORS} must be whole (exits.0.bounds is missing)"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


def test_a_plain_callable_is_refused_before_anything_is_written(tmp_path, one_line_error):
    exits = [*many_exits()[:1], Exit(ATTENTION, 0, lambda x: x[:, 0] > 0, "cls", 0.05)]
    words = f"the condition at {ATTENTION} must be a LinearCondition or an OffRamp to be saved (got a callable)"
    with one_line_error(ValueError, words):
        save_policy(policy_of(*exits), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"version": 4}, "'moco_rt policy', version 4"),
        ({"version": "1"}, "'moco_rt policy', version '1'"),
        ({"format": "bert"}, "'bert', version 3"),
        ({"format": None, "version": None}, "None, version None"),
    ],
    ids=str,
)
def test_other_formats_and_versions_are_refused(tmp_path, one_line_error, changes, got):
    save_policy(empty(), tmp_path)
    edit(tmp_path / JSON, **changes)
    with one_line_error(ValueError, f"{tmp_path / JSON} must be a moco_rt policy of version 1 or 2 or 3 (got {got})"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


def test_a_json_file_of_something_else_is_refused(tmp_path, one_line_error):
    save_policy(empty(), tmp_path)
    (tmp_path / JSON).write_text("{}")
    with one_line_error(ValueError, "must be a moco_rt policy of version 1 or 2 or 3 (got None, version None)"):
        load_policy(tmp_path / JSON, tmp_path / TENSORS, empty())


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Policy(all_sites(2), CLASSES, HIDDEN), f"of a model with sites {all_sites(2)} (got {all_sites(3)})"),
        (Policy(all_sites(3), 2, HIDDEN), "of a model with num_classes 2 (got 3)"),
        (Policy(all_sites(3), CLASSES, 16), "of a model with hidden_size 16 (got 8)"),
    ],
    ids=["sites", "classes", "hidden size"],
)
def test_a_policy_of_a_model_of_another_shape_is_refused(tmp_path, one_line_error, expected, words):
    with one_line_error(ValueError, f"{tmp_path / JSON} must be {words}"):
        round_trip(policy_of(*many_exits()), tmp_path, expected)


@pytest.mark.parametrize("what", ["weights", "dtype", "tokenizer", "max_length"])
def test_a_policy_made_for_something_else_is_refused(tmp_path, one_line_error, what):
    policy, expected = empty(), empty()
    policy.made_for = {"weights": "w", "dtype": "float32", "tokenizer": "t", "max_length": 64}
    expected.made_for = {**policy.made_for, what: "x"}
    words = f"{tmp_path / JSON} was made for a model with another {what}: {policy.made_for[what]} (got x)"
    with one_line_error(ValueError, words):
        round_trip(policy, tmp_path, expected)


def test_what_nobody_knows_of_the_model_is_not_compared(tmp_path):
    policy, expected = empty(), empty()
    policy.made_for = {"weights": "w", "tokenizer": "t"}
    expected.made_for = {"weights": "w", "dtype": "float32"}
    assert round_trip(policy, tmp_path, expected).made_for == policy.made_for
