"""True classes in all the forms in which people have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from moco_rt.inputs.class_numbers import class_numbers

NAMES = ["sad", "so so", "glad"]


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        (2, 0, 1),
        range(2, -1, -1),
        np.array([2, 0, 1], np.uint8),
        [np.int64(2), 0, 1],
        torch.tensor([2, 0, 1]),
        pd.Series([2, 0, 1], index=[7, 1, 0]),
        pd.Series(["glad", "sad", "so so"], index=[1, 1, 1]),
        pd.Series(["glad", "sad", "so so"], dtype="category"),
        pa.array(["glad", "sad", "so so"]),
        np.array(["glad", "sad", "so so"]),
        ["glad", 0, "so so"],
        np.array([[2], [0], [1]]),
        torch.tensor([[2], [0], [1]]),
        [["glad"], ["sad"], ["so so"]],
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_numbers_and_names_are_taken_by_position(labels):
    found = class_numbers(labels, NAMES)
    expected = [2, 1, 0] if isinstance(labels, range) else [2, 0, 1]
    assert (found.dtype, found.tolist()) == (np.int64, expected)


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ([1, 2, 3], "got 3 at place 2"),
        ([0, -100], "got -100 at place 1"),
        (["glad", "Sad"], "got 'Sad' at place 1"),
        ([0, None], "got None at place 1"),
        ([0, 1.0], "got 1.0 at place 1"),
        (torch.tensor([1.5]), "got 1.5 at place 0"),
        (pd.Series([0, None]), "got 0.0 at place 0"),  # pandas makes floats of integers beside a missing one
        ([True, False], "got True at place 0"),
        (np.eye(3, dtype=int), "got [1, 0, 0] at place 0"),
        (["1"], "got '1' at place 0"),
    ],
    ids=str,
)
def test_anything_else_is_refused_with_its_place(labels, got, one_line_error):
    words = f"labels must be class numbers from 0 to 2, or names of the model's classes (sad, so so, glad) ({got})"
    with one_line_error(ValueError, words):
        class_numbers(labels, NAMES)


@pytest.mark.parametrize("labels", ["glad", 3, {"glad": 1}, b"glad"], ids=repr)
def test_what_is_no_sequence_is_refused(labels, one_line_error):
    words = f"labels must be a sequence of class numbers or names (got {type(labels).__name__})"
    with one_line_error(TypeError, words):
        class_numbers(labels, NAMES)


def test_of_many_classes_a_few_are_named(one_line_error):
    with one_line_error(ValueError, "from 0 to 999, or names of the model's classes (0, 1, 2, 3, 4, ...) (got 1000 "):
        class_numbers([1000], [str(number) for number in range(1000)])


def test_classes_of_one_name_have_their_numbers(one_line_error):
    names = ["toxic", "ok", "toxic"]
    np.testing.assert_array_equal(class_numbers([2, 0, "ok"], names), [2, 0, 1])
    with one_line_error(
        ValueError, "labels must be class numbers: several classes are called 'toxic' (got it at place 1)"
    ):
        class_numbers([2, "toxic"], names)
