"""Refusals: the errors that callers are told of, in the words and numbers of text-embeddings-inference."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from moco_rt.server.batching import ClosedError
from moco_rt.server.shapes import Refusal

_STATUS = {"Empty": 400, "Validation": 422, "Backend": 424, "Overloaded": 429, "Unhealthy": 503}
#: Of endpoints that take texts, for the description of the interface.
REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"model": Refusal, "description": "too many bytes, or too many texts"},
    **{status: {"model": Refusal, "description": kind} for kind, status in _STATUS.items()},
}


class RefusedError(Exception):
    """A request cannot be answered.

    Args:
        kind: of `Refusal.error_type`.
        words: the reason, on one line.
        status: of HTTP; None: the kind's.
    """

    def __init__(self, kind: str, words: str, status: int | None = None):
        super().__init__(words)
        self.kind, self.status = kind, status or _STATUS[kind]


def as_refusal(error: Exception) -> RefusedError:
    """Return what to say of an error, on one line."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, ClosedError):
        return RefusedError("Unhealthy", str(error))
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        return RefusedError("Validation", " ".join(f"{where}: {first['msg']}".split()))
    if isinstance(error, HTTPException):
        # 400 is a body that cannot be parsed, but here it says that there is nothing to answer.
        return RefusedError("Validation", str(error.detail), 422 if error.status_code == 400 else error.status_code)
    return RefusedError("Backend", " ".join(f"{type(error).__name__}: {error}".split()))


def parsed(body: bytes) -> Any:
    """Return the JSON of a body.

    Raises:
        RefusedError: it is none, or lists or numbers in it are too long for Python.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError("Validation", "body must be JSON (got something else)") from error


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response whose body is JSON in UTF-8."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(content, status, headers, media_type="application/json")
