"""ModernBERT on every backend, on small random models: windows, gates, rotary positions, poolings."""

from __future__ import annotations

import pytest
import torch
from families import (
    assert_float32_is_near,
    assert_int8_is_near,
    assert_packed_is_right,
    assert_reference_is_hugging_faces,
    logits_of,
)
from parity import make_inputs
from transformers import ModernBertForSequenceClassification, pipeline

from moco_rt import EarlyExitTextClassificationModel, LinearCondition, quantize
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

#: Shorter and longer than a window, a block of keys and a tile of queries.
LENGTHS = [17, 1, 33, 40, 2, 64, 129, 200, *range(3, 33)]
CONFIGS = {
    "as published": {},
    "mean": {"classifier_pooling": "mean"},
    "biases": {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
    "narrow window": {"local_attention": 4, "global_attn_every_n_layers": 2},
    "wide window": {"local_attention": 130},
    "other activations": {"hidden_activation": "silu", "classifier_activation": "relu"},
    "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
    "all global": {"global_attn_every_n_layers": 1},
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(dtype=torch.float32, ...)`: a random model of four layers, one of three global."""

    def make(dtype=torch.float32, **config):
        sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 48}
        settings = {"local_attention": 16, "max_position_embeddings": 256, "pad_token_id": 0, "num_labels": 3}
        tokens = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
        settings |= sizes | tokens | {"norm_eps": 1e-2, "initializer_cutoff_factor": 3.0} | config
        return tiny_classifier(ModernBertForSequenceClassification, dtype=dtype, **settings)

    return make


@every_config
def test_packed_logits_are_within_twice_the_error_of_hugging_faces(make_model, packed_dtype, config):
    assert_packed_is_right(make_model(packed_dtype, **config), make_inputs(LENGTHS))


@every_config
def test_float32_is_within_1e_4_with_the_same_labels(make_model, config):
    assert_float32_is_near(make_model(**config), make_inputs(LENGTHS))


@every_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_reference_logits_are_hugging_faces_to_the_bit(make_model, dtype, config):
    assert_reference_is_hugging_faces(make_model(dtype, **config), make_inputs(LENGTHS))


@every_config
def test_int8_is_as_near_as_its_own_modules_say(make_model, config):
    assert_int8_is_near(make_model(**config), make_inputs(LENGTHS))


@every_config
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_rows_bits_do_not_depend_on_its_batch(make_model, config, form):
    model = make_model(**config)
    fast = EarlyExitTextClassificationModel(int8_copy(model) if form == "int8" else model)
    inputs = make_inputs(LENGTHS)
    together = fast(**inputs).logits
    for row, length in enumerate(LENGTHS):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        assert torch.equal(fast(**alone).logits[0], together[row])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("site", ["embeddings", "encoder.1.attention", "encoder.1.output", "encoder.3.attention"])
@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_rows_leave_where_the_reference_lets_them_leave(make_model, pooling, site, feature):
    model = make_model(classifier_pooling=pooling)
    inputs = make_inputs(LENGTHS)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    outputs = []
    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        fast.add_rule(LinearCondition(weight, 0.0, 0.0, feature=feature, bound=0.01), 1, site)
        outputs.append(fast(**inputs))
    assert torch.equal(outputs[0].exit_site, outputs[1].exit_site)
    assert 0 < (outputs[0].exit_site >= 0).sum() < len(LENGTHS)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)


def test_a_layers_own_path_names_its_site(make_model):
    architecture = architecture_of(make_model())
    assert architecture.module_paths["model.embeddings"] == "embeddings"
    assert architecture.module_paths["model.layers.2"] == "encoder.2.output"


def ropes(**settings):
    """The same rotary positions for both types of layers."""
    rope = {"rope_theta": 10000.0, **settings}
    return {"full_attention": rope, "sliding_attention": rope}


def test_rotary_positions_may_be_scaled(make_model):
    model = make_model(rope_parameters=ropes(rope_type="linear", factor=2.0))
    inputs = make_inputs(LENGTHS)
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-4, rtol=0)


def test_rotary_positions_that_change_with_the_batch_are_refused(make_model, one_line_error):
    model = make_model(rope_parameters=ropes(rope_type="dynamic", factor=2.0))
    with one_line_error(ValueError, "rotary positions must be the same in every batch (got rope_type dynamic)"):
        EarlyExitTextClassificationModel(model, backend="packed")
    assert EarlyExitTextClassificationModel(model).backend == "reference"


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_saved_model_loads_to_the_same_bits_with_its_exits(make_model, tmp_path, form):
    model = make_model()
    fast = EarlyExitTextClassificationModel(int8_copy(model) if form == "int8" else model)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 0.0, bound=0.01), 1, "encoder.1.output")
    fast.save_pretrained(tmp_path)
    again = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    inputs = make_inputs(LENGTHS)
    expected, found = fast(**inputs), again(**inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.exit_site, expected.exit_site)
    assert (found.exit_site >= 0).any()


def test_it_is_quantised_by_texts_and_answers_in_a_pipeline(make_model, word_tokenizer):
    model = make_model()
    texts = ["good film", "a bad film but good", "the film was not bad but not good", "a"] * 8
    small = quantize(model, texts, tokenizer=word_tokenizer)
    fast = EarlyExitTextClassificationModel(small)
    assert fast.backend == "packed"
    answers = pipeline("text-classification", model=fast, tokenizer=word_tokenizer)(texts[:4])
    assert [answer["label"] for answer in answers] == [
        small.config.id2label[label] for label in fast.predict(texts[:4], tokenizer=word_tokenizer).labels.tolist()
    ]
