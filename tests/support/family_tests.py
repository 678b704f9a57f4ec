"""The tests that every model family has to pass; its test file subclasses them and says on which models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from families import (
    LENGTHS,
    assert_a_saved_model_loads_to_the_same_bits,
    assert_float32_is_near,
    assert_int8_is_near,
    assert_it_is_quantised_and_answers_in_a_pipeline,
    assert_packed_is_right,
    assert_peeks_are_what_attention_leaves,
    assert_reference_is_hugging_faces,
    assert_rows_keep_their_bits,
    assert_rows_leave_alike,
    logits_of,
)
from huggingface_hub.errors import StrictDataclassError
from parity import make_inputs

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
SETTINGS = {"max_position_embeddings": 256, "num_labels": 3}

#: What some families' configurations say, and those of others may say without meaning anything.
SETTINGS_OF_SOME: Sequence[tuple[str, Any]] = (
    ("sliding_window", 4),
    ("use_sliding_window", True),
    ("layer_types", ["full_attention"] * SIZES["num_hidden_layers"]),
    ("layer_types", ["sliding_attention", "full_attention", "sliding_attention"]),
    ("local_attention", 4),
    ("is_causal", False),
    ("is_causal", True),
    ("use_bidirectional_attention", True),
    ("attn_logit_softcapping", 1.0),
    ("query_pre_attn_scalar", 3),
    ("attention_multiplier", 3.0),
    ("embedding_multiplier", 3.0),
    ("residual_multiplier", 3.0),
    ("no_rope_layers", [0, 1, 0]),
    ("partial_rotary_factor", 0.5),
    ("position_embedding_type", "relative_key"),
    ("position_embedding_type", "none"),
    ("relative_attention", True),
    ("classifier_pooling", "mean"),
    ("embedding_size", 16),
    ("rope_theta", 7.0),
    ("scale_embedding", True),
    ("qk_norm", True),
)

both_forms = pytest.mark.parametrize("form", ["float32", "int8"])
both_backends = pytest.mark.parametrize("backend", ["packed", "reference"])


class FamilyTests:
    """The tests of a family on small random models.

    Attributes:
        kind: the class of its models.
        settings: what all of them have in their configuration, beside `SIZES` and `SETTINGS`.
        configs: what some of them have instead, by what is peculiar about it; `kind` among it is another class.
        leaving: those of `configs` on which exits and saved models are tested; the first where none is named.
        pairs: whether rows are pairs of texts.
        sites: where exits are tested.
        paths: paths of modules, and the sites they name, on the first of `configs`.
        folds_keys: whether a peek needs no keys.
        places_before: places in the table of positions that no token has.
    """

    kind: ClassVar[type]
    settings: ClassVar[Mapping[str, Any]] = {}
    configs: ClassVar[Mapping[str, Mapping[str, Any]]]
    leaving: ClassVar[Sequence[str]] = ()
    pairs: ClassVar[bool] = False
    sites: ClassVar[Sequence[str]] = ("embeddings", "encoder.1.attention", "encoder.1.output", "encoder.2.attention")
    paths: ClassVar[Mapping[str, str]]
    folds_keys: ClassVar[bool] = False
    places_before: ClassVar[int] = 0

    def pytest_generate_tests(self, metafunc):
        """Run a test for every configuration, or for those of `leaving`, or for every site, by what it asks for."""
        leaving = self.leaving or list(self.configs)[:1]
        for argument, names in (("config", list(self.configs)), ("config_of_exits", leaving)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, [self.configs[name] for name in names], ids=names)
        if "site" in metafunc.fixturenames:
            metafunc.parametrize("site", self.sites)
        if "refusal" in metafunc.fixturenames:
            metafunc.parametrize("refusal", self.refusals, ids=[reason for _, reason in self.refusals])

    @pytest.fixture
    def make_model(self, tiny_classifier):
        """`make_model(dtype=torch.float32, ...)`: a random model, by default of the first of `configs`."""
        first = next(iter(self.configs.values()))

        def make(dtype=torch.float32, **config):
            settings = {**SIZES, **SETTINGS, **self.settings, **(first | config)}
            return self.changed(tiny_classifier(settings.pop("kind", self.kind), dtype=dtype, **settings))

        return make

    def changed(self, model):
        """A fresh model with other weights where its class begins with the same number in all of them."""
        return model

    @property
    def inputs(self):
        return make_inputs(LENGTHS, pairs=self.pairs)

    def test_packed_logits_are_within_twice_the_error_of_hugging_faces(self, make_model, packed_dtype, config):
        assert_packed_is_right(make_model(packed_dtype, **config), self.inputs)

    def test_float32_is_within_1e_4_with_the_same_labels(self, make_model, config):
        assert_float32_is_near(make_model(**config), self.inputs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
    def test_reference_logits_are_hugging_faces_to_the_bit(self, make_model, dtype, config):
        assert_reference_is_hugging_faces(make_model(dtype, **config), self.inputs)

    def test_int8_is_as_near_as_its_own_modules_say(self, make_model, config):
        assert_int8_is_near(make_model(**config), self.inputs)

    @both_forms
    def test_a_rows_bits_do_not_depend_on_its_batch(self, make_model, config, form):
        assert_rows_keep_their_bits(in_form(make_model(**config), form))

    @pytest.mark.parametrize("feature", ["cls", "mean"])
    def test_rows_leave_where_the_reference_lets_them_leave(self, make_model, config_of_exits, site, feature):
        assert_rows_leave_alike(make_model(**config_of_exits), site, feature)

    @both_forms
    def test_a_saved_model_loads_to_the_same_bits_with_its_exits(self, make_model, tmp_path, config_of_exits, form):
        model = in_form(make_model(**config_of_exits), form)
        assert_a_saved_model_loads_to_the_same_bits(model, tmp_path, "encoder.1.output")

    def test_it_is_quantised_by_texts_and_answers_in_a_pipeline(self, make_model, word_tokenizer):
        assert_it_is_quantised_and_answers_in_a_pipeline(make_model(), word_tokenizer)

    def test_a_peek_needs_no_keys_where_they_are_linear_in_tokens(self, make_model):
        encoder = architecture_of(make_model()).encoder(torch.float32)
        assert [encoder.folds_keys(i) for i in range(encoder.num_layers)] == [self.folds_keys] * encoder.num_layers

    def test_a_peek_is_what_attention_leaves_in_the_pooled_token(self, make_model, packed_dtype, config):
        assert_peeks_are_what_attention_leaves(make_model(packed_dtype, **config), self.inputs)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("setting", SETTINGS_OF_SOME, ids=lambda setting: "{}={}".format(*setting))
    def test_a_setting_means_what_it_means_to_hugging_face(self, make_model, setting):
        inputs = make_inputs([40, 3, 17], pairs=self.pairs)
        try:
            model = make_model(**dict([setting]))
            expected = logits_of(model, inputs)
        except (AttributeError, StrictDataclassError, TypeError):
            return  # transformers has no such model
        fast = EarlyExitTextClassificationModel(model)
        torch.testing.assert_close(fast(**inputs).logits, expected, atol=1e-4, rtol=0)

    def test_modules_name_sites(self, make_model):
        assert self.paths.items() <= architecture_of(make_model()).module_paths.items()

    @both_backends
    def test_rows_of_max_seqlen_fit_and_longer_ones_are_refused(self, make_model, one_line_error, backend):
        model = make_model(max_position_embeddings=100 + self.places_before)
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        assert fast.max_seqlen == 100
        inputs = make_inputs([100, 3])
        torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-5, rtol=0)
        with one_line_error(ValueError, "input_ids must have at most 100 tokens (got 101)"):
            fast(**make_inputs([101]))


class RefusalTests:
    """The test of a family some of whose options the kernels do not have.

    Attributes:
        refusals: configurations, and what is said of them.
    """

    refusals: ClassVar[Sequence[tuple[Mapping[str, Any], str]]]

    def test_what_the_kernels_do_not_have_is_refused_and_runs_whole(self, make_model, one_line_error, refusal):
        config, reason = refusal
        model = make_model(**config)
        with one_line_error(ValueError, reason):
            EarlyExitTextClassificationModel(model, backend="packed")
        fast = EarlyExitTextClassificationModel(model)
        assert fast.backend == "whole"
        inputs = make_inputs(LENGTHS)
        assert torch.equal(fast(**inputs).logits, logits_of(model, inputs))


class DecoderTests(FamilyTests):
    """The tests of decoders: beside those of all families, rows padded on the left, and where a row ends."""

    settings: ClassVar[Mapping[str, Any]] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_labels": 8,
        "rms_norm_eps": 1e-2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    paths: ClassVar[Mapping[str, str]] = {"model.embed_tokens": "embeddings", "model.layers.2": "encoder.2.output"}

    def test_rows_may_be_padded_on_the_left(self, make_model, config):
        model = make_model(**config)
        fast = EarlyExitTextClassificationModel(model, backend="packed")
        left, found = padded_on_the_left(self.inputs), fast(**self.inputs).logits
        torch.testing.assert_close(found, logits_of(model, left), atol=1e-4, rtol=0)
        assert torch.equal(fast(**left).logits, found)

    def test_it_answers_in_a_pipeline_that_pads_on_the_left(self, make_model, word_tokenizer, monkeypatch):
        monkeypatch.setattr(word_tokenizer, "padding_side", "left")  # it is everybody's
        assert_it_is_quantised_and_answers_in_a_pipeline(make_model(), word_tokenizer)

    @both_backends
    def test_a_row_ends_where_hugging_face_pools_it(self, make_model, backend):
        """At the last token that is not padding's, also where the mask says that padding's token is real."""
        model = make_model(pad_token_id=2)
        ids = torch.tensor([[5, 6, 7, 2, 2], [5, 2, 7, 8, 2], [2, 2, 5, 6, 2], [9, 8, 7, 6, 5]])
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        for mask in (torch.ones_like(ids), torch.tensor([[1] * 4 + [0], [1] * 5, [0, 0, 1, 1, 1], [1] * 5])):
            inputs = {"input_ids": ids, "attention_mask": mask}
            torch.testing.assert_close(fast(**inputs).logits, logits_of(model, inputs), atol=1e-5, rtol=0)


def in_form(model, form):
    """A model in float32, or a copy in int8."""
    return int8_copy(model) if form == "int8" else model


def padded_on_the_left(inputs):
    """The same rows, each as long as the longest by padding before it."""
    behind = inputs["attention_mask"].shape[1] - inputs["attention_mask"].sum(1)
    return {
        name: torch.stack([row.roll(int(by)) for row, by in zip(inputs[name], behind, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
