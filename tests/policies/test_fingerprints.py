"""What a policy is bound to: nothing of a model that changes its answers goes unnoticed."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from image_samples import make_image_classifier
from transformers import AutoImageProcessor, DeiTImageProcessorPil, ViTForImageClassification, ViTImageProcessorPil

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.policies.fingerprints import (
    check_image_processor,
    check_made_for,
    fingerprint,
    image_processor_fingerprint,
    image_run_identity,
    model_identity,
)

TENSOR_NAMES = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.bias",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.1.output.dense.weight",
    "classifier.bias",
]


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert()


def test_a_fingerprint_changes_with_every_single_tensor(model):
    before = fingerprint(model)
    other = copy.deepcopy(model)
    state = other.state_dict()
    assert set(TENSOR_NAMES) < set(state)
    for name, tensor in state.items():
        kept = tensor.clone()
        with torch.no_grad():
            tensor.mul_(1.001)
        assert fingerprint(other) != before, name
        with torch.no_grad():
            tensor.copy_(kept)
    assert fingerprint(other) == before


def test_a_fingerprint_tells_seeds_shapes_and_dtypes_apart(tiny_bert):
    models = [tiny_bert(), tiny_bert(seed=1), tiny_bert(layers=3), tiny_bert(labels=3), tiny_bert(dtype=torch.bfloat16)]
    assert len({fingerprint(model) for model in models}) == len(models)
    assert fingerprint(tiny_bert()) == fingerprint(models[0])


def test_a_fingerprint_is_of_the_weights_alone(model):
    other = copy.deepcopy(model).train()
    other.config.name_or_path = "elsewhere"
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    assert fingerprint(other) == fingerprint(model)
    assert len(fingerprint(model)) == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_policy_is_made_for_weights_and_dtype(tiny_bert, dtype):
    model = tiny_bert(dtype=dtype)
    identity = model_identity(model)
    assert (identity["weights"], identity["dtype"]) == (fingerprint(model), str(dtype).removeprefix("torch."))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fingerprint_changes_with_every_single_number(tiny_bert, dtype):
    model = tiny_bert(layers=1, hidden=8, labels=3, dtype=dtype)
    before, rng = fingerprint(model), torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        flat = tensor.view(-1)
        for place in {0, len(flat) - 1, int(torch.randint(len(flat), (1,), generator=rng))}:
            kept = flat[place].clone()
            with torch.no_grad():
                flat[place] += 0.5
            assert fingerprint(model) != before
            with torch.no_grad():
                flat[place] = kept
    assert fingerprint(model) == before


@pytest.mark.parametrize("hidden", [8, 256])
@pytest.mark.parametrize("rows", [(5, 6), (5, 90), (40, 99)], ids=str)
def test_a_fingerprint_changes_where_rows_of_a_tensor_change_places(tiny_bert, hidden, rows):
    model = tiny_bert(layers=1, hidden=hidden)
    before, words = fingerprint(model), model.bert.embeddings.word_embeddings.weight
    with torch.no_grad():
        words[list(rows)] = words[list(reversed(rows))].clone()
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"num_attention_heads": 4}, "num_attention_heads"),
        ({"id2label": {0: "LABEL_1", 1: "LABEL_0"}}, "classes"),
        ({"problem_type": "multi_label_classification"}, "problem_type"),
        ({"pad_token_id": 3}, "pad_token_id"),
    ],
    ids=str,
)
def test_a_setting_that_changes_answers_is_noticed_and_named(model, one_line_error, change, field):
    other = copy.deepcopy(model)
    for name, value in change.items():
        setattr(other.config, name, value)
    with one_line_error(ValueError, f"the policy was made for a model with another {field}: "):
        check_made_for(model_identity(model), model_identity(other), "the policy")


SMALL = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("family", "change", "field"),
    [
        ("Mistral", {"rms_norm_eps": 1e-3}, "rms_norm_eps"),
        ("Mistral", {"sliding_window": 7}, "sliding_window"),
        ("Mistral", {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}, "rope_theta"),
        ("ModernBert", {"classifier_pooling": "mean"}, "classifier_pooling"),
        ("ModernBert", {"local_attention": 4}, "sliding_window|local_attention"),
    ],
    ids=str,
)
def test_settings_of_other_families_are_noticed_too(family, change, field, tmp_path):
    config = getattr(transformers, f"{family}Config")(**SMALL)
    kind = getattr(transformers, f"{family}ForSequenceClassification")
    model = kind(config)
    model.save_pretrained(tmp_path)
    check_made_for(model_identity(model), model_identity(kind.from_pretrained(tmp_path)), "the policy")
    other = kind(getattr(transformers, f"{family}Config")(**{**SMALL, **change}))
    other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=f"made for a model with another ({field})"):
        check_made_for(model_identity(model), model_identity(other), "the policy")


@pytest.mark.parametrize("change", [{"name_or_path": "elsewhere"}, {"use_cache": False}, {"hidden_dropout_prob": 0.3}])
def test_settings_that_change_no_answer_do_not_matter(model, change):
    other = copy.deepcopy(model)
    for name, value in change.items():
        setattr(other.config, name, value)
    check_made_for(model_identity(model), model_identity(other), "the policy")


def test_a_setting_that_only_one_side_knows_is_not_compared(model):
    identity = model_identity(model)
    check_made_for({**identity, "config": {**identity["config"], "rope_theta": 1e4}}, identity, "the policy")


@pytest.mark.parametrize("labels", [1, 2])
def test_a_call_with_labels_changes_nothing_that_a_policy_is_bound_to(tiny_bert, tmp_path, labels):
    """transformers notes in the configuration which kind of problem it has inferred from the labels."""
    given = tiny_bert(labels=labels, problem_type=None)
    before = model_identity(given)
    fast = EarlyExitTextClassificationModel(given)
    fast.policy.made_for |= before
    fast.save_pretrained(tmp_path / "before")
    rows = torch.tensor([[2, 5, 3]])
    given(rows, labels=torch.zeros(1, dtype=torch.long if labels > 1 else torch.float))
    assert given.config.problem_type is not None
    check_made_for(before, model_identity(given), "the policy")
    check_made_for(model_identity(given), before, "the policy")
    fast.save_pretrained(tmp_path / "after")
    fast.load_policy(tmp_path / "before")
    EarlyExitTextClassificationModel.from_pretrained(tmp_path / "after")


def test_a_call_with_labels_of_another_kind_makes_another_model(model, one_line_error):
    other = copy.deepcopy(model)
    other(torch.tensor([[2, 5, 3]]), labels=torch.tensor([[1.0, 1.0]]))
    with one_line_error(ValueError, "another problem_type: single_label_classification (got multi"):
        check_made_for(model_identity(model), model_identity(other), "the policy")


def test_an_edited_config_is_refused_when_the_policy_is_loaded(tiny_bert, tmp_path, one_line_error):
    EarlyExitTextClassificationModel(tiny_bert()).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    with one_line_error(ValueError, "was made for a model with another hidden_act: gelu (got relu)"):
        EarlyExitTextClassificationModel.from_pretrained(tmp_path)


def test_an_image_processor_is_known_by_its_class_and_settings(tmp_path, one_line_error):
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    processor.save_pretrained(tmp_path)
    same = AutoImageProcessor.from_pretrained(tmp_path)
    assert image_processor_fingerprint(same) == image_processor_fingerprint(processor)
    others = [
        DeiTImageProcessorPil(**{name: getattr(processor, name) for name in ("size", "do_resize")}),
        ViTImageProcessorPil(size={"height": 24, "width": 25}),
        ViTImageProcessorPil(size={"height": 24, "width": 24}, image_mean=[0.5, 0.5, 0.4]),
    ]
    made_for = {"image_processor": image_processor_fingerprint(processor)}
    check_image_processor(made_for, same)
    check_image_processor({}, others[0])
    for other in others:
        with one_line_error(ValueError, "image_processor must be the one that the policy was found with"):
            check_image_processor(made_for, other)


def test_images_of_another_size_are_another_model(tiny_classifier):
    """Both have as many patches, hence weights of the same shapes."""
    sizes = [(16, 40), [16, 40], (40, 16)]
    models = [make_image_classifier(tiny_classifier, ViTForImageClassification, image_size=size) for size in sizes]
    processor = ViTImageProcessorPil()
    one, same, other = (image_run_identity(model, processor) for model in models)
    assert one == same
    assert one["weights"] == other["weights"]
    assert one["config"] != other["config"]
