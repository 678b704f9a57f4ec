"""Tokenising, or opening images, in the background while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

from moco_rt.inputs.tokenization import TokenlessTextError

#: Texts, or images, and what those of a chunk are encoded to.
Item = TypeVar("Item")
Rows = TypeVar("Rows")

#: Texts tokenised at a time, while those before them are computed.
CHUNK_TEXTS = 4096


def prefetch_encoded(
    texts: Iterable[Item], encode: Callable[[list[Item]], Rows], chunk: int | None = None
) -> Iterator[tuple[int, list[Item], Rows]]:
    """Encode texts in chunks, the next chunk in a thread while the caller works on this one.

    The first is encoded in the caller's thread, who has nothing else to do: to start a thread for a few texts takes
    longer than they do.

    Args:
        texts: or images; read one chunk ahead.
        encode: makes the rows of a chunk.
        chunk: how many make one; None: `CHUNK_TEXTS`.

    Yields:
        The place of the chunk's first text, the texts, and what `encode` made of them.

    Raises:
        TokenlessTextError: by the place among all texts.
        Exception: whatever reading the texts raises, after those before it have been given.
    """
    chunks = _chunks(texts, CHUNK_TEXTS if chunk is None else chunk)
    background = ThreadPoolExecutor(max_workers=1)

    def begin(
        encoding: Callable[[list[Item]], Callable[[], Rows]],
    ) -> tuple[int, list[Item], Callable[[], Rows]] | None:
        return next(((start, items, encoding(items)) for start, items in chunks), None)

    try:
        # One chunk waits, one is in work: what is ahead of the model stays small.
        begun = begin(lambda items: partial(encode, items))
        while begun is not None:
            start, items, rows = begun
            try:
                found = rows()
            except TokenlessTextError as error:
                raise TokenlessTextError(error.text, start + error.place) from None
            failure: Exception | None = None
            try:
                begun = begin(lambda items: background.submit(encode, items).result)
            except Exception as error:  # of what follows this chunk, which is done
                failure = error
            yield start, items, found
            if failure is not None:
                raise failure
    finally:
        # Not as a context manager, which joins the thread: a generator that was left unfinished is closed by the
        # garbage collector, in any thread and at any time, also while Python holds the lock that joining takes.
        background.shutdown(wait=False, cancel_futures=True)


def _chunks(texts: Iterable[Item], size: int) -> Iterator[tuple[int, list[Item]]]:
    """Places and chunks of texts; the last one is shorter, also where reading fails."""
    rest = iter(texts)
    start = 0
    failure: Exception | None = None
    while failure is None:
        chunk: list[Item] = []
        try:
            chunk.extend(islice(rest, size))
        except Exception as error:
            failure = error
        if not chunk:
            break
        yield start, chunk
        start += len(chunk)
    if failure is not None:
        raise failure
