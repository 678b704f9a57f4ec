"""ViT and DeiT on every backend, on small random models: patches, the tokens before them, positions."""

from __future__ import annotations

import copy

import pytest
import torch
from image_samples import make_image_classifier, make_pixels
from parity import assert_within_twice_the_error
from transformers import DeiTForImageClassification, SwinForImageClassification, ViTForImageClassification

from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel, LinearCondition
from moco_rt._C import PackedBatch
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

CONFIGS = {
    "ViT": (ViTForImageClassification, {}),
    "DeiT": (DeiTForImageClassification, {}),
    "no biases": (ViTForImageClassification, {"qkv_bias": False}),
    "no biases, DeiT": (DeiTForImageClassification, {"qkv_bias": False, "hidden_act": "relu"}),
    "grey, small patches": (ViTForImageClassification, {"num_channels": 1, "image_size": 15, "patch_size": 3}),
    "oblong": (ViTForImageClassification, {"image_size": (16, 40), "patch_size": (4, 8)}),
    "a rest beside the patches": (ViTForImageClassification, {"image_size": 23, "patch_size": 5}),
    "many patches": (ViTForImageClassification, {"image_size": 40, "patch_size": 4}),
    "other activation": (ViTForImageClassification, {"hidden_act": "silu"}),
    "approximate GELU": (DeiTForImageClassification, {"hidden_act": "gelu_fast", "num_channels": 4}),
    "odd sizes": (
        ViTForImageClassification,
        {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 46, "num_labels": 7},
    ),
}
every_config = pytest.mark.parametrize(("kind", "config"), CONFIGS.values(), ids=CONFIGS)


@pytest.fixture
def make_model(tiny_classifier):
    """`make_model(ViTForImageClassification, dtype, ...)`: a random model of three layers."""
    return lambda kind, dtype=torch.float32, **config: make_image_classifier(tiny_classifier, kind, dtype, **config)


@torch.no_grad()
def logits_of(model, pixels):
    return model(pixels).logits


@every_config
def test_packed_logits_are_within_twice_the_error_of_hugging_faces(make_model, packed_dtype, kind, config):
    model = make_model(kind, packed_dtype, **config)
    pixels = make_pixels(model, rows=64).to(packed_dtype)  # of few numbers the largest error is luck
    fast = EarlyExitImageClassificationModel(model, backend="packed")
    exact = logits_of(copy.deepcopy(model).double(), pixels.double())
    assert_within_twice_the_error(fast(pixels).logits, logits_of(model, pixels), exact)


@every_config
def test_float32_is_within_1e_4_with_the_same_labels(make_model, kind, config):
    model = make_model(kind, **config)
    pixels = make_pixels(model)
    fast = EarlyExitImageClassificationModel(model)
    assert fast.backend == "packed"
    expected, found = logits_of(model, pixels), fast(pixels).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(found.argmax(1), expected.argmax(1))


