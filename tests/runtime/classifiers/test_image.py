"""The class of image classifiers: inputs, predict, pipelines, files."""

from __future__ import annotations

import copy
import pickle

import datasets
import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_pictures, make_pixels
from transformers import ViTForImageClassification, ViTImageProcessorPil, pipeline

from moco_rt import EarlyExitImageClassificationModel, LinearCondition, OffRamp
from moco_rt.architectures.conversion import int8_copy
from moco_rt.runtime.classifiers import image_prediction


@pytest.fixture(scope="module")
def model(tiny_classifier):
    return make_image_classifier(tiny_classifier, ViTForImageClassification)


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(size={"height": 24, "width": 24})


@pytest.fixture
def fast(model, processor):
    fast = EarlyExitImageClassificationModel(model)
    fast.image_processor = processor
    return fast


@pytest.fixture(scope="module")
def pictures():
    return make_pictures(11)


@torch.no_grad()
def labels_of(model, processor, pictures):
    colours = [picture.convert("RGB") for picture in pictures]
    return model(**processor(images=colours, return_tensors="pt")).logits.argmax(1)


def weight(seed=0):
    return torch.randn(32, generator=torch.Generator().manual_seed(seed)).numpy()


def test_pixels_may_have_another_floating_dtype(model, fast):
    pixels = make_pixels(model, rows=5)
    assert torch.equal(fast(pixels.double()).logits, fast(pixels).logits)


@pytest.mark.parametrize(
    ("pixels", "kind", "words"),
    [
        (torch.zeros(2, 3, 24, 24, dtype=torch.uint8), TypeError, "a floating point tensor (got torch.uint8)"),
        (torch.zeros(1, 3, 24, 24).to_sparse(), ValueError, "dense (got torch.sparse_coo)"),
        ([[0.0]], TypeError, "a floating point tensor (got list)"),
        (torch.zeros(3, 24, 24), ValueError, "shape (rows, 3, 24, 24) with at least one row (got (3, 24, 24))"),
        (torch.zeros(0, 3, 24, 24), ValueError, "shape (rows, 3, 24, 24) with at least one row (got (0, 3, 24, 24))"),
        (torch.zeros(1, 1, 24, 24), ValueError, "shape (rows, 3, 24, 24) with at least one row (got (1, 1, 24, 24))"),
        (torch.zeros(1, 3, 32, 32), ValueError, "shape (rows, 3, 24, 24) with at least one row (got (1, 3, 32, 32))"),
        (torch.zeros(1, 3, 24, 24, device="meta"), ValueError, "on cpu, where the model is (got meta)"),
    ],
)
@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_wrong_pixels_are_refused_in_a_line(model, one_line_error, backend, pixels, kind, words):
    fast = EarlyExitImageClassificationModel(model, backend=backend)
    with one_line_error(kind, f"pixel_values must {'be' if words[0] in 'ado' else 'have'} {words}"):
        fast(pixels)


def test_labels_are_refused(fast, model, one_line_error):
    with one_line_error(ValueError, "labels must be left out: the model answers, and is not trained (got Tensor)"):
        fast(make_pixels(model), labels=torch.zeros(21))


