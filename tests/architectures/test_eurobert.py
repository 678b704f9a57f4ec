"""EuroBERT on every backend, on small random models: three poolings, keys that heads share, gates."""

from __future__ import annotations

from family_tests import FamilyTests
from transformers import EuroBertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel


class TestEuroBert(FamilyTests):
    kind = EuroBertForSequenceClassification
    settings = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mask_token_id": 3,
    }
    configs = {
        "as published": {},
        "first token": {"classifier_pooling": "bos"},
        "mean": {"classifier_pooling": "mean"},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "one head of keys": {"num_key_value_heads": 1},
        "a head for each": {"num_key_value_heads": None, "hidden_act": "gelu"},
        "odd sizes": {
            "hidden_size": 30,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 6,
            "intermediate_size": 46,
        },
        "wide heads": {"head_dim": 24},
        "scaled positions": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    }
    leaving = ("as published", "first token", "mean")
    paths = {"model.embed_tokens": "embeddings", "model.layers.2": "encoder.2.output"}

    def test_another_pooling_is_refused(self, make_model, one_line_error):
        model = make_model()
        model.config.classifier_pooling = "max"
        with one_line_error(ValueError, "config.classifier_pooling must be one of bos, mean, late (got max)"):
            EarlyExitTextClassificationModel(model, backend="packed")
