"""Gemma 2 and 3 on every backend, on small random models: norms behind sub-layers, scores with a scale of their own."""

from __future__ import annotations

from family_tests import DecoderTests, RefusalTests
from parity import make_inputs
from transformers import Gemma2ForSequenceClassification, Gemma3TextForSequenceClassification

BIDIRECTIONAL = ({"use_bidirectional_attention": True}, "config.use_bidirectional_attention must be False (got True)")
CAPPED = ({"attn_logit_softcapping": 50.0}, "config.attn_logit_softcapping must be None (got 50.0)")
OPTIONS = {
    "biases": {"attention_bias": True},
    "one head of keys": {"num_key_value_heads": 1},
    "a head for each": {"num_key_value_heads": 4, "hidden_activation": "silu"},
    "odd sizes": {"hidden_size": 30, "num_attention_heads": 6, "head_dim": 6, "intermediate_size": 46},
    "scores with the usual scale": {"query_pre_attn_scalar": 16},
    "sharp scores": {"query_pre_attn_scalar": 1},
    "all global": {"layer_types": ["full_attention"] * 3},
    "all in windows": {"layer_types": ["sliding_attention"] * 3, "sliding_window": 20},
}


class TestGemma2(DecoderTests, RefusalTests):
    kind = Gemma2ForSequenceClassification
    settings = DecoderTests.settings | {
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": 7,
        "attn_logit_softcapping": None,
    }
    configs = {"without a cap": {}, **OPTIONS}
    refusals = (CAPPED, BIDIRECTIONAL)

    @property
    def inputs(self):
        """Rows of nearly one length: in float64 Hugging Face's own logits are NaN where a window is all padding."""
        return make_inputs(range(33, 40))


class TestGemma3(DecoderTests, RefusalTests):
    kind = Gemma3TextForSequenceClassification
    settings = DecoderTests.settings | {
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    configs = {
        "as published": {},
        **OPTIONS,
        "scaled positions": {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            }
        },
    }
    refusals = (CAPPED, BIDIRECTIONAL)
