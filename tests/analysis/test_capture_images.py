"""Captured features of image classifiers are what Hugging Face's own modules compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_pictures
from transformers import DeiTForImageClassification, ViTForImageClassification, ViTImageProcessorPil, pipeline

from moco_rt import EarlyExitImageClassificationModel, capture

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 70  # more than a batch


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(size={"height": 24, "width": 24})


@pytest.fixture(scope="module")
def pictures():
    return make_pictures(ROWS)


@pytest.fixture(params=[ViTForImageClassification, DeiTForImageClassification])
def model(request, tiny_classifier):
    return make_image_classifier(tiny_classifier, request.param)


@torch.no_grad()
def test_features_are_hugging_faces(model, processor, pictures):
    colours = [picture.convert("RGB") for picture in pictures]
    output = model(**processor(images=colours, return_tensors="pt"), output_hidden_states=True)
    embeddings, second = (output.hidden_states[layer].numpy() for layer in (0, 2))
    path = f"{model.base_model_prefix}.layers.1"
    frame = capture(model, processor, iter(pictures), sites=["embeddings", path], features=["cls", "mean", "tokens"])
    np.testing.assert_allclose(frame["logits"], output.logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(frame["embeddings.mean"], embeddings.mean(1), atol=1e-5)
    np.testing.assert_allclose(frame[f"{path}.cls"], second[:, 0], atol=1e-5)
    np.testing.assert_allclose(frame[f"{path}.mean"], second.mean(1), atol=1e-5)
    np.testing.assert_allclose(frame[f"{path}.tokens"].values.reshape(second.shape), second, atol=1e-5)
    assert (frame["predictions"] == output.logits.numpy().argmax(1)).all()


def test_models_with_exits_and_pipelines_bring_their_processor(model, processor, pictures):
    fast = EarlyExitImageClassificationModel(model)
    fast.image_processor = processor
    expected = capture(model, processor, pictures, sites="encoder.0.output")
    for held in (fast, pipeline("image-classification", model=model, image_processor=processor)):
        found = capture(held, None, pictures, sites="encoder.0.output")
        np.testing.assert_array_equal(found["encoder.0.output.cls"], expected["encoder.0.output.cls"])


def test_wrong_arguments_are_refused_in_a_line(model, processor, pictures, one_line_error):
    with one_line_error(ValueError, "images must hold at least one image (got none)"):
        capture(model, processor, iter([]), sites="embeddings")
    with one_line_error(ValueError, "max_length must be None: the model takes images (got 8)"):
        capture(model, processor, pictures, sites="embeddings", max_length=8)
    with one_line_error(ValueError, "image_processor must make images of (3, 24, 24), as the model takes them"):
        capture(model, ViTImageProcessorPil(size={"height": 32, "width": 32}), pictures, sites="embeddings")
