"""DeBERTa-v2 and v3 on every backend, on small random models: attention to positions."""

from __future__ import annotations

from family_tests import FamilyTests, RefusalTests
from transformers import DebertaV2ForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel


class TestDebertaV2(FamilyTests, RefusalTests):
    kind = DebertaV2ForSequenceClassification
    settings = {
        "layer_norm_eps": 1e-2,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    configs = {
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
    pairs = True
    paths = {"deberta.embeddings": "embeddings", "deberta.encoder.layer.1.output": "encoder.1.output"}
    refusals = (
        ({"conv_kernel_size": 3}, "config.conv_kernel_size must be 0 (got 3)"),
        ({"relative_attention": False}, "config.relative_attention must be True (got False)"),
    )

    def test_layers_that_are_run_again_are_refused(self, make_model, one_line_error):
        model = make_model()
        model.deberta.z_steps = 2
        with one_line_error(ValueError, "deberta.z_steps must be 0"):
            EarlyExitTextClassificationModel(model, backend="packed")
        assert EarlyExitTextClassificationModel(model).backend == "whole"