@every_config
@pytest.mark.parametrize("backend", ["reference", "whole"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_reference_and_whole_logits_are_hugging_faces_to_the_bit(make_model, dtype, backend, kind, config):
    model = make_model(kind, dtype, **config)
    pixels = make_pixels(model)
    fast = EarlyExitImageClassificationModel(model, backend=backend)
    assert torch.equal(fast(pixels).logits, logits_of(model, pixels))


@every_config
def test_int8_is_as_near_as_its_own_modules_say(make_model, kind, config):
    """The kernels against the reference of the same int8 model, which quantises tokens in float64."""
    model = make_model(kind, **config)
    small, pixels = int8_copy(model), make_pixels(model)
    fast, reference = (EarlyExitImageClassificationModel(small, backend=name) for name in ("packed", "reference"))
    float_logits = logits_of(model, pixels)
    by_quantising = (reference(pixels).logits - float_logits).norm()
    assert (fast(pixels).logits - float_logits).norm() <= 1.2 * by_quantising


@every_config
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_rows_bits_depend_neither_on_its_batch_nor_on_threads(make_model, kind, config, form):
    model = make_model(kind, **config)
    fast = EarlyExitImageClassificationModel(int8_copy(model) if form == "int8" else model)
    pixels = make_pixels(model, rows=37)
    together = fast(pixels).logits
    for rows in ([5, 3, 0], *([row] for row in range(len(pixels)))):
        assert torch.equal(fast(pixels[rows]).logits, together[rows])
    threads = torch.get_num_threads()
    try:
        for other in (1, 2, 3):
            torch.set_num_threads(other)
            assert torch.equal(fast(pixels).logits, together)
            assert torch.equal(fast(pixels[:1]).logits, together[:1])
    finally:
        torch.set_num_threads(threads)


@every_config
def test_a_peek_is_what_attention_leaves_in_the_class_token(make_model, kind, config):
    model = make_model(kind, **config)
    encoder, pixels = architecture_of(model).encoder(torch.float32), make_pixels(model)
    batch = PackedBatch.of_lengths(torch.full((len(pixels),), architecture_of(model).max_seqlen))
    encoder.embed_images(batch, pixels)
    for layer in range(encoder.num_layers):
        assert encoder.folds_keys(layer)
        found = encoder.peek(layer, batch).hidden.clone()
        encoder.attention(layer, batch)
        torch.testing.assert_close(found, batch.cls().hidden, atol=1e-5, rtol=1e-5)
        encoder.feed_forward(layer, batch)


@pytest.mark.parametrize("kind", [ViTForImageClassification, DeiTForImageClassification])
@pytest.mark.parametrize("site", ["embeddings", "encoder.1.attention", "encoder.1.output", "encoder.2.attention"])
@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_rows_leave_where_the_reference_lets_them_leave(make_model, kind, site, feature):
    model = make_model(kind)
    pixels = make_pixels(model)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(3)).numpy()
    outputs = []
    for backend in ("packed", "reference"):
        fast = EarlyExitImageClassificationModel(model, backend=backend)
        # The class token of all images is the same before the first attention: there all rows leave, or none.
        bias = 100.0 if (site, feature) == ("embeddings", "cls") else 0.0
        fast.add_rule(LinearCondition(weight, bias, 0.0, feature=feature, bound=0.01), 1, site)
        outputs.append(fast(pixels))
    assert torch.equal(outputs[0].exit_site, outputs[1].exit_site)
    left = int((outputs[0].exit_site >= 0).sum())
    assert left == len(pixels) if bias else 0 < left < len(pixels)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)


def test_a_layers_own_path_names_its_site(make_model):
    architecture = architecture_of(make_model(DeiTForImageClassification))
    assert architecture.module_paths["deit.embeddings"] == "embeddings"
    assert architecture.module_paths["deit.layers.2"] == "encoder.2.output"
    assert (architecture.max_seqlen, architecture.image_size) == (2 + 9, (3, 24, 24))


def test_a_changed_module_is_not_taken_for_the_familys_own(make_model):
    model = make_model(ViTForImageClassification)
    model.vit.embeddings.patch_embeddings.projection.stride = (4, 4)
    with pytest.raises(ValueError, match="must be"):
        EarlyExitImageClassificationModel(model, backend="packed")
    model = make_model(ViTForImageClassification)
    model.vit.layers[1].register_forward_hook(lambda _, __, output: output * 2)
    fast = EarlyExitImageClassificationModel(model)
    assert fast.backend == "whole"
    pixels = make_pixels(model)
    assert torch.equal(fast(pixels).logits, logits_of(model, pixels))


def test_other_families_run_as_a_whole(tiny_classifier):
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
    model = tiny_classifier(SwinForImageClassification, window_size=4, num_labels=3, **sizes)
    fast = EarlyExitImageClassificationModel(model)
    pixels = make_pixels(model, rows=3)
    assert fast.backend == "whole"
    assert torch.equal(fast(pixels).logits, logits_of(model, pixels))


def test_texts_and_images_are_not_mistaken_for_each_other(make_model, tiny_bert, one_line_error):
    with one_line_error(TypeError, "...ForSequenceClassification (got ViTForImageClassification)"):
        EarlyExitTextClassificationModel(make_model(ViTForImageClassification))
    with one_line_error(TypeError, "...ForImageClassification (got BertForSequenceClassification)"):
        EarlyExitImageClassificationModel(tiny_bert())
