"""NomicBERT and GTE on every backend, on small random models: rotary positions and gates in BERT's layers."""

from __future__ import annotations

from family_tests import FamilyTests
from transformers import GteForSequenceClassification, NomicBertForSequenceClassification

ROTARY = {"rope_theta": 100.0}


class TestNomicBert(FamilyTests):
    kind = NomicBertForSequenceClassification
    settings = {"layer_norm_eps": 1e-2, "pad_token_id": 0}
    configs = {
        "as published": {},
        "another activation": {"hidden_act": "gelu"},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "wide heads": {"head_dim": 24},
        "more types": {"type_vocab_size": 4},
        "scaled positions": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **ROTARY}},
    }
    pairs = True
    paths = {"nomic_bert.embeddings": "embeddings", "nomic_bert.layers.2": "encoder.2.output"}


class TestGte(FamilyTests):
    kind = GteForSequenceClassification
    settings = {"layer_norm_eps": 1e-2, "pad_token_id": 0, "type_vocab_size": 2}
    configs = {
        "as published": {},
        "no types": {"type_vocab_size": 0},
        "another activation": {"hidden_act": "relu"},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "scaled positions": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **ROTARY}},
    }
    pairs = True
    paths = {"gte.embeddings": "embeddings", "gte.layers.2": "encoder.2.output"}
