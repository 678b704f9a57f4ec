"""The demo from its two doors, on a task small enough to run in seconds."""

from __future__ import annotations

import json

import pytest

from moco_rt import cli
from moco_rt.demo import run as demo
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def trained():
    """A classifier that has learnt something, from plain reviews of a few words."""
    reviews = make_corpus(1200, seed=0, hard_share=0.0, median_words=10)
    return train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=0)


@pytest.fixture(scope="module")
def reviews():
    return make_corpus(900, seed=1, hard_share=0.0, median_words=10)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    model, tokenizer = trained
    directory = tmp_path_factory.mktemp("model")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_run_compares_draws_and_keeps_the_labels(trained, reviews, tmp_path):
    texts, labels = [row.text for row in reviews], [row.label for row in reviews]
    task = demo.Task(*trained, texts[:600], texts[600:], labels[600:])
    comparison = demo.run(task, tmp_path / "out", agreement=0.8)
    assert comparison.rows == 300
    assert comparison.agreement >= 0.8
    assert comparison.exited > 0
    assert abs(comparison.accuracy - comparison.accuracy_baseline) <= 1 - comparison.agreement
    assert comparison.exited == pytest.approx(sum(sum(left.values()) for left in comparison.exits.values()) / 300)
    assert (tmp_path / "out" / "exits.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_prints_the_table_of_the_users_own_model_and_rows(saved, reviews, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [{"text": row.text, "label": row.label} for row in reviews])
    out = tmp_path / "out"
    arguments = ["demo", "--model", saved, "--data", str(data), "--agreement", "0.8", "--out", str(out)]
    assert cli.main([*arguments, "--max-length", "32"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "300 rows, ",
        "time (s)",
        "rows/s",
        "accuracy",
        "agreement",
        "ran to the end",
        "exits.png",
    ):
        assert words in printed


def test_rows_without_labels_are_compared_without_accuracy(saved, reviews, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [{"text": row.text, "text2": "it was about the film"} for row in reviews])
    assert cli.main(["demo", "--model", saved, "--data", str(data), "--agreement", "0.8", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "agreement" in printed
    assert "accuracy" not in printed


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("not json\n", "rows.jsonl:1 must be a JSON object (got 'not json"),
        ('{"text": "fine", "label": 2}\n' * 3, "rows.jsonl:1 must have a label of the model's"),
        ("", "must have at least 3 lines (got 0)"),
        (
            '{"text": "the film was bad"}\n{"text": "the film was good"}\n' * 30,
            "texts must leave at least 50 distinct rows",
        ),
    ],
)
def test_bad_data_is_one_line_and_status_2(saved, tmp_path, capsys, lines, words):
    data = tmp_path / "rows.jsonl"
    data.write_text(lines, encoding="utf-8")
    assert cli.main(["demo", "--model", saved, "--data", str(data), "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("moco-rt: ")
    assert words in line


def test_model_and_data_go_together(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", "--model", "somewhere"])
    assert "--model and --data go together" in capsys.readouterr().err


@pytest.mark.parametrize("agreement", [0.0, 1.0, 2.0, -0.1])
def test_an_agreement_that_is_no_share_is_refused_before_anything_is_run(
    agreement, tmp_path, tiny_bert, word_tokenizer
):
    with pytest.raises(ValueError, match=rf"agreement must be inside \(0, 1\) \(got {agreement}\)"):
        demo.run(demo.Task(tiny_bert(), word_tokenizer, [], [], None), tmp_path, agreement=agreement)
    assert not list(tmp_path.iterdir())


def test_the_embedded_model_is_trained_once(tmp_path, monkeypatch):
    for rows in ("_TRAIN_ROWS", "_RULE_ROWS", "_TEST_ROWS"):
        monkeypatch.setattr(demo, rows, 64)
    task = demo.embedded_task(tmp_path / "model")
    assert [len(task.rule_texts), len(task.test_texts), len(task.test_labels)] == [64, 64, 64]
    monkeypatch.setattr(demo, "train_classifier", None)
    again = demo.embedded_task(tmp_path / "model")
    assert again.test_texts == task.test_texts
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
