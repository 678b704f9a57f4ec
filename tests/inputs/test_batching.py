from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import by_length, by_tokens, packed_batches, pad
from moco_rt.inputs.tokenization import encode

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def rows_of(lengths):
    """Rows whose tokens are 1, 2, ...: 0 is padding."""
    return [{"input_ids": list(range(1, length + 1)), "token_type_ids": [1] * length} for length in lengths]


@given(lengths=LENGTHS, batch_rows=st.integers(1, 8))
def test_batches_by_length_hold_every_row_once_and_the_shortest_first(lengths, batch_rows):
    batches = list(by_length(rows_of(lengths), batch_rows))
    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert [lengths[place] for place in places] == sorted(lengths)
    assert all(len(batch) == batch_rows for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_rows


def test_rows_of_equal_length_stay_in_order():
    assert list(by_length(rows_of([2, 1, 2, 1, 2]), 2)) == [[1, 3], [0, 2], [4]]


def test_no_rows_make_no_batches():
    assert list(by_length([], 4)) == []


@given(lengths=LENGTHS)
def test_padding_is_on_the_right_and_masked(lengths):
    inputs = pad(rows_of(lengths))
    assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask"}
    for i, length in enumerate(lengths):
        rest = [0] * (max(lengths) - length)
        assert inputs["input_ids"][i].tolist() == [*range(1, length + 1), *rest]
        assert inputs["token_type_ids"][i].tolist() == [1] * length + rest
        assert inputs["attention_mask"][i].tolist() == [1] * length + rest
    assert {values.dtype for values in inputs.values()} == {torch.int64}


def test_rows_without_segments_have_none():
    assert set(pad([{"input_ids": [1, 2]}])) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_texts_are_encoded_one_by_one_and_without_padding(padding_side):
    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", padding_side=padding_side)
    texts = ["a b c a b c", "c", ("a b", "c"), ["a", "z"], ("", "b")]
    encoded = encode(tokenizer, texts, max_length=4)
    assert [row["input_ids"].tolist() for row in encoded] == [[1, 2, 3, 1], [3], [1, 2, 3], [1, 0], [2]]
    assert all("attention_mask" not in row for row in encoded)


@pytest.mark.parametrize(("lengths", "tokens"), [([1, 1, 1], 2), ([9, 3, 5], 4), ([8, 2, 2, 3, 8], 16), ([7], 100)])
def test_batches_by_tokens_hold_every_row_once_and_few_tokens(lengths, tokens):
    runs = list(by_tokens(rows_of(lengths), tokens))
    assert sorted(place for run in runs for place in run) == list(range(len(lengths)))
    assert [lengths[place] for run in runs for place in run] == sorted(lengths)
    assert all(len(run) == 1 or lengths[run[-1]] * len(run) <= tokens for run in runs)


@given(lengths=LENGTHS, tokens=st.integers(1, 40))
def test_packed_batches_are_those_by_tokens(lengths, tokens):
    rows = rows_of(lengths)
    batches = list(packed_batches(EncodedTexts.of(rows), tokens))
    assert [places.tolist() for places, _ in batches] == list(by_tokens(rows, tokens))
    for places, batch in batches:
        assert [row["input_ids"].tolist() for row in batch] == [rows[place]["input_ids"] for place in places]
        assert batch.types.tolist() == [1] * len(batch.ids)
