"""Texts to tokens, and what makes two tokenizers the same."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from moco_rt.inputs.texts import TextInput

#: What a tokenizer makes of one text: `input_ids` and, where the model has segments, `token_type_ids`.
Encoded = Mapping[str, Sequence[int]]

#: Tokenizers are not made for two threads: each call sets how it truncates.
_ENCODING = threading.Lock()


def length_limit(tokenizer: Any, max_seqlen: int, max_length: int | None) -> int:
    """How many tokens a text may have: what model and tokenizer allow, or max_length where that is less.

    Raises:
        ValueError: max_length leaves no room for a text.
    """
    specials: int = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= specials:
        raise ValueError(f"max_length must be more than the {specials} special tokens (got {max_length})")
    limit: int = min(max_seqlen, tokenizer.model_max_length, max_length or max_seqlen)
    return limit


def encode(tokenizer: Any, texts: Sequence[TextInput], max_length: int) -> list[Encoded]:
    """Tokenise without padding, truncated to max_length tokens as the tokenizer truncates."""
    with _ENCODING:
        encoded = tokenizer(
            [text if isinstance(text, str) else tuple(text) for text in texts],
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
    return [{name: values[i] for name, values in encoded.items()} for i in range(len(texts))]
