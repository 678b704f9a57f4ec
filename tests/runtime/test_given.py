"""The model as it was given beside another form of it: kept, saved, and loaded when it is asked for."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_lit_pictures
from parity import make_inputs
from transformers import ViTForImageClassification, ViTImageProcessorPil

from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel, SingleLabel
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.fingerprints import fingerprint, model_identity, run_identity
from moco_rt.policies.policy_files import JSON
from moco_rt.runtime.classifiers import base
from moco_rt.runtime.classifiers import given as given_module

INPUTS = make_inputs([5, 9, 3, 12, 7, 1, 20, 4], pairs=True)
HIDDEN, CLASSES = 32, 3


def other_form(model, seed=1):
    """A copy with other numbers in its head, as if they had been rounded, and rounded badly."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        noise = torch.randn(changed.classifier.weight.shape, generator=torch.Generator().manual_seed(seed))
        changed.classifier.weight += noise
    return changed


def off_ramp(threshold=0.7):
    layers = ((np.random.default_rng(0).normal(0, 0.5, (CLASSES, HIDDEN)), np.zeros(CLASSES)),)
    return OffRamp(layers, np.full(CLASSES, threshold), np.full(CLASSES, 0.02), feature="cls")


@pytest.fixture
def given(tiny_bert):
    return EarlyExitTextClassificationModel(tiny_bert(3, labels=CLASSES))


@pytest.fixture
def fast(given):
    """Another form of the model that was given, with an exit."""
    fast = EarlyExitTextClassificationModel(other_form(given.model))
    fast.add_off_ramp(off_ramp(), "encoder.0.attention")
    fast.take_given(given)
    return fast


@pytest.fixture
def loaded_models(monkeypatch):
    """What is loaded from now on, by name and folder inside it."""
    loaded = []

    def load_and_note(source, *options, **more):
        loaded.append((source.name, source.subfolder))
        return load_model(source, *options, **more)

    load_model = base.load_model
    for module in (base, given_module):
        monkeypatch.setattr(module, "load_model", load_and_note)
    return loaded


def load(folder):
    return EarlyExitTextClassificationModel.from_pretrained(folder)


def logits_of(model):
    return model(**INPUTS).logits


def assert_same_given(found, expected):
    assert type(found) is type(expected)
    assert torch.equal(logits_of(found), logits_of(expected))
    assert fingerprint(found.model) == fingerprint(expected.model)
    assert found.policy.exits == ()


# In memory


def test_a_model_that_runs_as_it_was_given_is_given_itself(given, tmp_path):
    assert given.given is given
    given.save_pretrained(tmp_path)
    assert not (tmp_path / "given").exists()
    loaded = load(tmp_path)
    assert loaded.given is loaded


def test_a_model_with_exits_that_runs_as_it_was_given_is_given_without_them(given):
    given.tokenizer = "kept"
    plain = logits_of(given)
    given.add_rule(lambda x: x[:, 0] == x[:, 0], 1, "embeddings")
    monitor = given.monitor(rate=1.0)
    found = given.given
    assert torch.equal(logits_of(found), plain)
    assert not torch.equal(logits_of(given), plain)
    assert (found.model, found.tokenizer, found.given) == (given.model, "kept", found)
    assert found.runs_as_given
    assert given.runs_as_given
    assert sum(process.rows for process in monitor.processes) == len(plain)  # those that left, not those of the other


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_who_shares_weights_moves_with_them(given, backend, one_line_error):
    model = EarlyExitTextClassificationModel(copy.deepcopy(given.model), backend=backend)
    model.add_rule(lambda x: x[:, 0] == x[:, 0], 1, "embeddings")
    plain = model.given
    other = {name: 2 * value for name, value in model.state_dict().items()}
    plain.load_state_dict(other)
    expected = logits_of(EarlyExitTextClassificationModel(model.model, backend=backend))
    assert torch.equal(logits_of(plain), expected)
    assert torch.equal(logits_of(model.given), expected)
    model.load_state_dict({name: value / 2 for name, value in other.items()})
    assert torch.equal(logits_of(plain), logits_of(EarlyExitTextClassificationModel(given.model, backend=backend)))
    model.policy.made_for = {"dtype": "float32"}
    with one_line_error(ValueError, "the policy was made for a model with another dtype: float32 (got float64)"):
        plain.to(torch.float64)
    again = pickle.loads(pickle.dumps(plain))
    assert torch.equal(logits_of(again), logits_of(plain))
    assert again.model is not plain.model


