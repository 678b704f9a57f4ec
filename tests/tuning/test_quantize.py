"""Quantising with texts: what is hard to quantise is smoothed or left alone, and labels stay."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from image_samples import make_image_classifier, make_pictures
from tokenizers import processors
from transformers import ViTForImageClassification, ViTImageProcessorPil

from moco_rt import EarlyExitTextClassificationModel, compress
from moco_rt.architectures import SINGLE_LABEL, MultiLabel, architecture_of
from moco_rt.architectures.conversion import describe, int8_copy
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.tokenization import TokenlessTextError
from moco_rt.quantization.int8_linear import Int8Linear
from moco_rt.tuning import quantize as quantization
from moco_rt.tuning.quantize import quantize

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
TEXTS = [" ".join(words) for words in itertools.product(WORDS, repeat=3)]


@pytest.fixture(scope="module")
def model(tiny_bert):
    """One that is hard to quantise: a channel after every LayerNorm is large, what reads it small."""
    model = tiny_bert(2, 64, 4, labels=3, initializer_range=0.25)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            attention = layer.attention.self
            for reader in (attention.query, attention.key, attention.value, layer.intermediate.dense):
                reader.weight[:, 7] /= 100
            for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
                norm.bias[7] = 20
    return model


@torch.no_grad()
def logits_of(model, tokenizer):
    batches, _ = length_sorted_batches(tokenizer, TEXTS, 16, 64)
    fast = EarlyExitTextClassificationModel(model)
    return torch.cat([fast(**batch).logits.float() for batch in batches])


def agreement(model, other, tokenizer):
    return float((logits_of(model, tokenizer).argmax(1) == logits_of(other, tokenizer).argmax(1)).float().mean())


def int8_layers(model):
    return {name for name, module in model.named_modules() if isinstance(module, Int8Linear)}


def test_smoothing_brings_the_logits_nearer(model, word_tokenizer, monkeypatch):
    monkeypatch.setattr(quantization, "_AGREEMENT", 0.0)
    expected = logits_of(model, word_tokenizer)
    found = quantize(model, TEXTS, tokenizer=word_tokenizer, max_length=16)
    errors = [(logits_of(copy, word_tokenizer) - expected).square().mean() for copy in (found, int8_copy(model))]
    assert errors[0] < 0.5 * errors[1]
    assert not all(bool((module.smooth == 1).all()) for module in found.modules() if isinstance(module, Int8Linear))


def test_layers_that_share_their_input_share_what_it_is_divided_by(model, word_tokenizer, monkeypatch):
    monkeypatch.setattr(quantization, "_AGREEMENT", 0.0)
    found = quantize(model, TEXTS, tokenizer=word_tokenizer, max_length=16)
    for layer in found.bert.encoder.layer:
        attention = layer.attention.self
        assert torch.equal(attention.query.smooth, attention.key.smooth)
        assert torch.equal(attention.query.smooth, attention.value.smooth)


@torch.no_grad()
def test_an_input_that_was_silent_may_speak_elsewhere(model):
    name = "bert.encoder.layer.1.output.dense"
    largest = {
        name: torch.ones(model.get_submodule(name).in_features)
        for linears in architecture_of(model).linear_groups()
        for name in linears
    }
    largest[name][5] = 0
    weight = model.get_submodule(name).weight.abs().amax(0)
    # As if it had been a hundredth of the others.
    divisor = quantization._smooth(model, largest, 0.5)[name] * weight.sqrt()
    torch.testing.assert_close(divisor[:7], torch.tensor([1.0, 1, 1, 1, 1, 0.1, 1]))


def test_products_are_left_in_float32_until_enough_labels_stay(model, word_tokenizer, monkeypatch):
    monkeypatch.setattr(quantization, "_STRENGTHS", ())
    counts = []
    for needed in (0.0, 0.98, 1.0):
        monkeypatch.setattr(quantization, "_AGREEMENT", needed)
        found = quantize(model, TEXTS, tokenizer=word_tokenizer, max_length=16)
        counts.append(len(int8_layers(found)))
        assert agreement(found, model, word_tokenizer) >= needed or not int8_layers(found)
    assert counts[0] == 12
    assert counts == sorted(counts, reverse=True)
    assert counts[2] < 12


def test_what_shares_its_input_is_left_together(model, word_tokenizer, monkeypatch):
    monkeypatch.setattr(quantization, "_STRENGTHS", ())
    monkeypatch.setattr(quantization, "_AGREEMENT", 1.0)
    found = int8_layers(quantize(model, TEXTS, tokenizer=word_tokenizer, max_length=16))
    for linears in architecture_of(model).linear_groups():
        assert len(found & set(linears)) in (0, len(linears))


def test_it_is_deterministic_and_leaves_the_model_alone(model, word_tokenizer):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (quantize(model, TEXTS[:100], tokenizer=word_tokenizer) for _ in range(2))
    for own, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(own, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_texts_may_stand_in_named_columns(model, word_tokenizer):
    rows = [{"review": text, "text": "good", "label": 0} for text in TEXTS[:100]]
    found = quantize(model, iter(rows), tokenizer=word_tokenizer, columns="review")
    expected = quantize(model, TEXTS[:100], tokenizer=word_tokenizer)
    for own, other in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(own, other)


def test_where_too_few_labels_stay_the_log_says_what_is_left(model, word_tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(quantization, "_STRENGTHS", ())
    monkeypatch.setattr(quantization, "_AGREEMENT", 1.0)
    quantize(model, TEXTS, tokenizer=word_tokenizer, max_length=16)
    assert "of answers, in float32 stay bert.encoder.layer." in caplog.text


@pytest.mark.parametrize(
    "config",
    [
        {"labels": 1},
        {"labels": 2, "problem_type": "regression"},
        {"labels": 3, "problem_type": "multi_label_classification"},
    ],
    ids=["one label", "regression", "multi-label"],
)
def test_models_for_other_tasks_are_quantised(tiny_bert, word_tokenizer, monkeypatch, config):
    monkeypatch.setattr(quantization, "_AGREEMENT", 0.8)  # random models are hard to quantise
    given = tiny_bert(**config)
    logits = [
        EarlyExitTextClassificationModel(model)(**word_tokenizer(TEXTS[:64], padding=True, return_tensors="pt")).logits
        for model in (given, quantize(given, TEXTS, tokenizer=word_tokenizer))
    ]
    assert 0 < (logits[0] - logits[1]).abs().mean() < 0.5 * logits[0].std(dim=0).mean()


def test_answers_that_stay_are_sets_of_labels_or_the_variance_of_numbers():
    expected = torch.tensor([[1.0, -1.0], [2.0, 3.0], [-1.0, 4.0]])
    found = torch.tensor([[5.0, -2.0], [2.0, -0.1], [-3.0, 4.0]])
    assert quantization._agreement(found, expected, MultiLabel()) == pytest.approx(2 / 3)
    assert quantization._agreement(found, expected, SINGLE_LABEL) == pytest.approx(2 / 3)
    assert quantization._agreement(expected + 1, expected, None) == 1
    one_worse = torch.stack([expected[:, 0], 0.9 * expected[:, 1]], 1)
    assert quantization._agreement(one_worse, expected, None) == pytest.approx(0.99)


def test_what_cannot_be_quantised_is_refused(model, word_tokenizer, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        quantize(model, "a film", tokenizer=word_tokenizer)
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        quantize(model, [], tokenizer=word_tokenizer)
    with one_line_error(ValueError, "model must have no int8 weights yet (got some)"):
        quantize(int8_copy(model), TEXTS, tokenizer=word_tokenizer)


@pytest.mark.parametrize("labels", [1, 2])
def test_numbers_of_one_text_are_refused_for_they_do_not_vary(tiny_bert, word_tokenizer, one_line_error, labels):
    model = tiny_bert(labels=labels, problem_type="regression")
    with one_line_error(ValueError, "rows must be at least 2 where answers are numbers, for they must vary (got 1)"):
        quantize(model, ["a film"], tokenizer=word_tokenizer)


def test_numbers_that_are_none_do_not_stay():
    expected = torch.tensor([[1.0], [2.0], [float("nan")]])
    assert quantization._agreement(expected, expected, None) == 0
    assert quantization._agreement(expected[:2], expected[:2] * float("nan"), None) == 0


def modes_of(model):
    return {name: module.training for name, module in model.named_modules()}


def test_every_module_keeps_its_mode(tiny_bert, word_tokenizer, one_line_error):
    model = tiny_bert().train()
    model.bert.encoder.layer[0].eval()
    before = modes_of(model)
    found = quantize(model, TEXTS[:20], tokenizer=word_tokenizer)
    assert modes_of(model) == before
    assert not any(modes_of(found).values())
    quantization.quantize_variant(model, TEXTS[:20], word_tokenizer, 16)
    assert modes_of(model) == before
    model.config.problem_type = "regression"
    with one_line_error(ValueError, "rows must be at least 2"):
        quantize(model, TEXTS[:1], tokenizer=word_tokenizer)
    assert modes_of(model) == before


def test_every_module_of_a_model_of_images_keeps_its_mode(tiny_classifier):
    model = make_image_classifier(tiny_classifier, ViTForImageClassification).train()
    quantize(model, make_pictures(4), image_processor=ViTImageProcessorPil(size={"height": 24, "width": 24}))
    assert all(modes_of(model).values())


def test_a_text_without_a_token_is_refused_by_its_place_among_all(tiny_bert, word_tokenizer, one_line_error):
    plain = copy.deepcopy(word_tokenizer)
    plain.backend_tokenizer.post_processor = processors.Sequence([])
    texts = ["a film"] * 1000
    texts[-1] = ""
    with one_line_error(
        TokenlessTextError, "text at place 999 of 1,000 must have at least one token (got none from '')"
    ):
        quantize(tiny_bert(), texts, tokenizer=plain)


def test_of_a_variant_and_a_smaller_model_all_layers_are_quantised(tiny_bert, word_tokenizer, monkeypatch):
    """Whatever becomes of its own answers, which do not count: nothing is left in float32."""
    monkeypatch.setattr(quantization, "_agreement", lambda *_: 0.1)
    model, texts = tiny_bert(), ["the good film", "a bad film", "not bad"] * 5
    small = quantization.quantize_variant(model, texts, word_tokenizer, 20)
    assert describe(small) == "int8: 12 of 12 layers"
    smaller = compress(model, texts, tokenizer=word_tokenizer, width=0.9, epochs=0)
    assert describe(quantize(smaller, texts, tokenizer=word_tokenizer)) == "int8: 12 of 12 layers"
    assert describe(quantize(model, texts, tokenizer=word_tokenizer)).startswith("int8: 0 of 12 layers")
