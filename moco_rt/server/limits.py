"""Limits: bodies that are too large, and callers without the key, are refused before a request is read."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Limits:
    """An ASGI application around another.

    Args:
        app: the other.
        max_bytes: of a request's body.
        api_key: which `Authorization: Bearer ...` must name, but for `/health`; None: nobody is asked.
        refused: is called with the kind of each refusal.
    """

    def __init__(self, app: Any, *, max_bytes: int, api_key: str | None, refused: Callable[[str], None]):
        self._app, self._max_bytes, self._refused = app, max_bytes, refused
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = self._expected is not None and scope["path"] != "/health"
        if asked and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected or b""):
            await self._refuse(send, 401, "Unauthorized", "authorization must be Bearer and the server's key")
            return
        words = f"a request may have at most {self._max_bytes} bytes"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            await self._refuse(send, 413, "Validation", words)
            return
        body = await self._read(receive)
        if body is None:
            await self._refuse(send, 413, "Validation", words)
            return
        whole = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> MutableMapping[str, Any]:
            nonlocal whole
            message, whole = whole, {}
            return message or await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the whole body; None: it is too large, or whoever sent it has gone."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(self, send: Send, status: int, kind: str, words: str) -> None:
        self._refused(kind)
        body = json.dumps({"error": words, "error_type": kind}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
