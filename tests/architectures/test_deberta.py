"""DeBERTa of the first version on every backend, on small random models: attention to positions, its own LayerNorm."""

from __future__ import annotations

import torch
from family_tests import FamilyTests, RefusalTests
from transformers import DebertaForSequenceClassification


class TestDeberta(FamilyTests, RefusalTests):
    kind = DebertaForSequenceClassification
    settings = {
        "layer_norm_eps": 1e-2,
        "pos_att_type": ["c2p", "p2c"],
        "relative_attention": True,
        "position_biased_input": False,
    }
    configs = {
        "as published": {},
        "contents to positions": {"pos_att_type": ["c2p"]},
        "positions to contents": {"pos_att_type": "p2c"},
        "to contents only": {"pos_att_type": []},
        "fewer distances than positions": {"max_relative_positions": 20},
        "tables of positions and types": {"position_biased_input": True, "type_vocab_size": 2},
        "narrow embeddings": {"embedding_size": 18},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "other activations": {"hidden_act": "relu", "pooler_hidden_act": "tanh"},
    }
    pairs = True
    paths = {"deberta.embeddings": "embeddings", "deberta.encoder.layer.1.output": "encoder.1.output"}
    refusals = (
        ({"talking_head": True}, "config.talking_head must be False (got True)"),
        ({"relative_attention": False}, "config.relative_attention must be True (got False)"),
        ({"pos_att_type": ["c2p", "p2p"]}, "config.pos_att_type must be c2p, p2c or both (got ['c2p', 'p2p'])"),
    )

    def changed(self, model):
        """Biases of queries and values that are not 0, and weights of its LayerNorm that are not 1."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, parameter in model.named_parameters():
                if name.endswith(("q_bias", "v_bias")):
                    parameter.normal_(std=0.2)
                elif name.endswith("LayerNorm.weight"):
                    parameter.uniform_(0.5, 1.5)
        return model
