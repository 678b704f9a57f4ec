"""MPNet on every backend, on small random models: biases of scores by distance."""

from __future__ import annotations

import torch
from families import LENGTHS, assert_float32_is_near, logits_of
from family_tests import FamilyTests, both_backends
from parity import make_inputs
from transformers import MPNetForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel


class TestMPNet(FamilyTests):
    kind = MPNetForSequenceClassification
    settings = {"layer_norm_eps": 1e-2}
    configs = {
        "as published": {},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "another activation": {"hidden_act": "relu"},
        "more buckets than are used": {"relative_attention_num_buckets": 40},
    }
    pairs = True
    folds_keys = True
    paths = {"mpnet.embeddings": "embeddings", "mpnet.encoder.layer.1.output": "encoder.1.output"}
    places_before = 2

    @both_backends
    def test_positions_skip_a_padding_token_inside_a_row(self, make_model, backend):
        model = make_model()
        inputs = make_inputs(LENGTHS)
        inputs["input_ids"][0, 3:5] = 1
        inputs["input_ids"][3, 0] = 1
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-5, rtol=0)

    def test_distances_have_their_own_bias(self, make_model):
        """What a bias is worth: without it the answers are others."""
        model, inputs = make_model(), make_inputs(LENGTHS)
        whole = logits_of(model, inputs)
        with torch.no_grad():
            model.mpnet.encoder.relative_attention_bias.weight.zero_()
        assert (logits_of(model, inputs) - whole).abs().max() > 0.01
        assert_float32_is_near(model, inputs)