def test_a_whole_model_refuses_what_its_forward_does_not_take(model, one_line_error):
    fast = EarlyExitImageClassificationModel(model, backend="whole")
    for size in ((3, 32, 32), (1, 24, 24)):
        with one_line_error(ValueError, "the model's own forward must answer (got "):
            fast(torch.zeros(1, *size))
    with one_line_error(ValueError, "pixel_values must have shape (rows, channels, height, width)"):
        fast(torch.zeros(3, 24, 24))


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_predict_labels_what_holds_images(model, fast, processor, pictures, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(image_prediction, "_MOST_IMAGES", chunk)
    expected = labels_of(model, processor, pictures)
    paths = [tmp_path / f"{place}.png" for place in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    column = datasets.Dataset.from_dict({"image": list(map(str, paths))}).cast_column("image", datasets.Image())
    for images in (
        pictures,
        iter(pictures),
        [np.asarray(picture) for picture in pictures],
        paths,
        list(map(str, paths)),
        column,
        column["image"],
        column.cast_column("image", datasets.Image(decode=False)),
        [{"img": picture, "label": 0} for picture in pictures],
    ):
        prediction = fast.predict(images)
        assert torch.equal(prediction.labels, expected)
        assert [row["label"] for row in prediction] == [model.config.id2label[label] for label in expected.tolist()]
    renamed = column.rename_column("image", "photo")
    assert torch.equal(fast.predict(renamed, column="photo").labels, expected)


def test_predict_says_where_rows_left(fast, pictures):
    fast.add_rule(LinearCondition(weight(7), 0.0, 0.0, bound=0.01), 1, "encoder", 0, "attention")
    prediction = fast.predict(pictures)
    exits = {row["exit"] for row in prediction}
    assert exits == {None, "encoder.0.attention"}
    assert set(prediction.labels[prediction.exit_site >= 0].tolist()) == {1}


def test_what_was_labelled_before_an_unreadable_image_is_not_lost(fast, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(image_prediction, "_MOST_IMAGES", 2)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="images must be readable") as caught:
        fast.predict([*pictures[:5], tmp_path / "broken.png", *pictures])
    assert torch.equal(caught.value.prediction.labels, fast.predict(pictures[:4]).labels)


def test_predict_needs_images_and_a_processor(model, fast, pictures, one_line_error):
    with one_line_error(ValueError, "image_processor must be given where the model carries none (got None)"):
        EarlyExitImageClassificationModel(model).predict(pictures)
    for none in ([], iter([])):
        with one_line_error(ValueError, "images must hold at least one image (got none)"):
            fast.predict(none)
    with one_line_error(TypeError, "images must be a sequence of images (got one Image)"):
        fast.predict(pictures[0])
    with one_line_error(ValueError, "pixel_values must have shape (rows, 3, 24, 24)"):
        fast.predict(pictures, image_processor=ViTImageProcessorPil(size={"height": 32, "width": 32}))
    with one_line_error(ValueError, "image_processor must take the images (got "):
        fast.predict(pictures, image_processor=ViTImageProcessorPil(do_resize=False))


def test_a_policy_refuses_another_image_processor(fast, pictures, one_line_error):
    fast.policy.made_for["image_processor"] = "another"
    with one_line_error(ValueError, "image_processor must be the one that the policy was found with"):
        fast.predict(pictures)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_it_answers_in_a_pipeline(model, fast, processor, pictures, batch_size, caplog):
    images = pipeline("image-classification", model=fast, image_processor=processor)
    answers = images(pictures, batch_size=batch_size, top_k=1)
    expected = labels_of(model, processor, pictures)
    assert [answer[0]["label"] for answer in answers] == [model.config.id2label[label] for label in expected.tolist()]
    assert "not supported" not in caplog.text


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_saved_model_loads_to_the_same_bits_with_its_exits_and_processor(model, processor, pictures, tmp_path, form):
    fast = EarlyExitImageClassificationModel(int8_copy(model) if form == "int8" else model)
    fast.image_processor = processor
    fast.add_rule(LinearCondition(weight(), 0.0, 0.0, bound=0.01), 1, "encoder.1.output")
    fast.save_pretrained(tmp_path)
    again = EarlyExitImageClassificationModel.from_pretrained(tmp_path)
    pixels = make_pixels(model)
    expected, found = fast(pixels), again(pixels)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.exit_site, expected.exit_site)
    assert (found.exit_site >= 0).any()
    assert torch.equal(again.predict(pictures).probs, fast.predict(pictures).probs)
    again.save_pretrained(tmp_path)  # where it was loaded from


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, {"score", "exit"}),
        ({"problem_type": "multi_label_classification"}, {"label", "prob", "exit"}),
    ],
)
def test_other_tasks_run_without_exits(tiny_classifier, processor, pictures, one_line_error, settings, fields):
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, **settings)
    fast = EarlyExitImageClassificationModel(model, backend="packed")
    assert {field for row in fast.predict(pictures, image_processor=processor) for field in row} == fields
    with one_line_error(ValueError, "model must choose one label of at least two"):
        fast.add_rule(lambda x: x[:, 0] > 0, 0, "encoder.0.output")


def test_copies_and_pickles_answer_the_same(model):
    fast = EarlyExitImageClassificationModel(model)
    pixels = make_pixels(model)
    for again in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert again.backend == "packed"
        assert torch.equal(again(pixels).logits, fast(pixels).logits)


def test_it_moves_to_another_dtype(model, packed_dtype):
    fast = EarlyExitImageClassificationModel(copy.deepcopy(model)).to(packed_dtype)
    assert (fast.backend, fast.dtype) == ("packed", packed_dtype)
    assert fast(make_pixels(model)).logits.dtype == packed_dtype


def test_a_model_without_a_processor_is_loaded_without_one(model, tmp_path):
    EarlyExitImageClassificationModel(model).save_pretrained(tmp_path)
    assert EarlyExitImageClassificationModel.from_pretrained(tmp_path).image_processor is None


@pytest.mark.parametrize("backend", ["packed", "reference"])
def test_off_ramps_and_a_monitor_work_as_on_texts(model, backend):
    fast = EarlyExitImageClassificationModel(model, backend=backend)
    generator = np.random.default_rng(0)
    layers = [(generator.standard_normal((3, 64)).astype(np.float32), np.zeros(3, np.float32))]
    ramp = OffRamp(layers, np.full(3, 0.6, np.float32), np.full(3, 0.05, np.float32))
    fast.add_off_ramp(ramp, "encoder.0.attention")
    monitor = fast.monitor(rate=1.0)
    output = fast(make_pixels(model))
    left = int((output.exit_site >= 0).sum())
    assert left > 0
    assert sum(process.rows for process in monitor.processes) == left
