"""DeBERTa-v2 and v3 on every backend, on small random models: attention to positions."""

from __future__ import annotations

import pytest
import torch
from families import (
    LENGTHS,
    assert_a_saved_model_loads_to_the_same_bits,
    assert_float32_is_near,
    assert_int8_is_near,
    assert_it_is_quantised_and_answers_in_a_pipeline,
    assert_packed_is_right,
    assert_reference_is_hugging_faces,
    assert_rows_keep_their_bits,
    assert_rows_leave_alike,
    logits_of,
)
from parity import make_inputs
from transformers import DebertaV2ForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

CONFIGS = {
    "as v3": {},
    "keys and queries of positions": {"share_att_key": False},
    "contents to positions": {"pos_att_type": ["c2p"]},
    "positions to contents": {"pos_att_type": "p2c", "share_att_key": False},
    "to contents only": {"pos_att_type": []},
    "no buckets": {"position_buckets": -1},
    "fewer distances than positions": {"position_buckets": -1, "max_relative_positions": 20},
    "few buckets": {"position_buckets": 6, "max_relative_positions": 40},
    "positions without norm": {"norm_rel_ebd": "none"},
    "tables of positions and types": {"position_biased_input": True, "type_vocab_size": 2},
    "narrow embeddings": {"embedding_size": 18, "position_biased_input": True, "type_vocab_size": 2},
    "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
    "other activations": {"hidden_act": "relu", "pooler_hidden_act": "tanh"},
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(dtype=torch.float32, ...)`: a random model of three layers."""

    def make(dtype=torch.float32, **config):
        sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
        settings = {"max_position_embeddings": 256, "num_labels": 3, "layer_norm_eps": 1e-2}
        settings |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 32}
        settings |= {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
        return tiny_classifier(DebertaV2ForSequenceClassification, dtype=dtype, **{**sizes, **settings, **config})

    return make


@every_config
def test_packed_logits_are_within_twice_the_error_of_hugging_faces(make_model, packed_dtype, config):
    assert_packed_is_right(make_model(packed_dtype, **config), make_inputs(LENGTHS, pairs=True))


@every_config
def test_float32_is_within_1e_4_with_the_same_labels(make_model, config):
    assert_float32_is_near(make_model(**config), make_inputs(LENGTHS, pairs=True))


@every_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_reference_logits_are_hugging_faces_to_the_bit(make_model, dtype, config):
    assert_reference_is_hugging_faces(make_model(dtype, **config), make_inputs(LENGTHS, pairs=True))


@every_config
def test_int8_is_as_near_as_its_own_modules_say(make_model, config):
    assert_int8_is_near(make_model(**config), make_inputs(LENGTHS, pairs=True))


@every_config
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_rows_bits_do_not_depend_on_its_batch(make_model, config, form):
    model = make_model(**config)
    assert_rows_keep_their_bits(int8_copy(model) if form == "int8" else model)


@pytest.mark.parametrize("site", ["embeddings", "encoder.1.attention", "encoder.1.output", "encoder.2.attention"])
@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_rows_leave_where_the_reference_lets_them_leave(make_model, site, feature):
    assert_rows_leave_alike(make_model(), site, feature)


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_saved_model_loads_to_the_same_bits_with_its_exits(make_model, tmp_path, form):
    model = make_model()
    assert_a_saved_model_loads_to_the_same_bits(
        int8_copy(model) if form == "int8" else model, tmp_path, "encoder.1.output"
    )


def test_it_is_quantised_by_texts_and_answers_in_a_pipeline(make_model, word_tokenizer):
    assert_it_is_quantised_and_answers_in_a_pipeline(make_model(), word_tokenizer)


def test_no_layer_is_peeked_at(make_model):
    """Keys that depend on the distance cannot be folded into the query."""
    encoder = architecture_of(make_model()).encoder(torch.float32)
    assert [encoder.can_peek(layer) for layer in range(3)] == [False] * 3


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_rows_of_max_seqlen_fit_and_longer_ones_are_refused(make_model, one_line_error, backend):
    model = make_model(max_position_embeddings=100)
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    assert fast.max_seqlen == 100
    torch.testing.assert_close(
        fast(**make_inputs([100, 3])).logits, logits_of(model, make_inputs([100, 3])), atol=1e-5, rtol=0
    )
    with one_line_error(ValueError, "input_ids must have at most 100 tokens (got 101)"):
        fast(**make_inputs([101]))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"conv_kernel_size": 3}, "config.conv_kernel_size must be 0 (got 3)"),
        ({"relative_attention": False}, "config.relative_attention must be True (got False)"),
    ],
)
def test_what_the_kernels_do_not_have_is_refused(make_model, one_line_error, config, reason):
    model = make_model(**config)
    with one_line_error(ValueError, reason):
        EarlyExitTextClassificationModel(model, backend="packed")
    fast = EarlyExitTextClassificationModel(model)
    assert fast.backend == "whole"
    inputs = make_inputs(LENGTHS)
    assert torch.equal(fast(**inputs).logits, logits_of(model, inputs))


def test_layers_that_are_run_again_are_refused(make_model, one_line_error):
    model = make_model()
    model.deberta.z_steps = 2
    with one_line_error(ValueError, "deberta.z_steps must be 0"):
        EarlyExitTextClassificationModel(model, backend="packed")
    assert EarlyExitTextClassificationModel(model).backend == "whole"
