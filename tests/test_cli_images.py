"""`moco-rt accelerate`, `predict` and `report` on a folder of images."""

from __future__ import annotations

import json

import pytest
from image_samples import make_image_classifier, make_lit_pictures, train_image_classifier
from transformers import ViTForImageClassification, ViTImageProcessorPil

from moco_rt import EarlyExitImageClassificationModel, cli
from moco_rt.inputs.images import find_images

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def saved(tiny_classifier, tmp_path_factory, one_thread):  # noqa: ARG001
    """The directory of a classifier that has learnt something."""
    directory = tmp_path_factory.mktemp("model")
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, initializer_range=0.1)
    train_image_classifier(model, processor, *make_lit_pictures(400, seed=1)).save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images in folders that are called as the model's classes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for place, (picture, corner) in enumerate(zip(*make_lit_pictures(400), strict=True)):
        path = folder / f"LABEL_{corner}" / f"{place:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return folder


@pytest.fixture(scope="module")
def accelerated(saved, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("fast")
    arguments = ["--model", str(saved), "--data", str(photos), "--agreement", "0.9", "--out", str(out)]
    assert cli.main(["accelerate", *arguments]) == 0
    return out


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_accelerate_writes_a_model_with_its_promise_and_its_accuracy(accelerated, capsys):
    fast = EarlyExitImageClassificationModel.from_pretrained(accelerated)
    certificate = fast.policy.certificate
    assert certificate.alpha == pytest.approx(0.1)
    assert certificate.accuracy_full > 0.5  # by the names of the folders
    assert fast.image_processor is not None
    assert cli.main(["report", str(accelerated)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_predict_writes_a_line_for_each_image_with_its_path(accelerated, photos, tmp_path, capsys):
    out = tmp_path / "labels.jsonl"
    assert cli.main(["predict", str(accelerated), str(photos), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 400 lines\n"
    lines = read(out)
    paths = find_images(photos)
    assert [photos / line["image"] for line in lines] == paths
    fast = EarlyExitImageClassificationModel.from_pretrained(accelerated)
    expected = list(fast.predict(paths))
    assert [line["label"] for line in lines] == [row["label"] for row in expected]
    assert {line["exit"] for line in lines} == {row["exit"] for row in expected}


def test_predict_goes_on_where_it_was_interrupted(accelerated, photos, tmp_path, capsys):
    few = tmp_path / "few"
    few.mkdir()
    for place, path in enumerate(find_images(photos)[:12]):
        (few / f"{place:02}.png").write_bytes(path.read_bytes() if place != 7 else b"no image")
    assert cli.main(["predict", str(accelerated), str(few)]) == 2
    assert f"images must be readable (got {few / '07.png'}" in capsys.readouterr().err
    (few / "07.png").write_bytes((few / "06.png").read_bytes())
    assert cli.main(["predict", str(accelerated), str(few)]) == 0
    out = tmp_path / "few.labels.jsonl"
    assert len(read(out)) == 12
    (few / "12.png").write_bytes((few / "00.png").read_bytes())
    assert cli.main(["predict", str(accelerated), str(few)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: 13 lines, 12 of them from an earlier run\n")
    assert read(out)[12]["image"] == "12.png"


def test_another_model_does_not_go_on(accelerated, saved, photos, tmp_path, capsys):
    out = tmp_path / "labels.csv"
    assert cli.main(["predict", str(accelerated), str(photos), "--out", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "label,prob,exit,image"
    assert cli.main(["predict", str(saved), str(photos), "--out", str(out)]) == 2
    assert f"{out} was made with another" in capsys.readouterr().err  # policy, or dtype where that is another
    assert cli.main(["predict", str(saved), str(photos), "--out", str(out), "--overwrite"]) == 0


def test_a_folder_as_a_point_has_its_name(saved, photos, tmp_path, monkeypatch, capsys):
    few = tmp_path / "few"
    few.mkdir()
    (few / "0.png").write_bytes(find_images(photos)[0].read_bytes())
    monkeypatch.chdir(few)
    assert cli.main(["predict", str(saved), "."]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'few.labels.jsonl'}: 1 lines\n"
    assert cli.main(["predict", str(saved), "/"]) == 2
    assert "out must be given where data has no name (got /)" in capsys.readouterr().err


def test_models_of_texts_and_of_images_are_told_apart(saved, photos, tiny_folder, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("good\nbad\n")
    texts, queries, out = str(tmp_path / "texts.txt"), tmp_path / "queries.jsonl", ["--out", str(tmp_path / "out")]
    queries.write_text('{"query": "good", "documents": ["bad"]}\n')
    of_texts, of_images = str(tiny_folder), str(saved)
    for command in (
        ["predict", of_texts, str(photos)],
        ["accelerate", "--model", of_texts, "--data", str(photos), *out],
    ):
        assert cli.main(command) == 2
        assert f"model must classify images where data is a folder (got {of_texts})" in capsys.readouterr().err
    for command in (
        ["predict", of_images, texts],
        ["accelerate", "--model", of_images, "--data", texts, *out],
        ["accelerate", "--model", of_images, "--data", str(queries), "--keep-top", "1", *out],
        ["rank", of_images, str(queries)],
        ["recertify", of_images, texts],
        ["bench", of_images, texts],
        ["demo", "--model", of_images, "--data", texts, *out],
    ):
        assert cli.main(command) == 2
        assert f"model must classify texts (got {of_images}, which takes a folder of images)" in capsys.readouterr().err
    for command in ("recertify", "bench"):
        assert cli.main([command, of_texts, str(photos)]) == 2
        assert f"{photos} must be a file (got a folder)" in capsys.readouterr().err


def test_what_belongs_to_files_of_texts_is_refused(saved, photos, tmp_path, capsys):
    assert cli.main(["predict", str(saved), str(photos), "--format", "txt"]) == 2
    assert "data must be a file for --format" in capsys.readouterr().err
    assert cli.main(["predict", str(saved), str(photos), "--certify", "0.9"]) == 2
    assert "data must be a file for --format, --max-length, --certify" in capsys.readouterr().err
    two = ["--model", str(saved), str(saved), "--data", str(photos), "--out", str(tmp_path)]
    assert cli.main(["accelerate", *two]) == 2
    assert "model must be one where data is a folder of images (got 2)" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["predict", str(saved), str(tmp_path / "empty")]) == 2
    assert f"{tmp_path / 'empty'} must hold images" in capsys.readouterr().err
