"""A JSON array that is read item by item, so that a file may be larger than memory."""

from __future__ import annotations

import codecs
import itertools
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

#: Bytes that are read at a time.
_CHUNK = 1 << 16
_BLANK = re.compile(r"[ \t\n\r]*")
#: The longest piece of JSON that only its next characters complete, such as `\ud83d\ude0`.
_LONGEST_PIECE = 16


def not_an_object(place: str, excerpt: str, error: Exception) -> ValueError:
    """Return what is raised where JSON cannot be decoded.

    Args:
        place: file and line, or file and row.
        excerpt: how it begins.
        error: the decoder's.
    """
    if isinstance(error, json.JSONDecodeError | RecursionError):
        return ValueError(f"{place} must be a JSON object (got {excerpt!r})")
    most = sys.get_int_max_str_digits()
    return ValueError(f"{place} must have numbers of at most {most:,} digits (got a longer one in {excerpt!r})")


def array_items(stream: BinaryIO, name: str) -> Iterator[Any]:
    """Read an array of objects from where it begins.

    Args:
        stream: UTF-8; its first sign that is not blank is `[`.
        name: what error messages call the file.

    Yields:
        Its items, one after the other; held in memory is no more than one, and a piece of the file.

    Raises:
        ValueError: it is not such an array, or it ends too soon.
    """
    window = _Window(stream)
    try:
        window.take("[")
        if window.take("]"):
            window.check_end(name)
            return
        for row in itertools.count(1):
            place = f"{name}, row {row}"
            if window.next() != "{":
                raise ValueError(f"{place} must be a JSON object (got {window.excerpt()!r})")
            yield window.item(place)
            if window.take("]"):
                window.check_end(name)
                return
            if not window.take(","):
                raise ValueError(f"{place} must be followed by a comma or ] (got {window.excerpt()!r})")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be text in utf-8 (got byte 0x{error.object[error.start]:02x})") from None


class _Window:
    """The piece of a text that is being read."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next sign that is not blank, which stays; empty at the end."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, sign: str) -> bool:
        """Step over the next sign that is not blank if it is this one."""
        taken = self.next() == sign
        self._at += taken
        return taken

    def item(self, place: str) -> Any:
        """Decode the item that begins here and step over it."""
        while True:
            try:
                value, self._at = self._decode(self._text, self._at)
                return value
            except (ValueError, RecursionError) as error:
                if not (self._is_cut(error) and self._more()):
                    raise not_an_object(place, self.excerpt(), error) from None

    def _is_cut(self, error: Exception) -> bool:
        """True where decoding failed at the end of the piece, which may go on."""
        return isinstance(error, json.JSONDecodeError) and (
            error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _LONGEST_PIECE
        )

    def excerpt(self) -> str:
        """The next characters, for error messages."""
        return self._text[self._at : self._at + 40]

    def check_end(self, name: str) -> None:
        """Refuse anything behind the array."""
        if self.next():
            raise ValueError(f"{name} must be one JSON array (got {self.excerpt()!r} behind it)")

    def _more(self) -> bool:
        """Read on, twice as much as is held: an item is decoded again and again until it is whole."""
        self._text = self._text[self._at :]
        self._at = 0
        piece = self._stream.read(max(_CHUNK, len(self._text)))
        self._text += self._decoder.decode(piece, final=not piece)
        return bool(piece)
