"""`compress`: what is left out, what is learnt, what is refused, and a recovery that was interrupted."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import cut_to
from transformers import (
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
)

import moco_rt
from moco_rt import EarlyExitTextClassificationModel, compress, quantize
from moco_rt.architectures import load_tokenizer
from moco_rt.architectures.compressed.layers import Widths, head_size, product_weights
from moco_rt.compression import compress as compress_module
from moco_rt.compression import recovery
from moco_rt.compression.answers import divergence as answers_apart
from moco_rt.compression.schedule import share_seen
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus


@pytest.fixture(scope="module")
def taught():
    """A classifier of four layers that has learnt something, its tokenizer, and texts."""
    reviews = make_corpus(600, seed=0, median_words=12)
    texts = [row.text for row in reviews]
    return *train_classifier(texts, [row.label for row in reviews], seed=0), texts


@pytest.fixture(autouse=True)
def few_tokens_to_choose_by(monkeypatch):
    monkeypatch.setattr(compress_module, "_TOKENS", 4000)


def labels_of(model, tokenizer, texts):
    fast = EarlyExitTextClassificationModel(model)
    fast.tokenizer = tokenizer
    return fast.predict(texts).labels


def divergence(model, other, tokenizer, texts):
    """The mean KL divergence between two models' probabilities."""
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        given, found = (each(**batch).logits.log_softmax(1) for each in (model, other))
    return float((given.exp() * (given - found)).sum(1).mean())


def test_the_work_that_is_left_is_what_was_asked_for(taught):
    model, tokenizer, texts = taught
    sizes = model.config.hidden_size, head_size(model.config)
    whole = product_weights(Widths.of(model), *sizes)
    for width in (0.8, 0.5):
        small = compress(model, texts, tokenizer=tokenizer, width=width, epochs=0)
        left = product_weights(small.config.widths, *sizes) / whole
        assert width - 0.07 < left <= width
        assert all(neurons % 16 == 0 for neurons in small.config.neurons)
        assert small.config.compression == {"width": width, "epochs": 0}
    assert EarlyExitTextClassificationModel(small).backend == "packed"


def test_width_1_answers_as_the_model(taught):
    model, tokenizer, texts = taught
    small = compress(model, texts, tokenizer=tokenizer, epochs=0)
    assert small.config.widths == Widths.of(model)
    assert divergence(model, small, tokenizer, texts[:64]) < 1e-3


def test_half_of_it_nearly_answers_as_the_model_and_nothing_was_changed(taught):
    model, tokenizer, texts = taught
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    small = compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=0)
    agree = (labels_of(small, tokenizer, texts) == labels_of(model, tokenizer, texts)).float().mean()
    assert agree > 0.9
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_callers_own_draws_stay_what_they_were(taught, epochs):
    model, tokenizer, texts = taught
    before = torch.get_rng_state()
    compress(model, texts[:50], tokenizer=tokenizer, width=0.5, epochs=epochs)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_left_learns_the_answers(taught, monkeypatch):
    monkeypatch.setattr(recovery, "_TOKENS", 512)
    model, tokenizer, texts = taught
    model, texts = cut_to(model, 2), texts[:300]
    cut, learnt = (compress(model, texts, tokenizer=tokenizer, width=0.3, epochs=epochs, seed=1) for epochs in (0, 4))
    assert cut.config.widths == learnt.config.widths
    before, after = (divergence(model, each, tokenizer, texts) for each in (cut, learnt))
    assert after < 0.7 * before
    assert not learnt.training
    assert all(weight.requires_grad for weight in learnt.parameters())


def test_the_less_was_lost_the_smaller_the_steps(taught, monkeypatch):
    """Steps that are right where much is lost would cost a model that lost little more than they teach it."""
    monkeypatch.setattr(recovery, "_TOKENS", 512)
    assert recovery.learning_rate(0.0) == 0
    assert recovery.learning_rate(0.01) == pytest.approx(recovery.learning_rate(0.02) / 2)
    largest = recovery.learning_rate(10.0)
    assert largest == recovery.learning_rate(math.inf) == recovery.learning_rate(1.0)
    model, tokenizer, texts = taught
    model, texts = cut_to(model, 2), texts[:300]
    cut, learnt = (compress(model, texts, tokenizer=tokenizer, width=0.8, epochs=epochs) for epochs in (0, 1))
    monkeypatch.setattr(compress_module, "learning_rate", lambda _: largest)
    overdone = compress(model, texts, tokenizer=tokenizer, width=0.8, epochs=1)
    lost = [divergence(model, each, tokenizer, texts) for each in (cut, learnt, overdone)]
    assert lost[1] < 1.2 * lost[0]
    assert lost[1] < lost[2]


