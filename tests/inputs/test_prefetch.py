"""Texts as they come, encoded one chunk ahead."""

from __future__ import annotations

import threading

import pytest

from moco_rt.inputs import prefetch
from moco_rt.inputs.prefetch import prefetch_encoded
from moco_rt.inputs.tokenization import TokenlessTextError


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_texts_come_in_chunks_with_what_was_made_of_them(monkeypatch, chunk):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", chunk)
    found = list(prefetch_encoded(iter("abcdefg"), lambda texts: [text.upper() for text in texts]))
    assert [start for start, _, _ in found] == list(range(0, 7, chunk))
    assert "".join(text for _, texts, _ in found for text in texts) == "abcdefg"
    assert "".join(row for _, _, rows in found for row in rows) == "ABCDEFG"
    assert all(len(texts) == chunk for _, texts, _ in found[:-1])


def test_of_no_texts_nothing_comes():
    assert list(prefetch_encoded([], list)) == []


def test_one_chunk_is_encoded_ahead_and_no_more(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)
    read = []
    chunks = prefetch_encoded((read.append(text) or text for text in "abcdefgh"), list)
    assert read == []
    assert [next(chunks)[0] for _ in range(2)] == [0, 2]
    assert "".join(read) == "abcdef"


def test_an_error_while_encoding_comes_in_its_place(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)

    def encode(texts):
        return [1 / len(text) for text in texts]

    chunks = prefetch_encoded(["a", "b", "", "d"], encode)
    assert next(chunks) == (0, ["a", "b"], [1.0, 1.0])
    with pytest.raises(ZeroDivisionError):
        next(chunks)


def test_a_text_without_tokens_is_named_by_its_place_among_all(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 10)

    def encode(texts):
        if "" in texts:
            raise TokenlessTextError("", texts.index(""), len(texts))
        return texts

    found = []
    with pytest.raises(TokenlessTextError, match="text at place 37 must have at least one token"):
        found.extend(start for start, _, _ in prefetch.prefetch_encoded([*map(str, range(37)), "", "x"], encode))
    assert found == [0, 10, 20]


@pytest.mark.parametrize(("chunk", "sizes"), [(2, [2, 1]), (3, [3]), (8, [3])])
def test_an_error_while_reading_comes_after_what_was_read(monkeypatch, chunk, sizes):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", chunk)

    def read():
        yield from "abc"
        raise OSError

    found = []
    with pytest.raises(OSError):  # noqa: PT011
        found.extend(iter(prefetch_encoded(read(), list)))
    assert [len(texts) for _, texts, _ in found] == sizes


def test_closing_does_not_wait_for_the_thread(monkeypatch):
    """The garbage collector closes what was left unfinished, perhaps where joining a thread would never end."""
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 1)
    release, finished = threading.Event(), threading.Event()

    def encode(texts):
        if texts == ["b"]:
            release.wait(timeout=60)
            finished.set()
        return texts

    chunks = prefetch_encoded("abc", encode)
    assert next(chunks)[1] == ["a"]
    chunks.close()
    assert not finished.is_set()
    release.set()
