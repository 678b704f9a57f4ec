"""What is written for a row, by kind of model and format."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from moco_rt.inputs.file_formats import FileFormat
from moco_rt.runtime.outputs import Prediction, RowNames
from moco_rt.serving.label_rows import LabelRows, output_format


def model(labels=3, problem_type=None):
    return SimpleNamespace(config=SimpleNamespace(num_labels=labels, problem_type=problem_type))


def prediction(probs, sites=None, **options):
    probs = torch.tensor(probs)
    none = torch.full((len(probs),), -1)
    sites = none if sites is None else torch.tensor(sites)
    names = RowNames({0: "a", 1: "b", 2: "c"}, [("tokens", "encoder.0.output")], **options)
    return Prediction(probs.argmax(dim=1), probs, sites, none, torch.zeros_like(none), names=names)


def test_a_row_has_its_label_its_probability_and_its_exit():
    lines = LabelRows(model(), FileFormat.JSONL).lines(prediction([[0.1, 0.7, 0.2], [1 / 3] * 3], [1, -1]))
    assert [json.loads(line) for line in lines] == [
        {"label": "b", "prob": 0.7, "exit": "encoder.0.output"},
        {"label": "a", "prob": 0.333333, "exit": None},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_null_and_settles_no_label(value):
    (line,) = LabelRows(model(), FileFormat.JSONL).lines(prediction([[value] * 3]))
    assert line == b'{"label": null, "prob": null, "exit": null}\n'
    (line,) = LabelRows(model(), FileFormat.CSV).lines(prediction([[value] * 3]))
    assert line == b",,\n"


def test_labels_that_hold_together_are_a_list():
    labels = model(problem_type="multi_label_classification")
    given = prediction([[0.9, 0.1, 0.5], [0.1, 0.2, 0.3], [math.nan, 0.9, 0.9]], several=True)
    assert [json.loads(line) for line in LabelRows(labels, FileFormat.JSONL).lines(given)] == [
        {"label": ["a", "c"], "prob": [0.9, 0.5], "exit": None},
        {"label": [], "prob": [], "exit": None},
        {"label": None, "prob": None, "exit": None},
    ]
    rows = LabelRows(labels, FileFormat.TSV)
    assert (rows.header(), rows.lines(given)[0]) == (b"label\tprob\texit\n", b'"[""a"", ""c""]"\t[0.9, 0.5]\t\n')


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_a_model_of_one_label_has_a_score(problem_type):
    rows = LabelRows(model(1, problem_type), FileFormat.CSV)
    given = replace(prediction([[0.5]] * 2), labels=None, scores=torch.tensor([2 / 3, math.nan]))
    assert (rows.header(), rows.lines(given)) == (b"score,exit\n", [b"0.666667,\n", b",\n"])


@pytest.mark.parametrize(
    ("line", "is_possible"),
    [(b"b,0.7,\n", True), (b"b,0", True), (b"b,0\n", False), (b"my notes\n", False), (b"x\ry\n", False)],
)
def test_lines_that_a_table_of_labels_cannot_hold_are_known(line, is_possible):
    assert LabelRows(model(), FileFormat.CSV).could_be(line) == is_possible


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.CSV", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a", "jsonl"),
        ("a.gz", "jsonl"),
        ("rows.csv.labels.jsonl", "jsonl"),
    ],
)
def test_the_ending_says_the_format(name, kind):
    assert output_format(Path(name)) == FileFormat(kind)
