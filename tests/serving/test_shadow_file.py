"""The file of a shadow: a line a text, in a new file where the old one is gone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from moco_rt.runtime.outputs import Prediction
from moco_rt.serving.shadow_file import ShadowFile


def answers(*labels):
    nowhere = torch.full((len(labels),), -1)
    probs = torch.nn.functional.one_hot(torch.tensor(labels), 2) * 0.5 + 0.25
    return Prediction(torch.tensor(labels), probs, nowhere, nowhere, torch.zeros_like(nowhere))


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "shadow"
    where.mkdir()
    return where


@pytest.fixture
def shadow(folder):
    file = ShadowFile(folder / "rows.jsonl")
    yield file
    file.close()


def add(shadow, early=(1,), full=(1,)):
    return shadow.add(answers(*early), answers(*full), [None] * len(early), 3)


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_says_what_both_answer(shadow, folder):
    assert add(shadow, early=(0, 1, 1), full=(0, 0, 1)) == 1
    lines = lines_of(folder / "rows.jsonl")
    assert [(line["policy_label"], line["label"], line["same"]) for line in lines] == [
        (0, 0, True),
        (1, 0, False),
        (1, 1, True),
    ]
    assert lines[0] == {
        "label": 0,
        "prob": 0.75,
        "policy_label": 0,
        "policy_prob": 0.75,
        "exit": None,
        "same": True,
        "step": 3,
    }


def test_after_a_rotation_lines_go_to_a_new_file(shadow, folder):
    file, moved = folder / "rows.jsonl", folder / "rows.jsonl.1"
    add(shadow)
    file.rename(moved)
    add(shadow)
    add(shadow)
    assert (len(lines_of(moved)), len(lines_of(file))) == (1, 2)
    file.unlink()
    add(shadow)
    assert len(lines_of(file)) == 1


def test_two_processes_go_on_in_one_file(shadow, folder):
    other = ShadowFile(folder / "rows.jsonl")
    (folder / "rows.jsonl").rename(folder / "old")
    for each in (shadow, other, shadow):
        add(each)
    other.close()
    assert len(lines_of(folder / "rows.jsonl")) == 3


def test_a_file_that_cannot_be_written_is_said_and_written_again_when_it_can(shadow, folder, caplog):
    shutil.rmtree(folder)
    assert add(shadow, early=(1,), full=(0,)) == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'rows.jsonl'}: [Errno 2] No such file or directory: '{folder / 'rows.jsonl'}'"
    ]
    folder.mkdir()
    assert add(shadow, early=(1,), full=(0,)) == 1
    assert len(lines_of(folder / "rows.jsonl")) == 1
