"""Tokenised texts end to end."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moco_rt.encoding import EncodedTexts

ROWS = st.lists(st.lists(st.integers(0, 30_000), max_size=6), max_size=12)


def rows_of(ids):
    return [{"input_ids": row, "token_type_ids": [1] * len(row)} for row in ids]


def ids_of(encoded):
    return [row["input_ids"].tolist() for row in encoded]


@given(ids=ROWS)
def test_rows_come_back_as_they_were(ids):
    encoded = EncodedTexts.of(rows_of(ids))
    assert ids_of(encoded) == ids
    assert encoded.lengths.tolist() == [len(row) for row in ids]
    assert [row["token_type_ids"].tolist() for row in encoded] == [[1] * len(row) for row in ids] if ids else True
    assert (encoded.ids.dtype, encoded.lengths.dtype) == (np.int32, np.int64)
    assert EncodedTexts.of(encoded) is encoded


@given(ids=ROWS, data=st.data())
def test_some_of_them_in_any_order(ids, data):
    places = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=20) if ids else st.just([]))
    some = EncodedTexts.of(rows_of(ids)).take(np.array(places, np.int64))
    assert ids_of(some) == [ids[place] for place in places]


@given(ids=ROWS, first=st.integers(-14, 14), end=st.integers(-14, 14), step=st.sampled_from([None, 1, 2, -1]))
def test_slices_are_those_of_a_list(ids, first, end, step):
    assert ids_of(EncodedTexts.of(rows_of(ids))[first:end:step]) == ids[first:end:step]


@given(ids=st.lists(ROWS, min_size=1, max_size=4))
def test_parts_are_joined_in_their_order(ids):
    assert ids_of(EncodedTexts.concatenate([EncodedTexts.of(rows_of(part)) for part in ids])) == list(
        chain.from_iterable(ids)
    )


def test_rows_without_segments_among_others_have_segment_0():
    encoded = EncodedTexts.of([{"input_ids": [1, 2]}, *rows_of([[3]])])
    assert encoded.types.tolist() == [0, 0, 1]
    parts = [EncodedTexts.of([{"input_ids": [1, 2]}]), EncodedTexts.of(rows_of([[3]]))]
    assert EncodedTexts.concatenate(parts).types.tolist() == [0, 0, 1]


def test_rows_are_counted_from_the_end_too_and_end(one_line_error):
    encoded = EncodedTexts.of(rows_of([[1], [2, 3]]))
    assert encoded[-1]["input_ids"].tolist() == [2, 3]
    with one_line_error(IndexError, "place must be from -2 to 1 (got 2)"):
        encoded[2]


@pytest.mark.parametrize("types", [False, True])
def test_a_text_alone_has_segments_where_the_texts_have(types):
    rows = rows_of([[1, 2]]) if types else [{"input_ids": [1, 2]}]
    assert set(EncodedTexts.of(rows)[0]) == set(rows[0])
