"""Rows of files: what is read, which labels are a model's, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from moco_rt.inputs.labels import true_classes
from moco_rt.inputs.text_files import read_rows

CONFIG = SimpleNamespace(id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_texts_and_labels_of_a_file_are_read(tmp_path):
    source = write(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b", "text2": "c", "label": 1}, {"text": ""}])
    rows = read_rows(source)
    assert [row.text for row in rows] == ["a", ("b", "c"), ""]
    assert [row.label for row in rows] == [None, 1, None]
    assert [row.place for row in rows] == [f"{source}:{number}" for number in (1, 2, 3)]


def test_any_other_file_is_a_text_a_line(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_text('a\n\n{"text": "b"}', encoding="utf-8")
    assert [row.text for row in read_rows(source)] == ["a", "", '{"text": "b"}']


@pytest.mark.parametrize("label", [1, "POSITIVE"])
def test_labels_are_class_numbers_or_their_names(tmp_path, label):
    rows = read_rows(write(tmp_path / "rows.jsonl", [{"text": "good", "label": label}, {"text": "", "label": 0}]))
    assert true_classes(rows, CONFIG) == [1, 0]


def test_where_one_has_no_label_none_has(tmp_path):
    rows = read_rows(write(tmp_path / "rows.jsonl", [{"text": "good", "label": 1}, {"text": "bad", "label": None}]))
    assert true_classes(rows, CONFIG) is None


@pytest.mark.parametrize("label", [2, "GOOD", 0.5, 1.0, True, [1]])
def test_labels_that_the_model_does_not_have_are_refused(tmp_path, one_line_error, label):
    source = write(tmp_path / "rows.jsonl", [{"text": "good", "label": 0}, {"text": "good", "label": label}])
    with one_line_error(
        ValueError, f"{source}:2 must have a label of the model's, one of 0 (NEGATIVE), 1 (POSITIVE) (got {label!r})"
    ):
        true_classes(read_rows(source), CONFIG)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "must be a JSON object (got 'not json"),
        ("", "must be a JSON object (got "),
        ('"a text"', "must be an object with strings text and text2, if any (got '\"a text\"')"),
        ('["a", "b"]', "must be an object with strings text and text2, if any (got "),
        ('{"text": 3}', "must be an object with strings text and text2, if any (got "),
        ('{"text": "a", "text2": null}', "must be an object with strings text and text2, if any (got "),
        ('{"label": "a"}', 'must have a text (got \'{"label": "a"}\')'),
    ],
)
def test_a_broken_line_is_named(tmp_path, one_line_error, line, words):
    source = tmp_path / "rows.jsonl"
    source.write_text(f'{{"text": "fine"}}\n{line}\n', encoding="utf-8")
    with one_line_error(ValueError, f"{source}:2 {words}"):
        read_rows(source)
