"""Labels of rows: which are a model's, and what is refused."""

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


@pytest.mark.parametrize("label", [1, "POSITIVE"])
def test_labels_are_class_numbers_or_their_names(tmp_path, label):
    rows = read_rows(write(tmp_path / "rows.jsonl", [{"text": "good", "label": label}, {"text": "", "label": 0}]))
    assert true_classes(rows, CONFIG) == [1, 0]


def test_numbers_in_a_table_are_class_numbers(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\ngood,1\nbad,NEGATIVE\n", encoding="utf-8")
    assert true_classes(read_rows(tmp_path / "rows.csv"), CONFIG) == [1, 0]


def test_where_one_has_no_label_none_has(tmp_path):
    rows = read_rows(write(tmp_path / "rows.jsonl", [{"text": "good", "label": 1}, {"text": "bad", "label": None}]))
    assert true_classes(rows, CONFIG) is None
    (tmp_path / "rows.csv").write_text("text,label\ngood,1\nbad,\n", encoding="utf-8")
    assert true_classes(read_rows(tmp_path / "rows.csv"), CONFIG) is None


@pytest.mark.parametrize("label", [2, "GOOD", "2", 0.5, 1.0, True, [1]])
def test_labels_that_the_model_does_not_have_are_refused(tmp_path, one_line_error, label):
    source = write(tmp_path / "rows.jsonl", [{"text": "good", "label": 0}, {"text": "good", "label": label}])
    with one_line_error(
        ValueError, f"{source}:2 must have a label of the model's, one of 0 (NEGATIVE), 1 (POSITIVE) (got {label!r})"
    ):
        true_classes(read_rows(source), CONFIG)
