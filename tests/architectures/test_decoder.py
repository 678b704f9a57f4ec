"""Decoders on every backend, on small random models: causal and local attention, shared keys, gates, the last token."""

from __future__ import annotations

import torch
from families import logits_of
from family_tests import DecoderTests, both_backends
from parity import make_inputs
from transformers import (
    GemmaForSequenceClassification,
    LlamaForSequenceClassification,
    MistralForSequenceClassification,
    Qwen2ForSequenceClassification,
    Qwen3ForSequenceClassification,
    SmolLM3ForSequenceClassification,
)

from moco_rt import EarlyExitTextClassificationModel


class TestDecoder(DecoderTests):
    kind = LlamaForSequenceClassification
    configs = {
        "llama": {},
        "llama with biases": {"attention_bias": True, "mlp_bias": True},
        "llama, one head of keys": {"num_key_value_heads": 1},
        "llama, a head for each": {"num_key_value_heads": 4, "hidden_act": "gelu"},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 6, "head_dim": 6, "intermediate_size": 46},
        "mistral": {"kind": MistralForSequenceClassification, "sliding_window": 20},
        "mistral, all": {"kind": MistralForSequenceClassification, "sliding_window": None, "head_dim": 12},
        "qwen2": {
            "kind": Qwen2ForSequenceClassification,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 2,
        },
        "qwen3": {"kind": Qwen3ForSequenceClassification, "head_dim": 16},
        "gemma": {"kind": GemmaForSequenceClassification, "head_dim": 16, "hidden_act": "gelu_pytorch_tanh"},
        "smollm3": {"kind": SmolLM3ForSequenceClassification, "no_rope_layer_interval": 2},
        "smollm3 with biases": {
            "kind": SmolLM3ForSequenceClassification,
            "no_rope_layers": [0, 1, 0],
            "attention_bias": True,
            "mlp_bias": True,
        },
        "smollm3 with windows": {
            "kind": SmolLM3ForSequenceClassification,
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 7,
        },
    }
    leaving = tuple(configs)

    def test_without_a_padding_token_rows_end_where_the_mask_says(self, make_model):
        model = make_model(pad_token_id=None)
        inputs = make_inputs([7, 3])
        fast = EarlyExitTextClassificationModel(model)
        for row, length in enumerate([7, 3]):
            alone = {key: tensor[row : row + 1, :length] for key, tensor in inputs.items()}
            torch.testing.assert_close(fast(**inputs).logits[row], logits_of(model, alone)[0], atol=1e-5, rtol=0)

    @both_backends
    def test_a_mask_with_a_hole_is_refused(self, make_model, backend, one_line_error):
        fast = EarlyExitTextClassificationModel(make_model(), backend=backend)
        with one_line_error(ValueError, "attention_mask must be right-padded"):
            fast(torch.tensor([[0, 5, 6, 7]]), torch.tensor([[0, 1, 0, 1]]))
