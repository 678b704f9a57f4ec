"""Cutting to a length and framing, against the library that does it with the texts."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from moco_rt.encoding.cutting import Frame, longest_first

PLAIN = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)
DOUBLED = processors.TemplateProcessing(
    single="$A [SEP] [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)
SWAPPED = processors.TemplateProcessing(
    single="[CLS] $A", pair="[CLS] $B [SEP] $A", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)


def make_backend(template):
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, **{f"w{i}": i + 3 for i in range(40)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = template
    return backend


def make_text(random):
    return " ".join(f"w{i}" for i in random.integers(0, 40, int(random.integers(0, 14))))


@pytest.mark.parametrize("template", [PLAIN, DOUBLED], ids=["plain", "doubled"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pairs", [False, True])
def test_texts_are_cut_and_framed_as_the_library_does(template, side, pairs):
    backend, random = make_backend(template), np.random.default_rng(0)
    texts = [(make_text(random), make_text(random)) if pairs else make_text(random) for _ in range(300)]
    frame = Frame.of(backend.encode(*(("w1", "w1") if pairs else ("w1",))))
    parts = [part for text in texts for part in (text if pairs else (text,))]
    rows = [row.ids for row in backend.encode_batch(parts, add_special_tokens=False)]
    ids, lengths = np.array(list(chain.from_iterable(rows)), np.uint32), np.array([len(row) for row in rows])
    for max_length in (5, 6, 7, 12, 100):
        backend.enable_truncation(max_length, direction=side)
        found = frame.put_around(ids, lengths, max_length, from_left=side == "left")
        for text, row, expected in zip(texts, found, backend.encode_batch(texts), strict=True):
            assert row["input_ids"].tolist() == expected.ids, (text, max_length)
            assert list(row.get("token_type_ids", [0] * len(expected.ids))) == expected.type_ids


def test_no_texts_make_no_rows():
    frame = Frame.of(make_backend(PLAIN).encode("w1", "w2"))
    assert len(frame.put_around(np.empty(0, np.int32), np.empty(0, np.int64), 8)) == 0


def test_pairs_in_another_order_have_no_frame():
    assert Frame.of(make_backend(SWAPPED).encode("w1", "w2")) is None


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        *[((3, 3), 6, (3, 3)), ((9, 2), 6, (4, 2)), ((2, 9), 6, (2, 4)), ((9, 9), 7, (3, 4)), ((9, 8), 7, (4, 3))],
        *[((1, 5), 1, (0, 1)), ((0, 9), 4, (0, 4))],
    ],
)
def test_the_longer_part_is_cut_first(lengths, room, kept):
    assert longest_first(np.array([lengths]), room).tolist() == [list(kept)]
