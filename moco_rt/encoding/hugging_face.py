"""Hugging Face's tokenizers: what every tokenizer can be asked, and what all others must agree with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from moco_rt.encoding.encoded_texts import EncodedTexts

#: What a class of tokenizers may do in its own way instead of calling the library.
_STEPS = ("__call__", "_encode_plus", "set_truncation_and_padding", "_convert_encoding")


def encode_as_given(tokenizer: Any, texts: Sequence[str | tuple[str, str]], max_length: int) -> EncodedTexts:
    """Tokenise without padding, truncated to max_length tokens as the tokenizer truncates.

    Any number of threads may do so at once, whatever else is done with the tokenizer meanwhile.
    """
    own = private_copy(tokenizer)
    if not calls_the_library(tokenizer):
        encoded = own(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        return EncodedTexts.of([{name: encoded[name][place] for name in names} for place in range(len(texts))])
    backend = own.backend_tokenizer
    backend.encode_special_tokens = tokenizer.split_special_tokens
    backend.enable_truncation(max_length, stride=0, strategy="longest_first", direction=tokenizer.truncation_side)
    found = backend.encode_batch_fast(list(texts))
    lengths = np.fromiter(map(len, found), np.int64, count=len(found))
    tokens = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(row.ids for row in found), np.int32, count=tokens)
    types = None
    if "token_type_ids" in tokenizer.model_input_names:
        types = np.fromiter(chain.from_iterable(row.type_ids for row in found), np.int32, count=tokens)
    return EncodedTexts(ids, lengths, types if types is not None and types.any() else None)


def calls_the_library(tokenizer: Any) -> bool:
    """Tell whether a tokenizer does no more than set the truncation and call its backend."""
    from transformers.tokenization_utils_tokenizers import TokenizersBackend  # seconds, for which help must not wait

    return isinstance(tokenizer, TokenizersBackend) and all(
        getattr(type(tokenizer), step) is getattr(TokenizersBackend, step) for step in _STEPS
    )


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
