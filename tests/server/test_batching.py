"""The batcher by itself: what waits is answered together, within its limits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from moco_rt.server import batching
from moco_rt.server.batching import Batcher, ClosedError


class Recorder:
    """Answers inputs by their doubles, and remembers the batches; waits for `go` before each."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, inputs):
        self.go.wait(10)
        self.batches.append(list(inputs))
        return [2 * each for each in inputs]


def run(recorder, requests, **limits):
    """Ask for all requests at once, as soon as the first is being answered let go; gives the answers."""
    limits = {"max_tokens": 100, "max_wait": 0.0} | limits

    async def ask():
        batcher = Batcher(recorder, **limits)
        asked = [asyncio.ensure_future(batcher.run(inputs, len(inputs))) for inputs in requests]
        await asyncio.sleep(0.1)
        recorder.go.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.to_thread(batcher.close)
        return [answer if isinstance(answer, Exception) else answer[1] for answer in answers]

    return asyncio.run(ask())


def test_what_waits_while_a_batch_runs_is_the_next_batch():
    recorder = Recorder()
    assert run(recorder, [[1], [2, 3], [4]]) == [[2], [4, 6], [8]]
    assert sorted(each for batch in recorder.batches for each in batch) == [1, 2, 3, 4]
    assert len(recorder.batches) <= 2


def test_a_batch_keeps_to_its_tokens_but_takes_a_large_request_alone():
    recorder = Recorder()
    run(recorder, [[0]] + [[i] * 3 for i in range(1, 5)] + [[9] * 20], max_tokens=6)
    assert all(len(batch) <= 6 or set(batch) == {9} for batch in recorder.batches)


def test_a_batch_waits_for_others_until_its_time_or_until_it_is_full():
    recorder = Recorder()
    recorder.go.set()

    async def ask(tokens):
        batcher = Batcher(recorder, max_tokens=4, max_wait=0.3)
        began = time.monotonic()
        first = asyncio.ensure_future(batcher.run([1], tokens))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, batcher.run([2], tokens))
        took = time.monotonic() - began
        await asyncio.to_thread(batcher.close)
        return took

    assert asyncio.run(ask(1)) >= 0.3
    assert recorder.batches[0] == [1, 2]
    asyncio.run(ask(2))
    assert recorder.batches[1:] in ([[1, 2]], [[1], [2]])


def test_those_who_were_just_answered_are_waited_for_when_others_wait(monkeypatch):
    """Two callers ask again and again: after the first batch, which has one of them, every batch has both."""
    monkeypatch.setattr(batching, "_RETURN_SHARE", 1e9)
    monkeypatch.setattr(batching, "_RETURN_SECONDS", 10.0)
    recorder = Recorder()

    async def caller(batcher, name, times):
        for _ in range(times):
            await batcher.run([name], 1)

    async def ask():
        batcher = Batcher(recorder, max_tokens=100, max_wait=0.0)
        callers = [asyncio.ensure_future(caller(batcher, 1, 4))]
        await asyncio.sleep(0.05)
        callers.append(asyncio.ensure_future(caller(batcher, 2, 3)))
        await asyncio.sleep(0.05)
        recorder.go.set()
        await asyncio.gather(*callers)
        await asyncio.to_thread(batcher.close)

    asyncio.run(ask())
    assert [sorted(batch) for batch in recorder.batches] == [[1], [1, 2], [1, 2], [1, 2]]


def test_those_who_do_not_come_back_are_not_waited_for_long():
    recorder = Recorder()
    recorder.go.set()

    async def ask():
        batcher = Batcher(recorder, max_tokens=100, max_wait=0.0)
        await asyncio.gather(*(batcher.run([i], 1) for i in range(8)))
        answers = [(await batcher.run([i], 1))[1] for i in range(8, 12)]
        await asyncio.to_thread(batcher.close)
        return answers

    assert asyncio.run(ask()) == [[16], [18], [20], [22]]


