"""ModernBERT on every backend, on small random models: windows, gates, rotary positions, poolings."""

from __future__ import annotations

from family_tests import FamilyTests
from transformers import ModernBertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel


def ropes(**settings):
    """The same rotary positions for both types of layers."""
    rope = {"rope_theta": 10000.0, **settings}
    return {"full_attention": rope, "sliding_attention": rope}


class TestModernBert(FamilyTests):
    """Of four layers every third is global, by default."""

    kind = ModernBertForSequenceClassification
    settings = {
        "num_hidden_layers": 4,
        "local_attention": 16,
        "norm_eps": 1e-2,
        "initializer_cutoff_factor": 3.0,
        "pad_token_id": 0,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    configs = {
        "as published": {},
        "mean": {"classifier_pooling": "mean"},
        "biases": {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
        "narrow window": {"local_attention": 4, "global_attn_every_n_layers": 2},
        "wide window": {"local_attention": 130},
        "other activations": {"hidden_activation": "silu", "classifier_activation": "relu"},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "all global": {"global_attn_every_n_layers": 1},
        "scaled positions": {"rope_parameters": ropes(rope_type="linear", factor=2.0)},
    }
    leaving = ("as published", "mean")
    sites = ("embeddings", "encoder.1.attention", "encoder.1.output", "encoder.3.attention")
    paths = {"model.embeddings": "embeddings", "model.layers.2": "encoder.2.output"}

    def test_rotary_positions_that_change_with_the_batch_are_refused(self, make_model, one_line_error):
        model = make_model(rope_parameters=ropes(rope_type="dynamic", factor=2.0))
        with one_line_error(ValueError, "rotary positions must be the same in every batch (got rope_type dynamic)"):
            EarlyExitTextClassificationModel(model, backend="packed")
        assert EarlyExitTextClassificationModel(model).backend == "reference"
