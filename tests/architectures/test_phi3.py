"""Phi-3 on every backend, on small random models: one layer of queries, keys and values, partly turned heads."""

from __future__ import annotations

import pytest
from family_tests import DecoderTests
from transformers import Phi3ForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel


class TestPhi3(DecoderTests):
    kind = Phi3ForSequenceClassification
    configs = {
        "as published": {},
        "one head of keys": {"num_key_value_heads": 1},
        "a head for each": {"num_key_value_heads": 4, "hidden_act": "gelu"},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 46},
        "windows": {"sliding_window": 20},
        "partly turned": {
            "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 100.0, "rope_type": "default"}
        },
    }

    @pytest.mark.filterwarnings("ignore")
    def test_positions_that_change_with_the_batch_are_refused(self, make_model, one_line_error):
        factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        model = make_model(
            rope_parameters={"rope_type": "longrope", "rope_theta": 100.0, **factors},
            original_max_position_embeddings=128,
        )
        with one_line_error(ValueError, "rotary positions must be the same in every batch (got rope_type longrope)"):
            EarlyExitTextClassificationModel(model, backend="packed")
        assert EarlyExitTextClassificationModel(model).backend == "reference"