def test_an_error_is_told_to_the_request_that_it_is_about():
    def picky(inputs):
        if 2 in inputs:
            raise ValueError("no twos")
        return inputs

    async def ask():
        batcher = Batcher(picky, max_tokens=99, max_wait=0.2)
        answers = await asyncio.gather(*(batcher.run([i], 1) for i in range(4)), return_exceptions=True)
        await asyncio.to_thread(batcher.close)
        return answers

    answers = asyncio.run(ask())
    assert [type(each) for each in answers] == [tuple, tuple, ValueError, tuple]


def test_the_thread_outlives_what_is_no_exception():
    class Panic(BaseException):
        """As libraries in Rust raise it."""

    def picky(inputs):
        if 1 in inputs:
            raise Panic("index out of bounds")
        if 2 in inputs:
            raise StopIteration
        return inputs

    async def ask():
        batcher = Batcher(picky, max_tokens=1, max_wait=0.0)
        answers = await asyncio.gather(*(batcher.run([i], 1) for i in range(4)), return_exceptions=True)
        assert batcher.alive
        await asyncio.to_thread(batcher.close)
        return answers

    answers = asyncio.run(ask())
    assert [type(each) for each in answers] == [tuple, RuntimeError, RuntimeError, tuple]
    assert str(answers[1]) == "Panic: index out of bounds"


def test_the_thread_outlives_an_error_of_its_own(caplog):
    """No wait may be endless: it is refused by whatever makes a batcher, but who asks must be told all the same."""

    async def ask():
        batcher = Batcher(lambda inputs: inputs, max_tokens=99, max_wait=float("inf"))
        asked = [asyncio.ensure_future(asyncio.wait_for(batcher.run([i], 1), 10)) for i in range(3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert batcher.alive
        batcher._max_wait = 0.0
        answers.append((await asyncio.wait_for(batcher.run([7], 1), 10))[1])
        await asyncio.to_thread(batcher.close)
        return answers

    *failed, last = asyncio.run(ask())
    assert [type(each) for each in failed] == [OverflowError] * 3
    assert last == [7]
    assert "a batch failed" in caplog.text


def test_the_thread_outlives_no_answer_at_all_and_callers_whose_loop_is_closed():
    go = threading.Event()

    def answer(inputs):
        go.wait(10)
        return None if 1 in inputs else inputs

    batcher = Batcher(answer, max_tokens=1, max_wait=0.0)

    async def ask(number):
        return (await asyncio.wait_for(batcher.run([number], 1), 10))[1]

    async def leave():
        asked = asyncio.ensure_future(batcher.run([0], 1))
        await asyncio.sleep(0.05)
        assert not asked.done()

    asyncio.run(leave())
    go.set()
    with pytest.raises(TypeError):
        asyncio.run(ask(1))
    assert asyncio.run(ask(2)) == [2]
    batcher.close()


def test_a_closed_batcher_answers_what_it_took_and_takes_no_more():
    recorder = Recorder()

    async def ask():
        batcher = Batcher(recorder, max_tokens=1, max_wait=0.0)
        asked = [asyncio.ensure_future(batcher.run([i], 1)) for i in range(3)]
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            await batcher.run([9], 1)
        recorder.go.set()
        await closing
        assert not batcher.alive
        return [(await each)[1] for each in asked]

    assert asyncio.run(ask()) == [[0], [2], [4]]


def test_whoever_has_gone_is_left_out():
    recorder = Recorder()

    async def ask():
        batcher = Batcher(recorder, max_tokens=99, max_wait=0.0)
        first = asyncio.ensure_future(batcher.run([1], 1))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(batcher.run([2], 1))
        stays = asyncio.ensure_future(batcher.run([3], 1))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        recorder.go.set()
        await asyncio.gather(first, stays)
        await asyncio.to_thread(batcher.close)

    asyncio.run(ask())
    assert recorder.batches == [[1], [3]]
