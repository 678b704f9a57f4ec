"""ALBERT on every backend, on small random models: layers that share their weights, narrow embeddings."""

from __future__ import annotations

from family_tests import FamilyTests
from transformers import AlbertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import describe, int8_copy


class TestAlbert(FamilyTests):
    kind = AlbertForSequenceClassification
    settings = {"layer_norm_eps": 1e-2, "embedding_size": 18}
    configs = {
        "as published": {},
        "two groups": {"num_hidden_layers": 4, "num_hidden_groups": 2},
        "groups of two": {"num_hidden_groups": 3, "inner_group_num": 2},
        "wide embeddings": {"embedding_size": 32},
        "odd sizes": {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 5},
        "another activation": {"hidden_act": "silu"},
    }
    pairs = True
    folds_keys = True
    paths = {"albert.encoder.embedding_hidden_mapping_in": "embeddings"}

    def test_a_layer_that_is_run_several_times_is_one(self, make_model):
        """Its linear layers are listed once, and its own path names no site."""
        model = make_model(num_hidden_layers=6)
        architecture = architecture_of(model)
        assert architecture.num_layers == 6
        assert len([name for together in architecture.linear_groups() for name in together]) == 6
        assert describe(int8_copy(model)) == "int8: 6 of 6 layers"
        assert architecture.module_paths == self.paths
        many = make_model(num_hidden_groups=3, inner_group_num=2)
        paths = architecture_of(many).module_paths
        assert paths["albert.encoder.albert_layer_groups.1.albert_layers.0"] == "encoder.2.output"

    def test_another_layer_in_a_group_is_refused(self, make_model, one_line_error):
        model = make_model()
        model.albert.encoder.albert_layer_groups[0].forward = lambda hidden, *_, **__: hidden
        with one_line_error(ValueError, "albert.encoder.albert_layer_groups.0.forward must be the class's own"):
            EarlyExitTextClassificationModel(model, backend="packed")
        assert EarlyExitTextClassificationModel(model).backend == "whole"
