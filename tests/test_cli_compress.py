"""`moco-rt compress`, and what it wrote as a `--variant` of `moco-rt accelerate`."""

from __future__ import annotations

import pytest

from moco_rt import EarlyExitTextClassificationModel, cli
from moco_rt.architectures import load_classifier
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A saved classifier that has learnt something, and texts."""
    folder = tmp_path_factory.mktemp("classifier")
    reviews = make_corpus(500, seed=0, median_words=10)
    texts = [row.text for row in reviews]
    for part in train_classifier(texts, [row.label for row in reviews], seed=0):
        part.save_pretrained(folder / "model")
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def small(files):
    out = files / "small"
    arguments = ["compress", str(files / "model"), str(files / "texts.txt"), "--out", str(out)]
    assert cli.main([*arguments, "--width", "0.5", "--lengths", "1=0.5", "--epochs", "0"]) == 0
    return out


def test_a_smaller_model_is_written_with_its_tokenizer(small):
    model, tokenizer = load_classifier(str(small))
    assert model.config.lengths == [1.0, 0.5, 0.5, 0.5]
    assert model.config.compression == {"width": 0.5, "lengths": {"1": 0.5}, "epochs": 0}
    assert len(tokenizer(["a film"])["input_ids"][0]) > 2


def test_it_is_tried_beside_the_model(files, small, capsys):
    arguments = ["accelerate", "--model", str(files / "model"), "--data", str(files / "texts.txt")]
    arguments += ["--variant", str(small), "--dtype", "float32", "--agreement", "0.8", "--out", str(files / "fast")]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "width 0.5, lengths 1:0.5, epochs 0 in float32" in said, said
    assert EarlyExitTextClassificationModel.from_pretrained(files / "fast").policy.path is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lengths", "a=0.5"], "lengths must name layers by their numbers, layer=share,... (got 'a=0.5')"),
        (["--lengths", "much"], "lengths must be a number, or class=number,... (got 'much')"),
        (["--width", "2"], "width must be above 0 and at most 1 (got 2.0)"),
        (["--device", "cuda:99"], "device must be one that torch can use here, such as cpu (got cuda:99: "),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_one_line(files, options, words, capsys):
    arguments = ["compress", str(files / "model"), str(files / "texts.txt"), "--out", str(files / "none")]
    assert cli.main([*arguments, *options]) == 2
    assert words in capsys.readouterr().err


def test_it_learns_where_the_folders_are_not_there_yet(files):
    out = files / "new" / "folder" / "small"
    arguments = ["compress", str(files / "model"), str(files / "texts.txt"), "--out", str(out)]
    assert cli.main([*arguments, "--width", "0.5", "--epochs", "1", "--max-length", "8"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    assert load_classifier(str(out))[0].config.compression == {"width": 0.5, "epochs": 1}


def test_the_folder_that_one_stands_in_is_written(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["compress", str(files / "model"), str(files / "texts.txt"), "--out", "."]
    assert cli.main([*arguments, "--width", "0.5", "--epochs", "0"]) == 0
    assert (tmp_path / "config.json").is_file()


def test_a_cascade_takes_no_variant(files, small, capsys):
    model = str(files / "model")
    arguments = ["accelerate", "--model", model, model, "--data", str(files / "texts.txt"), "--out", str(files / "no")]
    assert cli.main([*arguments, "--variant", str(small)]) == 2
    assert "variant and never-early must be left out but for one model of texts" in capsys.readouterr().err
