"""ALBERT on every backend, on small random models: layers that share their weights, narrow embeddings."""

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
)
from parity import make_inputs
from transformers import AlbertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import describe, int8_copy

CONFIGS = {
    "as published": {},
    "two groups": {"num_hidden_layers": 4, "num_hidden_groups": 2},
    "groups of two": {"num_hidden_groups": 3, "inner_group_num": 2},
    "wide embeddings": {"embedding_size": 32},
    "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
    "another activation": {"hidden_act": "silu"},
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(dtype=torch.float32, ...)`: a random model of three layers."""

    def make(dtype=torch.float32, **config):
        sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
        settings = {"max_position_embeddings": 256, "num_labels": 3, "layer_norm_eps": 1e-2, "embedding_size": 18}
        return tiny_classifier(AlbertForSequenceClassification, dtype=dtype, **{**sizes, **settings, **config})

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


def test_a_layer_that_is_run_several_times_is_one(make_model):
    """Its linear layers are listed once, and its own path names no site."""
    model = make_model(num_hidden_layers=6)
    architecture = architecture_of(model)
    assert architecture.num_layers == 6
    assert len([name for together in architecture.linear_groups() for name in together]) == 6
    assert describe(int8_copy(model)) == "int8: 6 of 6 layers"
    assert architecture.module_paths == {"albert.encoder.embedding_hidden_mapping_in": "embeddings"}
    many = make_model(num_hidden_groups=3, inner_group_num=2)
    paths = architecture_of(many).module_paths
    assert paths["albert.encoder.albert_layer_groups.1.albert_layers.0"] == "encoder.2.output"


def test_another_layer_in_a_group_is_refused(make_model, one_line_error):
    model = make_model()
    model.albert.encoder.albert_layer_groups[0].forward = lambda hidden, *_, **__: hidden
    with one_line_error(ValueError, "albert.encoder.albert_layer_groups.0.forward must be the class's own"):
        EarlyExitTextClassificationModel(model, backend="packed")
    assert EarlyExitTextClassificationModel(model).backend == "whole"
