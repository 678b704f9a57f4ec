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


@pytest.mark.parametrize("label2id", [{"NEGATIVE": 1, "POSITIVE": 0}, {"LABEL_0": 0, "LABEL_1": 1}, {}, None])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_names_are_those_that_predictions_have(tmp_path, name, label2id):
    write(tmp_path / "rows.jsonl", [{"text": "good", "label": "POSITIVE"}, {"text": "bad", "label": "NEGATIVE"}])
    (tmp_path / "rows.csv").write_text("text,label\ngood,POSITIVE\nbad,NEGATIVE\n", encoding="utf-8")
    rows = read_rows(tmp_path / name)
    assert true_classes(rows, SimpleNamespace(id2label=CONFIG.id2label, label2id=label2id)) == [1, 0]
    assert true_classes(rows, SimpleNamespace(id2label=CONFIG.id2label)) == [1, 0]


def test_a_name_of_several_classes_is_refused(tmp_path, one_line_error):
    config = SimpleNamespace(id2label={0: "toxic", 1: "ok", 2: "toxic"})
    source = write(tmp_path / "rows.jsonl", [{"text": "a", "label": 2}, {"text": "b", "label": "toxic"}])
    assert true_classes(read_rows(source)[:1], config) == [2]
    with one_line_error(
        ValueError, f"{source}:2 must have a class number: several classes are called 'toxic' (got it)"
    ):
        true_classes(read_rows(source), config)


def test_names_that_are_numbers_are_not_mixed_with_class_numbers(tmp_path, one_line_error):
    config = SimpleNamespace(id2label={0: "1", 1: "2", 2: "3"})
    source = tmp_path / "rows.csv"
    source.write_text("text,label\na,3\nb,1\n", encoding="utf-8")
    assert true_classes(read_rows(source), config) == [2, 0]
    source.write_text("text,label\na,1\nb,0\n", encoding="utf-8")
    with one_line_error(ValueError, f"{source}, row 2 must have a label of the model's, one of 0 (1), 1 (2), 2 (3) ("):
        true_classes(read_rows(source), config)


@pytest.mark.parametrize("label", ["9" * 5000, "1" + "0" * 30, "\u00b2"])
def test_numbers_of_any_length_are_refused_in_a_line(tmp_path, one_line_error, label):
    source = tmp_path / "rows.csv"
    source.write_text(f"text,label\na,{label}\nb,{'0' * 30}1\n", encoding="utf-8")
    assert true_classes(read_rows(source)[1:], CONFIG) == [1]
    with one_line_error(ValueError, f"{source}, row 1 must have a label of the model's, one of 0 (NEGATIVE), "):
        true_classes(read_rows(source), CONFIG)


def test_of_many_classes_a_few_are_named(tmp_path, one_line_error):
    source = write(tmp_path / "rows.jsonl", [{"text": "a", "label": 1000}])
    with one_line_error(ValueError, "one of 0 (c0), 1 (c1), 2 (c2), 3 (c3), 4 (c4), ... (got 1000)"):
        true_classes(read_rows(source), SimpleNamespace(id2label={number: f"c{number}" for number in range(1000)}))
