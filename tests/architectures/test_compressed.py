"""Narrower models: heads and neurons that differ from layer to layer, on every backend, saved and loaded."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from families import LENGTHS as ROWS
from families import (
    assert_a_saved_model_loads_to_the_same_bits,
    assert_float32_is_near,
    assert_reference_is_hugging_faces,
    assert_rows_keep_their_bits,
    assert_rows_leave_alike,
)
from family_tests import FamilyTests, in_form
from parity import make_inputs
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
)

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.analysis.capture import capture
from moco_rt.architectures import architecture_of
from moco_rt.architectures.compressed.layers import Widths, layer_parts, product_weights, resize
from moco_rt.architectures.compressed.model import CompressedConfig, CompressedForSequenceClassification
from moco_rt.architectures.conversion import int8_copy
from moco_rt.compression.narrowing import smaller
from moco_rt.inputs.tokenization import encode
from moco_rt.studies.recording import record

#: No multiple of a vector's width, and even: bfloat16 is multiplied in pairs.
WIDTHS = Widths(heads=(1, 2, 1), neurons=(48, 16, 30))


def narrower(model, widths=WIDTHS):
    """A model of these widths, with some of the weights of another."""
    made, own = smaller(model, widths), model.state_dict()
    with torch.no_grad():
        for name, weight in made.model.state_dict().items():
            weight.copy_(own[name][tuple(slice(size) for size in weight.shape)])
    return made


class TestNarrower(FamilyTests):
    kind = BertForSequenceClassification
    settings = {"layer_norm_eps": 1e-2}
    configs = {
        "BERT": {},
        "RoBERTa": {"kind": RobertaForSequenceClassification, "pad_token_id": 1},
        "DistilBERT": {"kind": DistilBertForSequenceClassification, "dim": 32, "n_heads": 2, "hidden_dim": 48},
        "ELECTRA": {"kind": ElectraForSequenceClassification, "embedding_size": 32},
    }
    folds_keys = True
    paths = {"model.bert.embeddings": "embeddings", "model.bert.encoder.layer.1.output": "encoder.1.output"}

    def changed(self, model):
        return narrower(model)


LENGTHS = (0.7, 0.4, 0.4)


class TestShorter:
    """Rows become shorter on their way, in narrower models too."""

    @pytest.fixture(params=["narrower", "as wide"])
    def shorter(self, request, tiny_bert):
        model = tiny_bert(layers=3, hidden=32, heads=2, intermediate_size=48, labels=3, max_position_embeddings=256)
        made = narrower(model, WIDTHS if request.param == "narrower" else Widths.of(model))
        made.config.lengths = list(LENGTHS)
        return made

    @pytest.fixture
    def longer(self, shorter):
        """The same without lengths."""
        made = copy.deepcopy(shorter)
        made.config.lengths = []
        return made

    def test_tokens_are_left_out(self, shorter, longer):
        inputs = make_inputs(ROWS)
        assert (shorter(**inputs).logits - longer(**inputs).logits).abs().max() > 1e-3
        states = shorter(**inputs, output_hidden_states=True).hidden_states
        longest = max(ROWS)
        assert [state.shape[1] for state in states] == [longest, *(math.ceil(share * longest) for share in LENGTHS)]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_the_reference_answers_as_its_own_forward(self, shorter, dtype):
        assert_reference_is_hugging_faces(shorter.to(dtype), make_inputs(ROWS))

    def test_the_kernels_answer_as_its_own_forward(self, shorter):
        assert_float32_is_near(shorter, make_inputs(ROWS))
        pairs = make_inputs(ROWS, pairs=True)
        assert_float32_is_near(shorter, pairs)

    @pytest.mark.parametrize("form", ["float32", "int8"])
    def test_a_rows_bits_do_not_depend_on_its_batch(self, shorter, form):
        assert_rows_keep_their_bits(in_form(shorter, form))

    def test_int8_answers_nearly_as_float32(self, shorter):
        inputs = make_inputs(ROWS)
        found = EarlyExitTextClassificationModel(int8_copy(shorter))(**inputs).logits
        assert (found - shorter(**inputs).logits).abs().median() < 0.1

    @pytest.mark.parametrize("site", ["embeddings", "encoder.1.attention", "encoder.1.output", "encoder.2.attention"])
    @pytest.mark.parametrize("feature", ["cls", "mean"])
    def test_rows_leave_where_the_reference_lets_them_leave(self, shorter, site, feature):
        assert_rows_leave_alike(shorter, site, feature)

    def test_captured_features_are_those_that_exits_see(self, shorter, word_tokenizer):
        """Of the tokens that are left, on the way and at the end."""
        texts = ["the good film was not bad", "a film", "bad bad but the film was good good good"]
        sites = ["encoder.1.attention", "encoder.2.attention"]
        frame = capture(shorter, word_tokenizer, texts, sites=sites)
        recorded = record(EarlyExitTextClassificationModel(shorter), encode(word_tokenizer, texts, 64), sites)
        for site in sites:
            np.testing.assert_allclose(frame[f"{site}.cls"], recorded.feature(site, "cls"), atol=1e-5)
        np.testing.assert_allclose(frame["logits"], recorded.logits, atol=1e-5)

    def test_it_is_saved_with_its_exits(self, shorter, tmp_path):
        assert_a_saved_model_loads_to_the_same_bits(shorter, tmp_path, "encoder.1.output")

    def test_transformers_loads_its_lengths(self, shorter, tmp_path):
        shorter.save_pretrained(tmp_path)
        loaded, inputs = AutoModelForSequenceClassification.from_pretrained(tmp_path), make_inputs(ROWS)
        assert torch.equal(loaded(**inputs).logits, shorter(**inputs).logits)

    def test_shares_that_rise_are_refused(self, shorter, one_line_error):
        for lengths in ([0.5, 0.6, 0.5], [0.5, 0, 0], [1.2, 1, 1]):
            with one_line_error(ValueError, "lengths must be shares above 0 and at most 1 that never rise"):
                CompressedConfig(shorter.config.base_config, (1, 2, 1), (48, 16, 31), lengths)
        with one_line_error(ValueError, "lengths must be one for each of 3 layers (got 2)"):
            CompressedConfig(shorter.config.base_config, (1, 2, 1), (48, 16, 31), [0.5, 0.5])


@pytest.fixture
def narrow(tiny_bert):
    return narrower(tiny_bert(layers=3, hidden=32, heads=2, intermediate_size=48, labels=3))


def test_an_odd_number_of_neurons_runs_in_float32(tiny_bert):
    model = narrower(
        tiny_bert(layers=3, hidden=32, heads=2, intermediate_size=48), Widths(heads=(1, 2, 1), neurons=(48, 16, 31))
    )
    inputs = make_inputs([5, 3])
    packed = EarlyExitTextClassificationModel(model, backend="packed")
    torch.testing.assert_close(packed(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_a_models_own_widths_change_nothing(tiny_bert):
    model = tiny_bert(layers=3, hidden=32, heads=2, intermediate_size=48)
    widths = Widths.of(model)
    assert widths == Widths((2, 2, 2), (48, 48, 48))
    same, inputs = narrower(model, widths), make_inputs([5, 3])
    assert torch.equal(same(**inputs).logits, model(**inputs).logits)


def test_widths_are_read_off_the_weights(narrow):
    assert Widths.of(narrow.model) == WIDTHS == narrow.config.widths
    assert product_weights(WIDTHS, 32, 16) == 32 * (4 * 64 + 2 * 94)


def test_its_configuration_is_that_of_the_model_it_was_made_from(narrow):
    config = narrow.config
    assert (config.num_labels, config.hidden_size, config.max_position_embeddings) == (3, 32, 64)
    assert config.hidden_act == "gelu"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        config.nothing_of_the_kind  # noqa: B018


def test_transformers_loads_it_to_the_same_bits(narrow, tmp_path):
    narrow.save_pretrained(tmp_path)
    loaded, inputs = AutoModelForSequenceClassification.from_pretrained(tmp_path), make_inputs([5, 3])
    assert type(loaded) is CompressedForSequenceClassification
    assert torch.equal(loaded(**inputs).logits, narrow(**inputs).logits)
    assert loaded.config.to_dict()["base_config"]["model_type"] == "bert"


def test_hidden_states_and_attentions_are_given(narrow):
    found = narrow(**make_inputs([5, 3]), output_hidden_states=True)
    assert [state.shape for state in found.hidden_states] == [(2, 5, 32)] * 4


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("version", 2, "the configuration of a smaller model must be of version 1 (got 2)"),
        ("heads", [1, 0, 1], "heads must be whole numbers from 1 on (got [1, 0, 1])"),
        ("neurons", [16, 16, 1.5], "neurons must be whole numbers from 1 on (got [16, 16, 1.5])"),
        ("heads", [1, 2], "widths must be given for each of 3 layers (got 2 numbers of heads and 3 of neurons)"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(narrow, tmp_path, one_line_error, entry, value, words):
    narrow.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))
    with one_line_error(ValueError, words):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_family_that_cannot_be_narrower_is_refused(tiny_classifier, one_line_error):
    model = tiny_classifier(MPNetForSequenceClassification, hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    with one_line_error(ValueError, "model must be of a type that can be made narrower: bert, camembert, distilbert"):
        layer_parts(model)


def test_too_few_widths_are_refused(tiny_bert, one_line_error):
    with one_line_error(ValueError, "widths must be given for each of 2 layers"):
        resize(tiny_bert(), Widths((1,), (16,)))


def test_a_hook_is_not_passed_by(narrow, one_line_error):
    narrow.register_forward_hook(lambda *_: None)
    with one_line_error(ValueError, "model must have no hooks"):
        architecture_of(narrow)
    assert EarlyExitTextClassificationModel(narrow).backend == "whole"


def test_a_configuration_without_a_model_can_be_made():
    assert CompressedConfig().widths == Widths((), ())
