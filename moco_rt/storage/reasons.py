"""The reason of an error, in one line of a length that can be read: libraries write several, or none."""

from __future__ import annotations

#: Characters of a reason: what is longer quotes a file.
_MOST = 300


def reason(error: BaseException) -> str:
    """Return the first line of an error's words, or its type where it has none."""
    return shortened(str(error).strip().partition("\n")[0]) or type(error).__name__


def named_reason(error: BaseException) -> str:
    """Return an error's type and the first line of its words."""
    return f"{type(error).__name__}: {shortened(str(error).strip().partition(chr(10))[0])}"


def shortened(text: object, most: int = _MOST) -> str:
    """Return what was got for an error, in one line of at most so many characters: a file may hold anything."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 4]} ..."
