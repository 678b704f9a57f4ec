"""Engines on a model of one's own: figures of each, with and without a policy; what is missing is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from transformers import AutoTokenizer, FNetConfig, FNetForSequenceClassification

from moco_rt import cli
from moco_rt.benchmark import contestants as contestants_module
from moco_rt.benchmark import measure as measure_module
from moco_rt.benchmark import run as run_module
from moco_rt.benchmark.contestants import WITH_EXITS, contestants
from moco_rt.benchmark.measure import Figures, Task, measure
from moco_rt.benchmark.result import Result
from moco_rt.benchmark.run import _rows_within, benchmark
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus
from moco_rt.engines import WorkerFailedError

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier that has learnt something, and its tokenizer."""
    reviews = make_corpus(400, seed=0, hard_share=0.0, median_words=10)
    model, tokenizer = train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=0)
    where = tmp_path_factory.mktemp("model")
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def texts():
    return [row.text for row in make_corpus(900, seed=2, hard_share=0.0, median_words=10)]


def test_every_engine_has_figures_on_texts_that_found_no_policy(folder, texts, tmp_path, monkeypatch, capsys):
    """Of Hugging Face and ours alone: the others are installed or not."""
    engines = ["hf.fp32", "moco_rt.fp32", "moco_rt.int8"]
    monkeypatch.setattr(run_module, "contestants", lambda: (engines, {"openvino": "pip install openvino nncf"}))
    monkeypatch.setattr(measure_module, "SINGLES", 5)
    said = []
    result = benchmark(str(folder), texts, threads=1, agreement=0.9, price=0.1, say=said.append)
    assert result.rows == 270
    assert set(result.done()) == {"hf.fp32", "moco_rt.fp32", "moco_rt.int8", WITH_EXITS}
    assert result.same_label("hf.fp32") == result.speedup("hf.fp32") == 1.0
    assert result.same_label("moco_rt.fp32") == 1.0
    assert result.same_label(WITH_EXITS) > 0.8
    for figures in result.figures.values():
        assert figures.failed is None
        assert (len(figures.seconds), len(figures.single_ms)) == (3, 15)
        assert figures.mib_peak > 0 < figures.start_seconds
    assert result.cost("hf.fp32") == pytest.approx(1e6 / result.rate("hf.fp32") / 3600 * 0.1)
    table = result.table()
    assert "openvino is not installed: pip install openvino nncf" in table
    assert "with exits: same label as the full model for at least 90.00% of rows" in table
    assert any("measures 4 engines on 270 texts" in line for line in said)

    asked = []
    monkeypatch.setattr(run_module, "benchmark", lambda *given, **options: asked.append((given, options)) or result)
    (tmp_path / "texts.txt").write_text("a film\na good film\n", encoding="utf-8")
    command = ["bench", str(folder), str(tmp_path / "texts.txt"), "--threads", "3", "--agreement", "0.9"]
    assert cli.main([*command, "--out", str(tmp_path / "result.png")]) == 0
    assert asked[0][0] == (str(folder), ["a film", "a good film"])
    assert (asked[0][1]["threads"], asked[0][1]["agreement"]) == (3, 0.9)
    assert capsys.readouterr().out.startswith("engine ")
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_runs_whole_is_measured_without_exits(word_tokenizer, tmp_path, monkeypatch):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "max_position_embeddings": 32}
    FNetForSequenceClassification(FNetConfig(vocab_size=len(word_tokenizer), **sizes)).save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    asked = []

    def measured(task, engines, turns, _):
        asked.append((task.policy, engines))
        return {engine: Figures([1.0] * turns, [1.0], np.zeros(len(task.texts), int)) for engine in engines}

    monkeypatch.setattr(run_module, "accelerate", None)  # nobody asks
    monkeypatch.setattr(run_module, "contestants", lambda: (["hf.fp32", "moco_rt.fp32", "moco_rt.int8"], {}))
    monkeypatch.setattr(run_module, "baseline_seconds", lambda *_: 0.01)
    monkeypatch.setattr(run_module, "measure", measured)
    said = []
    result = benchmark(str(tmp_path), ["a film"] * 20, threads=1, say=said.append)
    assert asked == [(None, ["hf.fp32", "moco_rt.fp32"])]
    assert said[0] == "no engine with exits, and none of ours in int8: FNetForSequenceClassification runs as a whole"
    assert said[1].startswith("measures 2 engines on 6 texts")
    assert "with exits" not in result.table()


