from __future__ import annotations

import numpy as np
import pytest

from moco_rt.analysis.columns import Column, PackedColumn, as_arrow, check_layouts, fitted, joined, layouts, row_numbers

SITE = "encoder.0.output"


def packed(lengths, dim=2, dtype=np.float32):
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = np.arange(cu_seqlens[-1] * dim, dtype=dtype).reshape(cu_seqlens[-1], dim)
    return PackedColumn(values, cu_seqlens, SITE, "tokens")


@pytest.mark.parametrize("part", [np.s_[1:], np.s_[[0, 2]], np.s_[0]])
def test_column_provenance_survives_slicing(part):
    column = Column.of(np.zeros((3, 2)), SITE, "cls")[part]
    assert (column.site, column.feature) == (SITE, "cls")


def test_column_without_provenance_has_none():
    assert (Column.of([1, 2]).site, np.zeros(3).view(Column).feature) == (None, None)


def test_column_reduced_to_a_number_is_a_scalar():
    assert type(Column.of(np.ones((3, 2)), SITE).sum()) is np.float64


def test_column_of_is_a_view_of_a_memory_map(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 2))
    assert np.shares_memory(Column.of(mapped, SITE), mapped)


def test_packed_rows_lie_between_their_boundaries():
    column = packed([2, 0, 3])
    assert len(column) == 3
    assert column.lengths.tolist() == [2, 0, 3]
    assert column.cu_seqlens.dtype == np.int64
    assert column.row(0).tolist() == [[0, 1], [2, 3]]
    assert column.row(1).shape == (0, 2)
    assert column.row(-1).tolist() == [[4, 5], [6, 7], [8, 9]]
    assert (column.row(0).site, column.row(0).feature) == (SITE, "tokens")
    assert repr(column) == f"PackedColumn(3 rows, packed float32 (5, 2) {SITE} tokens)"


@pytest.mark.parametrize("indices", [[2, 0, 0], [-1], [], [False, True, True], slice(None, None, -1), slice(1)])
def test_packed_subset_gathers_the_rows_in_the_order_asked_for(indices):
    column = packed([2, 0, 3])
    rows = np.arange(3)[indices if len(np.shape(indices)) == 0 or indices else slice(0)]
    subset = column.subset(indices)
    assert [subset.row(i).tolist() for i in range(len(subset))] == [column.row(i).tolist() for i in rows]
    assert (subset.site, subset.feature) == (SITE, "tokens")


@pytest.mark.parametrize(
    ("values", "cu_seqlens", "message"),
    [
        (np.zeros((3, 2)), [1, 3], "from 0 to 3 without a fall (got 1 to 3 with 0 falls)"),
        (np.zeros((3, 2)), [0, 2], "from 0 to 3 without a fall (got 0 to 2 with 0 falls)"),
        (np.zeros((3, 2)), [0, 2, 1, 3], "from 0 to 3 without a fall (got 0 to 3 with 1 falls)"),
        (np.zeros((3, 2)), [], "(rows + 1,) integers (got float64 (0,))"),
        (np.zeros((3, 2)), [0.0, 3.0], "(rows + 1,) integers (got float64 (2,))"),
        (np.zeros((3, 2)), [[0, 3]], "(rows + 1,) integers (got int64 (1, 2))"),
        (np.zeros(3), [0, 3], "values must be (T, D) (got shape (3,))"),
    ],
)
def test_packed_column_refuses_arrays_that_do_not_fit(values, cu_seqlens, message):
    with pytest.raises(ValueError, match=r"^PackedColumn: ") as raised:
        PackedColumn(values, np.array(cu_seqlens))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([2, -1, 0], [2, 3, 0]),
        (np.array([1], np.uint8), [1]),
        ([False, True, True, False], [1, 2]),
        ([], []),
        (slice(None, None, -2), [3, 1]),
    ],
)
def test_row_numbers_are_the_rows_that_numpy_would_take(indices, expected):
    numbers = row_numbers(indices, 4, "who asks")
    assert numbers.tolist() == expected
    assert numbers.dtype == np.int64


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 4, 9], IndexError, r"row must be in \[-4, 4\) \(got 4\)"),
        ([-5], IndexError, r"row must be in \[-4, 4\) \(got -5\)"),
        ([True], ValueError, r"rows must be integers \(n,\), a mask \(4,\) or a slice \(got bool \(1,\)\)"),
        (2, ValueError, r"\(got int64 \(\)\)"),
        (["a"], ValueError, r"\(got <U1 \(1,\)\)"),
    ],
)
def test_row_numbers_name_the_operation_that_they_refuse(indices, error, message):
    with pytest.raises(error, match=f"^who asks: .*{message}$"):
        row_numbers(indices, 4, "who asks")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], np.ndarray),
        (["a", None], np.ndarray),
        (Column.of([1.0, 2.0], SITE, "cls"), np.ndarray),
        (np.zeros((2, 3)), Column),
        (packed([1, 2]), PackedColumn),
    ],
)
def test_fitted_columns_are_of_three_kinds(values, kind):
    assert type(fitted("x", values, {"y": np.zeros(2)})) is kind


def test_a_column_is_not_compared_with_the_one_that_it_replaces():
    assert len(fitted("x", [1], {"x": np.zeros(2)})) == 1


def test_missing_strings_are_null_and_nan_stays_nan():
    assert as_arrow(np.array(["a", None, np.nan], dtype=object)).null_count == 2
    assert as_arrow(np.array([1.0, np.nan])).null_count == 0


def test_columns_that_differ_in_rows_alone_are_alike():
    first = {"x": np.zeros(2), "y": Column.of(np.zeros((2, 3)), SITE), "tokens": packed([1, 2])}
    second = {"x": np.zeros(1), "y": Column.of(np.zeros((1, 3)), SITE), "tokens": packed([5])}
    check_layouts(layouts(first), layouts(second), "who asks")


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({"y": np.zeros(2)}, r"columns must be \['x'\] \(got \['y'\]\)"),
        ({"x": np.zeros((2, 1))}, r"column 'x' must be tabular float64 \(\*\) \(got array float64 \(\*, 1\)\)"),
    ],
)
def test_columns_that_differ_in_more_than_rows_are_refused(got, message):
    with pytest.raises(ValueError, match=f"^who asks: {message}$"):
        check_layouts(layouts({"x": np.zeros(2)}), layouts({k: fitted(k, v, {}) for k, v in got.items()}), "who asks")


@pytest.mark.parametrize("column", [np.arange(3), Column.of(np.ones((3, 2)), SITE, "cls"), packed([2, 0, 1])])
def test_joined_columns_have_the_rows_of_both_and_their_provenance(column):
    twice = joined(column, column)
    assert type(twice) is type(column)
    assert len(twice) == 6
    assert getattr(twice, "site", None) == getattr(column, "site", None)
    row = column.row if isinstance(column, PackedColumn) else column.__getitem__
    other = twice.row if isinstance(column, PackedColumn) else twice.__getitem__
    for i in range(6):
        np.testing.assert_array_equal(other(i), row(i % 3))


@pytest.mark.parametrize(
    "change",
    [lambda c: (c - c.mean(0)) / 2, lambda c: c[:, :2], lambda c: c[:, 0], lambda c: c.reshape(-1, 2), np.log1p],
)
def test_what_is_computed_from_a_column_was_captured_nowhere(change):
    changed = change(Column.of(np.ones((6, 4), np.float32), "encoder.0.output", "cls"))
    assert getattr(changed, "site", None) is None
    assert getattr(changed, "feature", None) is None
