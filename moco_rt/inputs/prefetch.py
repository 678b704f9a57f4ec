"""Tokenising in the background while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from moco_rt.inputs.texts import TextInput, check_text

#: Texts tokenised at a time, while those before them are computed.
CHUNK_TEXTS = 4096


def prefetch_encoded(
    texts: Iterable[TextInput], encode: Callable[[list[TextInput]], list[Any]]
) -> Iterator[tuple[int, list[TextInput], list[Any]]]:
    """Texts from place `start` on with what `encode` makes of them; the next ones are on their way meanwhile.

    Raises:
        TypeError: one of them is neither a text nor a pair of texts.
    """
    chunks = _chunks(texts)
    with ThreadPoolExecutor(max_workers=1) as background:

        def begin() -> tuple[int, list[TextInput], Future[list[Any]]] | None:
            return next(((start, chunk, background.submit(encode, chunk)) for start, chunk in chunks), None)

        # One chunk waits, one is in work: what is ahead of the model stays small.
        begun = begin()
        while begun is not None:
            start, chunk, rows = begun
            found = rows.result()
            begun = begin()
            yield start, chunk, found


def _chunks(texts: Iterable[TextInput]) -> Iterator[tuple[int, list[TextInput]]]:
    rest = iter(texts)
    start = 0
    while chunk := list(islice(rest, CHUNK_TEXTS)):
        for place, text in enumerate(chunk, start):
            check_text(text, place)
        yield start, chunk
        start += len(chunk)
