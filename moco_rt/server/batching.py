"""Dynamic batching: whatever waits when the model is free is answered together, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_log = logging.getLogger(__name__)

#: Turns n inputs into n results.
Answer = Callable[[Sequence[Any]], Sequence[Any]]

#: How long those who were just answered are waited for when others wait already: a share of what their batch took, and
#: seconds at most.
_RETURN_SHARE, _RETURN_SECONDS = 0.25, 0.02


class ClosedError(RuntimeError):
    """The batcher takes no more requests."""


@dataclass
class Job:
    """The inputs of one request, which stay together.

    Attributes:
        inputs: n inputs.
        tokens: about how many tokens they have.
        arrived: seconds, on `time.monotonic`.
        waited: seconds until a batch with them began.
        computed: seconds that the batch took.
        batch_inputs: how many inputs the batch had.
    """

    inputs: Sequence[Any]
    tokens: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Sequence[Any]]
    arrived: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    computed: float = 0.0
    batch_inputs: int = 0


class Batcher:
    """A queue of requests, and the thread that answers them.

    While a batch runs, the next one gathers. So nobody waits for others in an idle server, and batches grow by
    themselves in a busy one. Many callers ask again once they are answered, and half of them would always wait for the
    other half: so the next batch begins when as many wait as did a batch ago, or after a quarter of the time that the
    last one took. One caller by itself never waits for that.

    Args:
        answer: answers n inputs: n results. It is called in one thread only.
        max_tokens: about how many tokens a batch has; a larger request makes a batch of its own.
        max_wait: seconds that a batch waits for others, from the arrival of its first request; it does not where it is
            full.

    Example:
        >>> batcher = Batcher(answer, max_tokens=16_384, max_wait=0)
        >>> job, results = await batcher.run(["a fine film"], tokens=5)
    """

    def __init__(self, answer: Answer, *, max_tokens: int, max_wait: float):
        self._answer = answer
        self._max_tokens, self._max_wait = max_tokens, max_wait
        self._waiting: deque[Job] = deque()
        self._tokens = 0  # of those that wait
        self._expected, self._expected_by = 1, 0.0  # how many requests are waited for, and until when
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="moco_rt batches")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while requests are answered."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a batch."""
        return len(self._waiting)

    async def run(self, inputs: Sequence[Any], tokens: int) -> tuple[Job, Sequence[Any]]:
        """Answer the inputs of a request.

        Args:
            inputs: n inputs, at least one.
            tokens: about how many they have.

        Returns:
            How it went, and n results.

        Raises:
            ClosedError: the batcher has been closed.
            Exception: whatever `answer` raises of these inputs.
        """
        loop = asyncio.get_running_loop()
        job = Job(inputs, tokens, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ClosedError("the server is shutting down")
            self._waiting.append(job)
            self._tokens += job.tokens
            if self._enough():
                self._changed.notify()
        return job, await job.future

    def close(self) -> None:
        """Take no more requests, and return when those that were taken are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while not (self._closed and not self._waiting):
            batch: list[Job] = []
            try:
                if batch := self._take():
                    began = time.monotonic()
                    self._run(batch)
                    ended = time.monotonic()
                    with self._changed:
                        self._expected = len(batch) + len(self._waiting)
                        self._expected_by = ended + min(_RETURN_SHARE * (ended - began), _RETURN_SECONDS)
            except BaseException as error:  # without the thread all who ask would wait for ever
                _log.exception("a batch failed")
                self._fail(batch, error)

    def _fail(self, batch: Sequence[Job], error: BaseException) -> None:
        """Tell an error to the requests of a batch, and to all that wait."""
        with self._changed:
            jobs = [*batch, *self._waiting]
            self._waiting.clear()
            self._tokens = 0
        _deliver(jobs, [_tellable(error)] * len(jobs))

    def _take(self) -> list[Job]:
        """Wait for requests, and take those that fit in a batch; empty: all have gone, or the batcher is closed."""
        with self._changed:
            self._changed.wait_for(self._enough, max(0.0, self._expected_by - time.monotonic()))
            self._expected = 1
            self._changed.wait_for(self._enough)
            if self._waiting and self._max_wait > 0:
                left = self._waiting[0].arrived + self._max_wait - time.monotonic()
                self._changed.wait_for(self._full, max(0.0, left))
            batch: list[Job] = []
            tokens = 0
            while self._waiting:
                job = self._waiting[0]
                if not job.future.cancelled():  # else whoever asked has gone
                    if batch and tokens + job.tokens > self._max_tokens:
                        break
                    batch.append(job)
                    tokens += job.tokens
                self._waiting.popleft()
                self._tokens -= job.tokens
            return batch

    def _enough(self) -> bool:
        """Return whether as many requests wait as are expected, or nothing is to be waited for."""
        return len(self._waiting) >= self._expected or self._full()

    def _full(self) -> bool:
        return self._closed or self._tokens >= self._max_tokens

    def _run(self, batch: Sequence[Job]) -> None:
        """Answer requests together; where that fails, each by itself, so that an error stays with its own."""
        began = time.monotonic()
        inputs = [each for job in batch for each in job.inputs]
        try:
            results = self._answer(inputs)
        except BaseException as error:  # a panic of a library in Rust is no Exception; the thread must live on
            if len(batch) > 1:
                for job in batch:
                    self._run([job])
            else:
                _deliver(batch, [_tellable(error)])
            return
        took, start, parts = time.monotonic() - began, 0, []
        for job in batch:
            job.waited, job.computed, job.batch_inputs = began - job.arrived, took, len(inputs)
            parts.append(results[start : start + len(job.inputs)])
            start += len(job.inputs)
        _deliver(batch, parts)


def _tellable(error: BaseException) -> Exception:
    """Return an error that a future takes: an event loop takes neither of the two kinds that are renamed."""
    plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if plain else RuntimeError(f"{type(error).__name__}: {error}")  # type: ignore[return-value]


def _deliver(batch: Sequence[Job], results: Sequence[Sequence[Any] | BaseException]) -> None:
    """Give each request of a batch its results; every event loop is woken once."""
    of_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Sequence[Any] | BaseException]]] = {}
    for job, result in zip(batch, results, strict=True):
        of_loop.setdefault(job.loop, []).append((job, result))
    for loop, pairs in of_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_tell, pairs)


def _tell(pairs: Sequence[tuple[Job, Sequence[Any] | BaseException]]) -> None:
    for job, result in pairs:
        if job.future.done():  # whoever asked has gone, or was answered before
            continue
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