@pytest.mark.usefixtures("often")
def test_an_interrupted_recovery_goes_on_to_the_same_model(taught, interrupted_after, tmp_path, monkeypatch):
    model, tokenizer, texts = taught
    model, texts = cut_to(model, 1), texts[:200]
    wanted = {"tokenizer": tokenizer, "width": 0.5, "epochs": 2}
    whole = compress(model, texts, **wanted)
    file = tmp_path / "recovery.pt"
    with interrupted_after(5):
        compress(model, texts, checkpoint=file, **wanted)
    assert file.is_file()
    monkeypatch.setattr("moco_rt.compression.compress.narrow", None)  # nothing is chosen again
    again = compress(model, texts, checkpoint=file, **wanted)
    assert again.config.widths == whole.config.widths
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("moco_rt.compression.recovery._loss", None)  # it has learned: nothing is lost until it is saved
    once_more = compress(model, texts, checkpoint=file, **wanted)
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(once_more.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.usefixtures("often")
def test_a_checkpoint_of_something_else_is_refused(taught, tmp_path, monkeypatch, one_line_error):
    model, tokenizer, texts = taught
    model, file = cut_to(model, 1), tmp_path / "recovery.pt"
    with monkeypatch.context() as patch:
        patch.setattr(recovery.Path, "unlink", lambda *_, **__: None)
        compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=1, checkpoint=file)
    with one_line_error(ValueError, f"checkpoint {file} must be of the same width, 0.6 (got 0.5): delete it to begin"):
        compress(model, texts, tokenizer=tokenizer, width=0.6, epochs=1, checkpoint=file)
    with one_line_error(ValueError, "must be of the same texts"):
        compress(model, texts[1:], tokenizer=tokenizer, width=0.5, epochs=1, checkpoint=file)
    model.config.problem_type = "regression"
    with one_line_error(ValueError, f"{file} must be of the same problem_type, regression (got single_label_class"):
        compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=1, checkpoint=file)
    model.config.problem_type = "single_label_classification"  # as for two labels without saying so
    compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with one_line_error(ValueError, f"checkpoint must be a file that compress wrote (got {file}: "):
        compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=1, checkpoint=file)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (RobertaForSequenceClassification, {"intermediate_size": 48, "pad_token_id": 1}),
        (ElectraForSequenceClassification, {"intermediate_size": 48, "embedding_size": 32}),
        (DistilBertForSequenceClassification, {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 48}),
    ],
    ids=["RoBERTa", "ELECTRA", "DistilBERT"],
)
def test_every_family_is_made_narrower_and_shorter_and_learns(tiny_classifier, word_tokenizer, kind, config):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    model = tiny_classifier(kind, **(sizes | config))
    texts = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 5
    small = compress(model, texts, tokenizer=word_tokenizer, width=0.6, lengths={0: 0.5}, epochs=1)
    assert product_weights(small.config.widths, 32, 16) <= 0.6 * product_weights(Widths.of(model), 32, 16)
    fast, reference = (EarlyExitTextClassificationModel(small, backend=name) for name in ("packed", "reference"))
    for each in (fast, reference):
        each.tokenizer = word_tokenizer
    torch.testing.assert_close(fast.predict(texts).probs, reference.predict(texts).probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", "one label"])
def test_other_answers_than_one_label_are_learnt(tiny_bert, word_tokenizer, monkeypatch, problem):
    monkeypatch.setattr(recovery, "_TOKENS", 64)
    labels, kind = (1, None) if problem == "one label" else (3, problem)
    model = tiny_bert(labels=labels, problem_type=kind)
    texts = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 15
    wanted = {"tokenizer": word_tokenizer, "width": 0.6}
    cut, learnt = (compress(model, texts, epochs=epochs, **wanted) for epochs in (0, 5))
    batch = word_tokenizer(texts[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        given, before, after = (each(**batch).logits for each in (model, cut, learnt))
    assert answers_apart(given, after, model.config) < answers_apart(given, before, model.config)


def test_pairs_are_learnt_from(taught):
    model, tokenizer, texts = taught
    pairs = list(zip(texts[:100], texts[100:200], strict=True))
    small = compress(model, pairs, tokenizer=tokenizer, width=0.8, epochs=1)
    assert small.config.compression["width"] == 0.8


def test_its_tokenizer_is_found_where_the_model_came_from(taught, tmp_path):
    model, tokenizer, texts = taught
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    small = compress(type(model).from_pretrained(tmp_path), texts, width=0.8, epochs=0)
    assert load_tokenizer(small).get_vocab() == tokenizer.get_vocab()


def test_it_is_quantised_and_saved_like_any_other(taught, tmp_path):
    model, tokenizer, texts = taught
    small = compress(model, texts, tokenizer=tokenizer, width=0.5, epochs=0)
    fast = EarlyExitTextClassificationModel(quantize(small, texts, tokenizer=tokenizer))
    fast.tokenizer = tokenizer
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict(texts[:50]).probs, fast.predict(texts[:50]).probs)


def test_tokens_are_left_out_where_asked_or_where_least_is_lost(taught):
    model, tokenizer, texts = taught
    asked = compress(model, texts, tokenizer=tokenizer, lengths={1: 0.5, 2: 0.3}, epochs=0)
    assert asked.config.lengths == [1.0, 0.5, 0.3, 0.3]
    assert asked.config.compression == {"lengths": {"1": 0.5, "2": 0.3}, "epochs": 0}
    found = compress(model, texts, tokenizer=tokenizer, lengths=0.7, epochs=0)
    assert 0.55 < share_seen(found.config.lengths) <= 0.7
    for small in (asked, found):
        assert Widths.of(small.model) == Widths.of(model)
        assert EarlyExitTextClassificationModel(small).backend == "packed"


def test_a_shorter_model_learns_too(taught, monkeypatch):
    monkeypatch.setattr(recovery, "_TOKENS", 512)
    model, tokenizer, texts = taught
    model, texts = cut_to(model, 2), texts[:200]
    cut, learnt = (
        compress(model, texts, tokenizer=tokenizer, width=0.5, lengths={0: 0.3}, epochs=epochs) for epochs in (0, 4)
    )
    before, after = (divergence(model, each, tokenizer, texts) for each in (cut, learnt))
    assert after < 0.7 * before
    assert learnt.config.lengths == [0.3] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 0}, "width must be above 0 and at most 1 (got 0)"),
        ({"width": 1.5}, "width must be above 0 and at most 1 (got 1.5)"),
        ({"width": 0.01}, "width must leave every layer a head and 16 neurons (got 0.01)"),
        ({"lengths": 1.5}, "lengths must be above 0 and at most 1 (got 1.5)"),
        ({"lengths": {1: 0.5, 2: 0.6}}, "lengths must be shares above 0 and at most 1 that never rise"),
        ({"lengths": {9: 0.5}}, "lengths must name layers from 0 to 3 (got 9)"),
        ({"epochs": -1}, "epochs must be at least 0 (got -1)"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(taught, one_line_error, arguments, words):
    model, tokenizer, texts = taught
    with one_line_error(ValueError, words):
        compress(model, texts, tokenizer=tokenizer, **arguments)


def test_models_that_cannot_be_compressed_are_refused(taught, tiny_classifier, one_line_error):
    model, tokenizer, texts = taught
    small = quantize(model, texts, tokenizer=tokenizer)
    with one_line_error(ValueError, "model must have no int8 weights (got some): compress first, then quantize"):
        compress(small, texts, tokenizer=tokenizer, width=0.5)
    other = tiny_classifier(MPNetForSequenceClassification, hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    with one_line_error(ValueError, "model must be of a type that can be made narrower"):
        compress(other, texts, tokenizer=tokenizer, width=0.5)
    with one_line_error(TypeError, "model must be a Hugging Face ...ForSequenceClassification (got str)"):
        compress("my-model", texts, tokenizer=tokenizer, width=0.5)
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        compress(model, "one text", tokenizer=tokenizer)


def test_it_is_a_public_name():
    assert moco_rt.compress is compress
