"""Decoders on every backend, on small random models: causal and local attention, shared keys, gates, the last token."""

from __future__ import annotations

import pytest
import torch
from families import assert_int8_is_near, assert_packed_is_right, assert_reference_is_hugging_faces, logits_of
from parity import make_inputs
from transformers import (
    GemmaForSequenceClassification,
    LlamaForSequenceClassification,
    MistralForSequenceClassification,
    Qwen2ForSequenceClassification,
    Qwen3ForSequenceClassification,
    pipeline,
)

from moco_rt import EarlyExitTextClassificationModel, LinearCondition, quantize
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

#: Shorter and longer than a window, a block of keys and a tile of queries.
LENGTHS = [17, 1, 33, 40, 2, 64, 129, 200, *range(3, 33)]
MODELS = {
    "llama": (LlamaForSequenceClassification, {}),
    "llama with biases": (LlamaForSequenceClassification, {"attention_bias": True, "mlp_bias": True}),
    "llama, one head of keys": (LlamaForSequenceClassification, {"num_key_value_heads": 1}),
    "llama, a head for each": (LlamaForSequenceClassification, {"num_key_value_heads": 4, "hidden_act": "gelu"}),
    "odd sizes": (
        LlamaForSequenceClassification,
        {"hidden_size": 30, "num_attention_heads": 6, "head_dim": 6, "intermediate_size": 46},
    ),
    "mistral": (MistralForSequenceClassification, {"sliding_window": 20}),
    "mistral, all": (MistralForSequenceClassification, {"sliding_window": None, "head_dim": 12}),
    "qwen2": (
        Qwen2ForSequenceClassification,
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen3": (Qwen3ForSequenceClassification, {"head_dim": 16}),
    "gemma": (GemmaForSequenceClassification, {"head_dim": 16, "hidden_act": "gelu_pytorch_tanh"}),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(name, dtype=torch.float32, ...)`: a random model of three layers."""

    def make(name="llama", dtype=torch.float32, **config):
        family, special = MODELS[name]
        sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 48}
        settings = {"num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "num_labels": 8}
        tokens = {"bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-2}
        return tiny_classifier(family, dtype=dtype, **(settings | sizes | tokens | special | config))

    return make


def padded_on_the_left(inputs):
    """The same rows, each as long as the longest by padding before it."""
    behind = inputs["attention_mask"].shape[1] - inputs["attention_mask"].sum(1)
    return {
        name: torch.stack([row.roll(int(by)) for row, by in zip(inputs[name], behind, strict=True)])
        for name in ("input_ids", "attention_mask")
    }


@every_model
def test_packed_logits_are_within_twice_the_error_of_hugging_faces(make_model, packed_dtype, name):
    assert_packed_is_right(make_model(name, packed_dtype), make_inputs(LENGTHS))


@every_model
def test_float32_is_within_1e_4_with_the_same_labels_padded_on_either_side(make_model, name):
    model = make_model(name)
    inputs = make_inputs(LENGTHS)
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    left = padded_on_the_left(inputs)
    expected, found = logits_of(model, inputs), fast(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, logits_of(model, left), atol=1e-4, rtol=0)
    assert torch.equal(fast(**left).logits, found)


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_reference_logits_are_hugging_faces_to_the_bit(make_model, dtype, name):
    assert_reference_is_hugging_faces(make_model(name, dtype), make_inputs(LENGTHS))


@every_model
def test_int8_is_as_near_as_its_own_modules_say(make_model, name):
    assert_int8_is_near(make_model(name), make_inputs(LENGTHS))


@every_model
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_rows_bits_do_not_depend_on_its_batch(make_model, name, form):
    model = make_model(name)
    fast = EarlyExitTextClassificationModel(int8_copy(model) if form == "int8" else model)
    inputs = make_inputs(LENGTHS)
    together = fast(**inputs).logits
    for row, length in enumerate(LENGTHS):
        alone = {key: tensor[row : row + 1, :length] for key, tensor in inputs.items()}
        assert torch.equal(fast(**alone).logits[0], together[row])


@every_model
@pytest.mark.parametrize("site", ["embeddings", "encoder.1.attention", "encoder.1.output", "encoder.2.attention"])
@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_rows_leave_where_the_reference_lets_them_leave(make_model, name, site, feature):
    model = make_model(name)
    inputs = make_inputs(LENGTHS)
    weight = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0)).numpy()
    outputs = []
    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        fast.add_rule(LinearCondition(weight, 0.0, 0.0, feature=feature, bound=0.01), 1, site)
        outputs.append(fast(**inputs))
    assert torch.equal(outputs[0].exit_site, outputs[1].exit_site)
    assert 0 < (outputs[0].exit_site >= 0).sum() < len(LENGTHS)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_a_row_ends_where_hugging_face_pools_it(make_model, backend):
    """At the last token that is not padding's, also where the mask says that padding's token is real."""
    model = make_model(pad_token_id=2)
    ids = torch.tensor([[5, 6, 7, 2, 2], [5, 2, 7, 8, 2], [2, 2, 5, 6, 2], [9, 8, 7, 6, 5]])
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    for mask in (torch.ones_like(ids), torch.tensor([[1] * 4 + [0], [1] * 5, [0, 0, 1, 1, 1], [1] * 5])):
        inputs = {"input_ids": ids, "attention_mask": mask}
        torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-5, rtol=0)


def test_without_a_padding_token_rows_end_where_the_mask_says(make_model):
    model = make_model(pad_token_id=None)
    inputs = make_inputs([7, 3])
    fast = EarlyExitTextClassificationModel(model)
    for row, length in enumerate([7, 3]):
        alone = {key: tensor[row : row + 1, :length] for key, tensor in inputs.items()}
        torch.testing.assert_close(fast(**inputs).logits[row], logits_of(model, alone)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_a_mask_with_a_hole_is_refused(make_model, backend, one_line_error):
    fast = EarlyExitTextClassificationModel(make_model(), backend=backend)
    with one_line_error(ValueError, "attention_mask must be right-padded"):
        fast(torch.tensor([[0, 5, 6, 7]]), torch.tensor([[0, 1, 0, 1]]))


def test_a_layers_own_path_names_its_site(make_model):
    architecture = architecture_of(make_model())
    assert architecture.module_paths["model.embed_tokens"] == "embeddings"
    assert architecture.module_paths["model.layers.2"] == "encoder.2.output"


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_saved_model_loads_to_the_same_bits_with_its_exits(make_model, tmp_path, name, form):
    model = make_model(name)
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


@pytest.mark.parametrize("side", ["right", "left"])
def test_it_is_quantised_by_texts_and_answers_in_a_pipeline(make_model, word_tokenizer, monkeypatch, side):
    model = make_model()
    monkeypatch.setattr(word_tokenizer, "padding_side", side)  # it is everybody's
    texts = ["good film", "a bad film but good", "the film was not bad but not good", "a"] * 8
    small = quantize(model, texts, tokenizer=word_tokenizer)
    fast = EarlyExitTextClassificationModel(small)
    assert fast.backend == "packed"
    answers = pipeline("text-classification", model=fast, tokenizer=word_tokenizer)(texts[:4], batch_size=4)
    assert [answer["label"] for answer in answers] == [
        small.config.id2label[label] for label in fast.predict(texts[:4], tokenizer=word_tokenizer).labels.tolist()
    ]
