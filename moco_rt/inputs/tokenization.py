"""Texts to tokens."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from moco_rt.encoding import EncodedTexts
from moco_rt.encoding.fast_texts import fast_texts
from moco_rt.encoding.hugging_face import encode_as_given
from moco_rt.inputs.texts import TextInput, lone_surrogate
from moco_rt.inputs.tokenizer_identity import check_is_tokenizer, tokenizer_fingerprint


class TokenlessTextError(ValueError):
    """A text of which the tokenizer makes no token: an empty one, where it adds no special tokens.

    Attributes:
        text: the text, or pair.
        place: its index among the texts.
        texts: how many there are; None: not known.
    """

    def __init__(self, text: TextInput, place: int, texts: int | None = None):
        super().__init__(text, place, texts)
        self.text = text
        self.place = place
        self.texts = texts

    def __str__(self) -> str:
        text, place = reprlib.repr(self.text), f"{self.place:,}"
        place += "" if self.texts is None else f" of {self.texts:,}"
        return f"text at place {place} must have at least one token (got none from {text})"


def length_limit(tokenizer: Any, max_seqlen: int, max_length: int | None) -> int:
    """Return the number of tokens a text may have: the least of what model, tokenizer and max_length allow.

    Raises:
        TypeError: tokenizer is none of Hugging Face's, or max_length is no whole number.
        ValueError: one of the three leaves no room for a text.
    """
    check_is_tokenizer(tokenizer)
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, Integral)):
        raise TypeError(f"max_length must be a whole number (got {max_length!r})")
    specials: int = tokenizer.num_special_tokens_to_add()
    limits = {"max_length": max_length, "tokenizer.model_max_length": tokenizer.model_max_length}
    limits = {name: limit for name, limit in limits.items() if limit is not None} | {"the model's length": max_seqlen}
    for name, limit in limits.items():
        if limit <= specials:
            raise ValueError(f"{name} must be more than the {specials} special tokens (got {limit})")
    return int(min(limits.values()))


def encode(tokenizer: Any, texts: Sequence[TextInput], max_length: int) -> EncodedTexts:
    """Tokenise without padding, truncated to max_length tokens as the tokenizer truncates.

    Any number of threads may do so at once, whatever else is done with the tokenizer meanwhile.

    Raises:
        TokenlessTextError: the tokenizer makes no token of a text: no model can answer that.
        ValueError: a text holds a lone surrogate, which the tokenizer does not take.
    """
    fast = fast_texts(tokenizer, tokenizer_fingerprint)
    rows = [text if isinstance(text, str) else (text[0], text[1]) for text in texts]
    try:
        encode_rows = encode_as_given if fast is None else fast.encode
        encoded = encode_rows(tokenizer, rows, max_length)
    except (TypeError, UnicodeEncodeError) as error:  # the library's words do not say what is wrong
        found = next(filter(None, map(lone_surrogate, texts)), None)
        if found is None:
            raise
        raise ValueError(f"texts must be valid Unicode (got a {found} of a text)") from error
    if not encoded.lengths.all():
        place = int(encoded.lengths.argmin())
        raise TokenlessTextError(texts[place], place, len(texts))
    return encoded
