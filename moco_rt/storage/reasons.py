"""The reason of an error, in one line: libraries write several, or none."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """Return the first line of an error's words, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def named_reason(error: BaseException) -> str:
    """Return an error's type and the first line of its words."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
