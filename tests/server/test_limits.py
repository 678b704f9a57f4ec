"""The door of the server, asked as an ASGI server asks it."""

from __future__ import annotations

import asyncio

import pytest
from fastapi.responses import Response

from moco_rt.server import limits as limits_module
from moco_rt.server.batching import Batcher
from moco_rt.server.limits import Limits

POST = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
OTHER = Response("other", 404)


def limits(door, **options):
    settings = {"max_open": 2, "max_bytes": 100, "api_key": None, "refused": lambda _: None, **options}
    return Limits(OTHER, {"/predict": door}, **settings)


def body(*parts):
    return [
        {"type": "http.request", "body": part, "more_body": place + 1 < len(parts)} for place, part in enumerate(parts)
    ]


async def ask(app, messages, scope=POST, *, hangs_up=None):
    """The status and the body of an answer, or None; whoever asks hangs up when the event `hangs_up` comes, if ever."""
    messages, said = list(messages), []

    async def receive():
        if messages:
            return messages.pop(0)
        await (hangs_up or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    await app(scope, receive, send)
    return (said[0]["status"], said[1]["body"]) if said else None


async def echo(given):
    return Response(given)


def test_a_body_goes_to_its_door_and_all_else_to_the_application():
    app = limits(echo)
    assert asyncio.run(ask(app, body(b"a", b"b"))) == (200, b"ab")
    assert asyncio.run(ask(app, body(b"a"), {**POST, "path": "/nothing"})) == (404, b"other")
    assert asyncio.run(ask(app, [], {**POST, "method": "GET"})) == (404, b"other")


@pytest.mark.parametrize(
    ("messages", "scope", "status"),
    [
        (body(b"a" * 60, b"b" * 60), POST, 413),
        (body(b"a"), {**POST, "headers": [(b"content-length", b"101")]}, 413),
        (body(b"a"), {**POST, "headers": [(b"content-length", b"many")]}, 413),
    ],
)
def test_too_large_a_body_is_refused(messages, scope, status):
    assert asyncio.run(ask(limits(echo), messages, scope))[0] == status


def test_a_caller_who_goes_before_the_body_has_come_is_no_refusal():
    refused = []
    gone = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]
    app = limits(echo, max_open=1, refused=refused.append)
    assert asyncio.run(ask(app, gone)) is None
    assert refused == []
    assert asyncio.run(ask(app, body(b"a" * 60, b"b" * 60)))[0] == 413
    assert refused == ["Validation"]


def test_a_body_that_does_not_come_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(limits_module, "_PATIENCE", 0.05)

    async def run():
        started = {"type": "http.request", "body": b"a", "more_body": True}
        app = limits(echo, max_open=1)
        assert (await ask(app, [started]))[0] == 408
        assert (await ask(app, body(b"a"))) == (200, b"a")

    asyncio.run(run())


def test_whoever_stops_a_request_is_told():
    """A request that is cancelled from outside, as when the server stops, does not end as if it had been answered."""

    async def run(door, messages):
        asked = asyncio.ensure_future(ask(limits(door), messages))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    async def never(_):
        await asyncio.Event().wait()

    asyncio.run(run(never, body(b"a")))
    asyncio.run(run(never, []))


def test_no_more_are_open_than_may_be():
    async def run():
        go = asyncio.Event()

        async def slow(given):
            await go.wait()
            return Response(given)

        app = limits(slow)
        first = [asyncio.ensure_future(ask(app, body(b"a"))) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await ask(app, body(b"a")))[0] == 429
        go.set()
        assert [await each for each in first] == [(200, b"a")] * 2
        assert (await ask(app, body(b"a")))[0] == 200

    asyncio.run(run())


def test_nobody_computes_for_a_caller_who_has_gone():
    """While a batch runs, one of the two that wait hangs up: the next batch has the other alone."""

    async def run():
        loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        batches = []

        def answer(inputs):
            batches.append(list(inputs))
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return inputs

        batcher = Batcher(answer, max_tokens=1000, max_wait=0)

        async def door(given):
            _, results = await batcher.run([given], 1)
            return Response(results[0])

        app, hangs_up = limits(door, max_open=3), asyncio.Event()
        first = asyncio.ensure_future(ask(app, body(b"first")))
        await begun.wait()
        gone = asyncio.ensure_future(ask(app, body(b"gone"), hangs_up=hangs_up))
        stays = asyncio.ensure_future(ask(app, body(b"stays")))
        while batcher.waiting < 2:
            await asyncio.sleep(0.001)
        hangs_up.set()
        assert await gone is None
        go.set()
        assert [await first, await stays] == [(200, b"first"), (200, b"stays")]
        assert batches == [[b"first"], [b"stays"]]
        await asyncio.to_thread(batcher.close)

    asyncio.run(run())
