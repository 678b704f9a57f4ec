from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from frame_samples import SITE, assert_same, small_frame

from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame


def test_frame_keeps_order_and_kind_of_its_columns():
    frame = small_frame()
    assert len(frame) == 3
    assert frame.columns == list(frame) == ["text", "label", "x", "tokens"]
    assert "x" in frame
    assert type(frame["label"]) is np.ndarray
    assert frame["text"].tolist() == ["good", "bad", "ugly"]
    assert isinstance(frame["x"], Column)
    assert frame[["tokens", "label"]].columns == ["tokens", "label"]
    assert list(frame.get_arrays()) == ["x", "tokens"]
    pd.testing.assert_frame_equal(
        frame.get_tabular(), pd.DataFrame({"text": ["good", "bad", "ugly"], "label": [1, 0, 1]})
    )


def test_frames_without_columns_or_without_tables_are_empty():
    assert len(MLFrame()) == 0
    assert MLFrame().columns == []
    assert MLFrame({"x": np.zeros((3, 2))}).get_tabular().shape == (3, 0)


def test_repr_has_a_line_per_column():
    assert repr(small_frame()).splitlines() == [
        "MLFrame: 3 rows",
        "  text: tabular object (3)",
        "  label: tabular int64 (3)",
        f"  x: array float16 (3, 2) {SITE} cls",
        f"  tokens: packed float32 (5, 2) {SITE} tokens",
    ]


def test_one_dimensional_columns_are_copied_and_others_are_not():
    labels, x = np.arange(3), np.zeros((3, 2))
    frame = MLFrame({"label": labels, "x": x})
    labels[0] = x[0, 0] = 9
    assert frame["label"][0] == 0
    assert frame["x"][0, 0] == 9


@pytest.mark.parametrize("strings", [np.array(["a", "b"]), ["a", "b"], pd.Series(["a", "b"]), ["a", None]])
def test_strings_are_held_as_objects(strings):
    column = MLFrame({"text": strings})["text"]
    assert column.dtype == object
    assert column.tolist() == list(strings)


def test_in_a_list_of_strings_nan_is_missing_and_numbers_are_refused(one_line_error):
    assert MLFrame({"text": ["a", float("nan"), None]})["text"].tolist() == ["a", None, None]
    for mixed in (["a", 1], ("a", True), [1.5, "a"]):
        with one_line_error(ValueError, "MLFrame: column 'text' must be 1-D booleans, integers, floats or strings"):
            MLFrame({"text": mixed})


def test_setitem_replaces_a_lone_column():
    frame = MLFrame({"x": [1, 2, 3]})
    frame["x"] = [1]
    assert len(frame) == 1


@pytest.mark.parametrize("i", [0, 2, -1, np.int64(1)])
def test_at_gives_a_row_by_column(i):
    row, frame = small_frame().at(i), small_frame()
    assert row["text"] == frame["text"][i]
    np.testing.assert_array_equal(row["x"], frame["x"][i])
    np.testing.assert_array_equal(row["tokens"], frame["tokens"].row(i))


@pytest.mark.parametrize("i", [3, -4])
def test_at_refuses_rows_out_of_range(i):
    with pytest.raises(IndexError, match=rf"^MLFrame.at: row must be in \[-3, 3\) \(got {i}\)$"):
        small_frame().at(i)


@pytest.mark.parametrize(
    "idx", [[2, 0], [-1, 1, 1], np.array([True, False, True]), slice(1, None), slice(None, None, 2)]
)
def test_subset_gathers_rows_of_every_kind_of_column(idx):
    frame, rows = small_frame(), np.arange(3)[idx]
    subset = frame.subset(idx)
    assert len(subset) == len(rows)
    assert (subset["x"].site, subset["tokens"].site) == (SITE, SITE)
    for i, row in enumerate(rows):
        assert {n: np.array(v).tolist() for n, v in subset.at(i).items()} == {
            n: np.array(v).tolist() for n, v in frame.at(row).items()
        }


@pytest.mark.parametrize(
    ("idx", "error", "message"),
    [
        ([3], IndexError, r"row must be in \[-3, 3\) \(got 3\)"),
        ([True], ValueError, r"a mask \(3,\) or a slice \(got bool \(1,\)\)"),
        ([0.5], ValueError, r"rows must be integers \(n,\).*\(got float64 \(1,\)\)"),
        ([[0]], ValueError, r"rows must be integers \(n,\).*\(got int64 \(1, 1\)\)"),
    ],
)
def test_subset_refuses_what_names_no_rows(idx, error, message):
    with pytest.raises(error, match=f"^MLFrame.subset: .*{message}"):
        small_frame().subset(idx)


def test_concatenate_puts_rows_together():
    frame = small_frame()
    assert_same(frame.subset([0, 1]).concatenate(frame.subset([2])), frame)


def test_concatenate_puts_columns_together():
    frame = small_frame()
    assert_same(frame[["text", "label"]].concatenate(frame[["x", "tokens"]], axis=1), frame)


@pytest.mark.parametrize(
    ("other", "axis", "message"),
    [
        ({"y": [1]}, 0, r"columns must be \['x'\] \(got \['y'\]\)"),
        ({"x": [1.0]}, 0, r"column 'x' must be tabular int64 \(\*\) \(got tabular float64 \(\*\)\)"),
        ({"x": [1, 2]}, 1, r"needs no common columns \(got \['x'\]\)"),
        ({"y": [1]}, 1, r"column 'y' must have 2 rows like the others \(got 1\)"),
        ({"y": [1]}, 2, r"axis must be 0 or 1 \(got 2\)"),
    ],
)
def test_concatenate_refuses_what_does_not_fit(other, axis, message):
    with pytest.raises(ValueError, match=message):
        MLFrame({"x": [1, 2]}).concatenate(MLFrame(other), axis=axis)


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (3, r"\(got int64 \(\)\)"),
        ([1 + 2j], r"\(got complex128 \(1,\)\)"),
        (np.array([{}, {}]), r"\(got object \(2,\)\)"),
        (np.array([["a", None]], dtype=object), r"\(got object \(1, 2\)\)"),
        (PackedColumn(np.array([[None]]), np.array([0, 1])), r"\(got object \(1, 1\)\)"),
    ],
)
def test_columns_that_no_frame_can_hold_are_refused(values, got):
    with pytest.raises(ValueError, match=rf"^MLFrame: column 'x' must be .* {got}$"):
        MLFrame({"x": values})


def test_columns_of_unequal_rows_are_refused():
    with pytest.raises(ValueError, match=r"^MLFrame: column 'x' must have 10 rows like the others \(got 9\)$"):
        MLFrame({"label": np.zeros(10), "x": np.zeros((9, 2))})


def test_unknown_column_is_refused_with_the_known():
    with pytest.raises(KeyError, match=r"MLFrame: no column 'z'; there are \['text', 'label', 'x', 'tokens'\]"):
        small_frame()["z"]