def test_what_cannot_be_measured_is_refused_first(folder, one_line_error):
    for few in ([], ["a film"]):
        with one_line_error(
            ValueError, f"texts must hold at least two texts, to prepare and to measure with (got {len(few)})"
        ):
            benchmark(str(folder), few, threads=1)
    for minutes in (-1.0, float("nan")):
        with one_line_error(ValueError, f"minutes must be at least 0 (got {minutes})"):
            benchmark(str(folder), ["a film"] * 2, threads=1, minutes=minutes)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_model_that_chooses_no_label_is_refused_before_a_policy_is_looked_for(
    tiny_bert, word_tokenizer, tmp_path, monkeypatch, one_line_error, problem
):
    monkeypatch.setattr(run_module, "accelerate", None)  # nobody asks
    tiny_bert(labels=3, problem_type=problem).save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    said = []
    with one_line_error(ValueError, "model must choose one label of at least two"):
        benchmark(str(tmp_path), ["a film"] * 10, threads=1, say=said.append)
    assert said == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("result.nope", "out must end in .png, .svg or another format of pictures"),
        ("result", "out must end in .png, .svg or another format of pictures"),
        ("nothing/result.png", "out must be a file in a folder that is there"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    folder, tmp_path, monkeypatch, capsys, name, words
):
    monkeypatch.setattr(run_module, "benchmark", None)  # nobody asks
    (tmp_path / "texts.txt").write_text("a film\n", encoding="utf-8")
    command = ["bench", str(folder), str(tmp_path / "texts.txt"), "--out", str(tmp_path / name)]
    assert cli.main(command) == 2
    assert capsys.readouterr().err == f"moco-rt: {words} (got {tmp_path / name})\n"
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert cli.main(command) == 2
    assert capsys.readouterr().err.startswith("moco-rt: matplotlib must be installed to draw (pip install ")


def test_a_baseline_that_fails_is_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise WorkerFailedError("hf.fp32: no memory")

    monkeypatch.setattr(run_module, "benchmark", fail)
    (tmp_path / "texts.txt").write_text("a film\n", encoding="utf-8")
    assert cli.main(["bench", str(folder), str(tmp_path / "texts.txt")]) == 2
    assert capsys.readouterr().err == "moco-rt: hf.fp32: no memory\n"


def test_an_engine_that_fails_says_why_and_the_others_go_on(folder, texts, tmp_path):
    (tmp_path / "made").mkdir()
    task = Task(folder, texts[:20], 64, 1, tmp_path / "made", [], policy=tmp_path / "nothing")
    found = measure(task, ["hf.fp32", WITH_EXITS], 1, lambda _: None)
    assert found["hf.fp32"].failed is None
    assert str(tmp_path / "nothing") in found[WITH_EXITS].failed
    assert f"{WITH_EXITS} failed: " in Result(found, 20, 1, 0.05, {}, None).table()


def test_converted_models_get_all_that_the_tokenizer_gives(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (batch,) = run_module._batches(tokenizer, ["a film", "a good film"], 16)
    assert set(batch) == set(tokenizer.model_input_names)
    assert {values.dtype for values in batch.values()} == {np.dtype(np.int64)}


def test_engines_that_are_not_installed_are_named_with_what_to_type(monkeypatch):
    monkeypatch.setattr(contestants_module, "find_spec", lambda module: None if "onnx" in module else True)
    here, missing = contestants()
    assert here[0] == "hf.fp32"
    assert {"openvino.fp32", "ctranslate2.int8", "moco_rt.fp32", "moco_rt.int8"} <= set(here)
    assert missing == {"onnxruntime": "pip install onnx onnxscript onnxruntime"}


def test_fewer_texts_are_measured_where_they_would_take_too_long():
    assert _rows_within(60.0, 0.001, 500, 2) == 500
    assert _rows_within(100.0, 0.1, 500, 2) == 166
    assert _rows_within(1.0, 0.1, 500, 2) == 64
    assert _rows_within(float("inf"), 0.1, 500, 2) == 500


def test_speedups_are_medians_of_ratios_within_a_turn():
    figures = {
        "hf.fp32": Figures([1.0, 10.0, 2.0], [1.0], np.array([0, 1])),
        "moco_rt.fp32": Figures([0.5, 1.0, 1.0], [1.0], np.array([0, 0])),
    }
    result = Result(figures, 2, 1, 0.05, {}, None)
    assert result.speedup("moco_rt.fp32") == 2.0
    assert result.rate("hf.fp32") == 1.0
    assert result.same_label("moco_rt.fp32") == 0.5