def test_another_form_remembers_the_model_that_was_given(fast, given):
    assert fast.given is given
    assert given.given is given
    assert fast.policy.made_for["given"] == model_identity(given.model)
    assert not torch.equal(logits_of(fast), logits_of(given))


def test_the_given_model_is_no_part_of_the_one_that_runs(fast):
    own = len(list(fast.model.parameters()))
    assert len(list(fast.parameters())) == own
    assert not any("given" in name for name in fast.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_it_too(fast, given, copied):
    again = copied(fast)
    assert_same_given(again.given, given)
    assert torch.equal(logits_of(again), logits_of(fast))


# On disk


def test_it_is_saved_beside_and_comes_back(fast, given, tmp_path):
    fast.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "given").iterdir()}
    assert not (tmp_path / "given" / JSON).exists()
    loaded = load(tmp_path)
    found, expected = loaded(**INPUTS), fast(**INPUTS)
    assert torch.equal(found.logits, expected.logits)
    assert found.exit_site.tolist() == expected.exit_site.tolist()
    assert loaded.policy.made_for == fast.policy.made_for
    assert_same_given(loaded.given, given)


def test_it_is_loaded_once_and_when_it_is_asked_for(fast, tmp_path, loaded_models):
    fast.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    loaded(**INPUTS)
    assert loaded_models == [(str(tmp_path), "")]
    assert loaded.given is loaded.given
    assert loaded_models == [(str(tmp_path), ""), (str(tmp_path), "given")]


def test_a_model_that_was_loaded_may_be_saved_where_it_came_from(fast, given, tmp_path):
    fast.save_pretrained(tmp_path)
    for _ in range(2):
        loaded = load(tmp_path)  # and has not asked for the given model, whose files may be mapped
        loaded.save_pretrained(tmp_path)
        assert_same_given(load(tmp_path).given, given)
    assert_same_given(loaded.given, given)
    loaded.save_pretrained(tmp_path / "elsewhere")
    assert_same_given(load(tmp_path / "elsewhere").given, given)


def test_it_is_removed_where_a_model_without_it_is_saved(fast, given, tmp_path):
    fast.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    given.save_pretrained(tmp_path)
    assert not (tmp_path / "given").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    loaded = load(tmp_path)
    assert loaded.given is loaded
    fast.save_pretrained(tmp_path)  # and the other way
    assert_same_given(load(tmp_path).given, given)


def test_a_save_that_fails_leaves_it_there(fast, given, tmp_path):
    fast.save_pretrained(tmp_path)
    given.add_rule(lambda cls: cls[:, 0] > 0, 0, "embeddings")
    with pytest.raises(ValueError, match="to be saved"):
        given.save_pretrained(tmp_path)
    assert (tmp_path / "given" / "model.safetensors").exists()
    assert_same_given(load(tmp_path).given, fast.given.__class__(given.model))


def test_another_model_in_its_place_is_refused_when_it_is_asked_for(fast, tiny_bert, tmp_path, one_line_error):
    fast.save_pretrained(tmp_path)
    expected = fingerprint(fast.given.model)
    intruder = tiny_bert(3, labels=CLASSES, seed=5)
    intruder.save_pretrained(tmp_path / "given")
    loaded = load(tmp_path)
    assert torch.equal(logits_of(loaded), logits_of(fast))
    for _ in range(2):
        with one_line_error(ValueError, f"another weights: {expected} (got {fingerprint(intruder)})"):
            _ = loaded.given


def test_the_policy_names_what_it_was_given_for(fast, tmp_path):
    fast.save_pretrained(tmp_path)
    text = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    assert text["made_for"]["given"] == model_identity(fast.given.model)
    assert text["made_for"]["weights"] == fingerprint(fast.model) != text["made_for"]["given"]["weights"]


# Watched against it


def always(predicted_class, classes, hidden):
    """An exit by which all rows leave with one class."""
    head = np.zeros((classes, hidden)), np.eye(classes)[predicted_class]
    return OffRamp((head,), np.full(classes, -np.inf), np.full(classes, 0.4), feature="cls")


@pytest.fixture
def watched(given):
    """All rows leave with the class that another form of the model says most often, and the given one does not."""
    fast = EarlyExitTextClassificationModel(other_form(given.model))
    fast.add_off_ramp(always(int(own_labels(fast).bincount().argmax()), CLASSES, HIDDEN), "embeddings")
    fast.take_given(given)
    return fast


def own_labels(model):
    """Labels without exits."""
    return model.run({}, **INPUTS).logits.argmax(1)


