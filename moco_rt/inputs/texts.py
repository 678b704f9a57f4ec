"""Texts as callers hand them over."""

from __future__ import annotations

from typing import Any

#: One text, or a pair.
TextInput = str | tuple[str, str] | list[str]


def check_texts(texts: Any) -> None:
    """Raise TypeError where texts is a single one."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of texts (got one str)")


def check_text(text: Any, place: int) -> None:
    """Raise TypeError unless text is one, or a pair of them."""
    pair = isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(part, str) for part in text)
    if not (isinstance(text, str) or pair):
        raise TypeError(f"texts must hold texts or pairs of texts (got {type(text).__name__} at place {place})")
