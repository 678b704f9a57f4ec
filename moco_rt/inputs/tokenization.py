"""Texts to tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from moco_rt.inputs.texts import TextInput, lone_surrogate

#: What a tokenizer makes of one text: `input_ids` and, where the model has segments, `token_type_ids`.
Encoded = Mapping[str, Sequence[int]]


def length_limit(tokenizer: Any, max_seqlen: int, max_length: int | None) -> int:
    """Return the number of tokens a text may have: the least of what model, tokenizer and max_length allow.

    Raises:
        ValueError: max_length leaves no room for a text.
    """
    specials: int = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= specials:
        raise ValueError(f"max_length must be more than the {specials} special tokens (got {max_length})")
    limit: int = min(max_seqlen, tokenizer.model_max_length, max_length or max_seqlen)
    return limit


def encode(tokenizer: Any, texts: Sequence[TextInput], max_length: int) -> list[Encoded]:
    """Tokenise without padding, truncated to max_length tokens as the tokenizer truncates.

    Any number of threads may do so at once, whatever else is done with the tokenizer meanwhile.

    Raises:
        ValueError: a text holds a lone surrogate, which the tokenizer does not take.
    """
    try:
        encoded = private_copy(tokenizer)(
            [text if isinstance(text, str) else tuple(text) for text in texts],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
    except (TypeError, UnicodeEncodeError) as error:  # the library's words do not say what is wrong
        found = next(filter(None, map(lone_surrogate, texts)), None)
        if found is None:
            raise
        raise ValueError(f"texts must be valid Unicode (got a {found} of a text)") from error
    return [{name: values[i] for name, values in encoded.items()} for i in range(len(texts))]


def private_copy(tokenizer: Any) -> Any:
    """Copy what calls of a tokenizer change, its truncation and padding, and share the rest: 15 microseconds.

    A call on a tokenizer of the `tokenizers` library first sets on the one shared object how it truncates: calls of two
    threads would cut each other's texts. The vocabulary and the other steps are not copied. Tokenizers in Python keep
    nothing between calls, and are returned as they are.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer
    own = type(backend)(backend.model)
    for step in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        setattr(own, step, getattr(backend, step))
    # In the order of their numbers, which the words that the vocabulary lacks get anew.
    own.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    own.encode_special_tokens = backend.encode_special_tokens
    copied = copy.copy(tokenizer)
    copied._tokenizer = own
    return copied