def test_a_monitor_compares_with_the_model_that_was_given(watched, given):
    monitor = watched.monitor(rate=1)
    (label,) = set(watched(**INPUTS).logits.argmax(1).tolist())
    wrong = int((own_labels(given) != label).sum())
    assert wrong != int((own_labels(watched) != label).sum())
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (len(INPUTS["input_ids"]), wrong)


def test_a_monitor_of_texts_compares_with_the_model_that_was_given(watched, given, word_tokenizer):
    texts = [" ".join(words) for words in np.random.default_rng(0).choice(["good", "bad", "not", "film"], (60, 6))]
    monitor = watched.monitor(rate=1)
    (label,) = set(watched.predict(texts, tokenizer=word_tokenizer).labels.tolist())
    labels, own = (model.predict(texts, tokenizer=word_tokenizer).labels for model in (given, plain(watched)))
    assert (labels != label).sum() != (own != label).sum()
    assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (60, int((labels != label).sum()))


def plain(model):
    """The form that runs, without exits."""
    return type(model)(model.model)


def test_a_monitor_of_a_model_from_disk_loads_what_was_given_when_a_row_is_checked(
    watched, given, tmp_path, loaded_models
):
    watched.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    monitor = loaded.monitor(rate=1)
    (label,) = set(loaded(**INPUTS).logits.argmax(1).tolist())
    assert loaded_models == [(str(tmp_path), ""), (str(tmp_path), "given")]
    assert monitor.processes[0].wrong == int((own_labels(given) != label).sum())


def test_images_are_watched_against_the_model_that_was_given(tiny_classifier, tmp_path):
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, initializer_range=0.1)
    given = EarlyExitImageClassificationModel(model)
    fast = EarlyExitImageClassificationModel(other_form(model))
    fast.take_given(given)
    fast.add_off_ramp(always(0, fast.policy.num_classes, fast.policy.hidden_size), "embeddings")
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    pictures, _ = make_lit_pictures(60)
    wrong = int((given.predict(pictures, image_processor=processor).labels != 0).sum())
    fast.save_pretrained(tmp_path)
    for watched in (fast, EarlyExitImageClassificationModel.from_pretrained(tmp_path)):
        monitor = watched.monitor(rate=1)
        watched.predict(pictures, image_processor=processor)
        assert (monitor.processes[0].rows, monitor.processes[0].wrong) == (60, wrong)
        assert isinstance(watched.given, EarlyExitImageClassificationModel)


# What else must come back


def test_what_prepares_inputs_comes_back_with_it(fast, word_tokenizer, tmp_path):
    fast.tokenizer = fast.given.tokenizer = word_tokenizer
    fast.save_pretrained(tmp_path)
    texts = ["a good film", "bad"]
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.given.predict(texts).probs, fast.given.predict(texts).probs)


def test_it_means_the_same_answer_and_cuts_texts_where_the_policy_does(given, word_tokenizer, tmp_path, one_line_error):
    fast = EarlyExitTextClassificationModel(other_form(given.model))
    fast.policy.task = SingleLabel(threshold={"LABEL_1": 0.9}).for_model(fast.config)
    fast.policy.made_for |= run_identity(fast.model, word_tokenizer, 5)
    fast.tokenizer = given.tokenizer = word_tokenizer
    fast.take_given(given)
    fast.save_pretrained(tmp_path)
    texts = ["a good film was not bad but good", "bad", "the film was good but the good was not"]
    plain = EarlyExitTextClassificationModel(given.model)
    expected = plain.predict(texts, tokenizer=word_tokenizer, max_length=5).probs
    assert not torch.equal(expected, plain.predict(texts, tokenizer=word_tokenizer).probs)
    other = copy.deepcopy(word_tokenizer)
    other.truncation_side = "left"
    for found in (fast.given, load(tmp_path).given):
        assert found.policy.task == fast.policy.task
        assert torch.equal(found.predict(texts).probs, expected)
        with one_line_error(ValueError, "tokenizer must be the one that the policy was found with"):
            found.predict(texts, tokenizer=other)


def test_a_folder_that_has_lost_it_says_so(fast, tmp_path, one_line_error):
    fast.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "given")
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    with one_line_error(OSError, "must hold the model as it was given, in given/"):
        _ = loaded.given


def test_a_policy_without_exits_does_not_forget_it(fast, tmp_path):
    fast.policy = fast.policy.without_exits()
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert model_identity(loaded.given.model) == model_identity(fast.given.model)
