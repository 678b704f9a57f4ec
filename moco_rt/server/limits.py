"""The door: callers without the key, requests beyond those that may be open, bodies too large or too slow are refused.

A body goes straight to who answers it: frameworks on the way took more processor time than all else that a server adds
to a short text.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi.responses import Response

from moco_rt.server.refusals import json_response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
#: Answers a body.
Answering = Callable[[bytes], Awaitable[Response]]

#: Seconds within which a body must have come.
_PATIENCE = 30


class Limits:
    """An ASGI application.

    Args:
        app: another, for requests without a body and for paths that are not there.
        doors: by path, who answers a body.
        max_open: requests with a body that are read or answered at once; nothing queues beyond it.
        max_bytes: of a request's body.
        api_key: which `Authorization: Bearer ...` must name, but for `/health`; None: nobody is asked.
        refused: is called with the kind of each refusal.
    """

    def __init__(
        self,
        app: Any,
        doors: Mapping[str, Answering],
        *,
        max_open: int,
        max_bytes: int,
        api_key: str | None,
        refused: Callable[[str], None],
    ):
        self._app, self._doors = app, doors
        self._max_bytes, self._refused = max_bytes, refused
        self._max_open, self._open = max_open, 0
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = self._expected is not None and scope["path"] != "/health"
        length = headers.get(b"content-length", b"0")
        refusal = None
        if asked and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected or b""):
            refusal = self._refusal(401, "Unauthorized", "authorization must be Bearer and the server's key")
        elif not length.isdigit() or int(length) > self._max_bytes:
            refusal = self._too_large()
        elif scope["method"] == "POST" and self._open >= self._max_open:
            words = f"at most {self._max_open} requests may be open at once: try again later"
            refusal = self._refusal(429, "Overloaded", words)
        door = self._doors.get(scope["path"]) if scope["method"] == "POST" else None
        if refusal is not None or door is None:
            await (refusal or self._app)(scope, receive, send)
            return
        self._open += 1
        try:
            await self._answer(door, scope, receive, send)
        finally:
            self._open -= 1

    async def _answer(self, door: Answering, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when its body has come; where its caller hangs up before, nobody."""
        asking = asyncio.current_task()
        assert asking is not None
        late = False

        def expire() -> None:
            nonlocal late
            late = asking.cancel()

        patience = asyncio.get_running_loop().call_later(_PATIENCE, expire)
        try:
            body = await self._read(receive)
        except asyncio.CancelledError:
            if not late:
                raise
            await self._refusal(408, "Validation", f"a body must come within {_PATIENCE} s")(scope, receive, send)
            return
        finally:
            patience.cancel()
        if body is None:
            return
        if len(body) > self._max_bytes:
            await self._too_large()(scope, receive, send)
            return
        gone = asyncio.ensure_future(receive())  # nothing else can come behind a body
        gone.add_done_callback(stop := lambda _: asking.cancel())
        try:
            response = await door(body)
        except asyncio.CancelledError:
            if not gone.done():
                raise
            return
        finally:
            gone.remove_done_callback(stop)
            gone.cancel()
        await response(scope, receive, send)

    def _too_large(self) -> Response:
        return self._refusal(413, "Validation", f"a request may have at most {self._max_bytes} bytes")

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the whole body, or what is already too much of it; None: whoever sent it has gone."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes or not message.get("more_body", False):
                return b"".join(parts)

    def _refusal(self, status: int, kind: str, words: str) -> Response:
        """Count a refusal, and return what tells of it."""
        self._refused(kind)
        return json_response({"error": words, "error_type": kind}, status)
