"""From an image classifier and images to a policy with a certificate, and to int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from form_costs import costs_of_forms
from image_samples import make_image_classifier, make_lit_pictures, train_image_classifier
from transformers import ViTForImageClassification, ViTImageProcessorPil, pipeline

import moco_rt
from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel, accelerate, quantize, recertify
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.studies import study

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(size={"height": 24, "width": 24})


@pytest.fixture(scope="module")
def trained(tiny_classifier, processor, one_thread):  # noqa: ARG001
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, initializer_range=0.1)
    return train_image_classifier(model, processor, *make_lit_pictures(400, seed=1))


@pytest.fixture(scope="module")
def lit():
    return make_lit_pictures(700)


@pytest.fixture(scope="module")
def calibration():
    return make_lit_pictures(300, seed=2)


@pytest.fixture(scope="module")
def fast(trained, processor, lit, calibration):
    pictures, corners = calibration
    return accelerate(
        trained,
        lit[0],
        image_processor=processor,
        agreement=0.9,
        calibration=[*pictures, *pictures[:40]],
        labels=np.concatenate([corners, corners[:40]]),
    )


def test_the_certificate_is_what_the_model_does(fast, trained, processor, calibration):
    pictures, corners = calibration
    certificate = fast.policy.certificate
    own = fast.predict(pictures)
    full = EarlyExitImageClassificationModel(trained).predict(pictures, image_processor=processor)
    assert (certificate.rows, certificate.rows_in_all) == (300, 340)
    assert certificate.disagreements == int((own.labels != full.labels).sum())
    assert sum(count.fired for count in certificate.exits) == int((own.exit_site >= 0).sum()) > 0
    everything = np.concatenate([corners, corners[:40]])
    again = torch.cat([full.labels, full.labels[:40]]).numpy()
    assert certificate.accuracy_full == pytest.approx((again == everything).mean())
    assert certificate.accuracy_full > 0.7
    assert "distinct calibration rows differ" in fast.report()


def test_it_saves_with_its_certificate_and_its_processor(fast, lit, tmp_path, one_line_error):
    fast.save_pretrained(tmp_path)
    again = EarlyExitImageClassificationModel.from_pretrained(tmp_path)
    assert again.policy.certificate == fast.policy.certificate
    assert torch.equal(again.predict(lit[0]).probs, fast.predict(lit[0]).probs)
    other = ViTImageProcessorPil(size={"height": 24, "width": 24}, do_normalize=False)
    with one_line_error(ValueError, "image_processor must be the one that the policy was found with"):
        again.predict(lit[0], image_processor=other)
    for processor, words in (
        (other, "image_processor must be the one that the policy"),
        (None, "must be set on the model"),
    ):
        again.image_processor = processor
        with one_line_error(ValueError, words):
            recertify(again, lit[0])


def test_int8_learns_from_the_images_and_is_certified_against_the_given_model(trained, processor, lit, monkeypatch):
    monkeypatch.setattr(study, "measure_costs", costs_of_forms(int8=0.3))
    arrays = [np.asarray(each) for each in lit[0]]
    fast = accelerate(trained, arrays, image_processor=processor, dtype="int8", agreement=0.9, seed=1)
    assert is_int8(fast.model)
    assert fast.policy.made_for["dtype"] == fast.policy.certificate.variant == "int8"
    assert fast.given.model is trained
    assert not is_int8(trained)
    full = EarlyExitImageClassificationModel(trained).predict(lit[0], image_processor=processor)
    assert (fast.predict(lit[0]).labels == full.labels).float().mean() > 0.85


def test_of_images_too_the_fastest_form_runs_and_comes_back_with_the_given_model(
    trained, processor, lit, calibration, monkeypatch, tmp_path
):
    monkeypatch.setattr(study, "measure_costs", costs_of_forms(int8=0.3, bfloat16=0.5))
    pictures = calibration[0]
    fast = accelerate(trained, lit[0], image_processor=processor, agreement=0.9, calibration=pictures)
    certificate = fast.policy.certificate
    assert (certificate.variant, fast.given.model) == ("int8", trained)
    given = EarlyExitImageClassificationModel(trained).predict(pictures, image_processor=processor)
    assert certificate.disagreements == int((fast.predict(pictures).labels != given.labels).sum())
    fast.save_pretrained(tmp_path)
    again = EarlyExitImageClassificationModel.from_pretrained(tmp_path)
    assert torch.equal(again.predict(lit[0]).probs, fast.predict(lit[0]).probs)
    assert torch.equal(again.given.predict(pictures, image_processor=processor).probs, given.probs)


def test_quantize_keeps_the_labels(trained, processor, lit):
    model = EarlyExitImageClassificationModel(trained)
    model.image_processor = processor
    pipe = pipeline("image-classification", model=model, image_processor=processor)
    full = model.predict(lit[0]).labels
    for held in (trained, model, pipe):
        small = quantize(held, lit[0], image_processor=processor if held is trained else None)
        found = EarlyExitImageClassificationModel(small)
        assert found.backend == "packed"
        assert (found.predict(lit[0], image_processor=processor).labels == full).float().mean() >= 0.99


def test_the_processor_is_loaded_from_where_the_model_came_from(trained, processor, lit, tmp_path, one_line_error):
    trained.save_pretrained(tmp_path)
    loaded = ViTForImageClassification.from_pretrained(tmp_path)
    with one_line_error(ValueError, f"image_processor must be given: {tmp_path} holds no preprocessor_config.json"):
        quantize(loaded, lit[0][:8])
    processor.save_pretrained(tmp_path)
    assert is_int8(quantize(loaded, lit[0][:8]))
    with one_line_error(ValueError, "image_processor must be given: the model does not say where it came from"):
        quantize(trained, lit[0][:8])


def test_what_belongs_to_texts_is_refused_for_images_and_the_other_way(
    trained, processor, lit, tiny_bert, one_line_error
):
    with one_line_error(ValueError, "tokenizer and max_length must be None: the model takes images"):
        accelerate(trained, lit[0], tokenizer=object())
    with one_line_error(ValueError, "image_processor must be None: the model takes texts"):
        accelerate(tiny_bert(), ["a"], image_processor=processor)
    with one_line_error(TypeError, "column must be the name of the one that holds the image (got ('a', 'b'))"):
        accelerate(trained, lit[0], image_processor=processor, columns=("a", "b"))
    with one_line_error(ValueError, "images must leave at least 50 distinct rows to fit, to search and to certify on"):
        accelerate(trained, lit[0][:60] * 10, image_processor=processor)
    with one_line_error(ValueError, "labels must be one for each of the 700 images (got 1)"):
        accelerate(trained, lit[0], image_processor=processor, labels=[0])


def test_a_monitor_watches_the_exits(fast, lit):
    monitor = fast.monitor(rate=1.0)
    left = int((fast.predict(lit[0]).exit_site >= 0).sum())
    assert sum(process.rows for process in monitor.processes) == left
    assert isinstance(fast, moco_rt.EarlyExitImageClassificationModel)
    assert not isinstance(fast, EarlyExitTextClassificationModel)
