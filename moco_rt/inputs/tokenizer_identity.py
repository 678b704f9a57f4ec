"""The identity of a tokenizer: fingerprints, and the settings that a tokenizer's own files lose."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

#: What decides about tokens beside a tokenizer's backend.
_SETTINGS = ("model_input_names", "truncation_side", "split_special_tokens")
#: Switches of tokenizers in Python that say nothing about tokens.
_OTHER_SWITCHES = (
    "verbose",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
)
#: Settings of a backend's model that can be changed in place.
_MODEL_SETTINGS = ("unk_token", "dropout", "max_input_chars_per_word", "continuing_subword_prefix", "ignore_merges")

#: Of each tokenizer what it looked like and its fingerprints then: to make one takes 20 ms.
_known: WeakKeyDictionary[Any, tuple[Any, dict[str, str]]] = WeakKeyDictionary()


def check_is_tokenizer(tokenizer: Any) -> None:
    """Refuse what is no tokenizer of Hugging Face's `transformers`, such as a name or one of the library `tokenizers`.

    Raises:
        TypeError: it is none.
    """
    if not all(hasattr(tokenizer, name) for name in ("num_special_tokens_to_add", "model_max_length")):
        kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"tokenizer must be one of Hugging Face's transformers (got {kind})")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Compute the sha256 over all of a tokenizer that decides about tokens.

    These are normaliser, pre-tokeniser, vocabulary and post-processor, in the form in which the `tokenizers` library
    writes them (of steps in Python it only says that they are there), special tokens and settings; of a tokenizer in
    Python its class, vocabulary, special tokens and switches. Truncation to a length and padding, which each call sets,
    are left out. Words that are added, and settings that change, are noticed; a vocabulary that is replaced by one of
    as many words in the same object is not.
    """
    return _remember(
        tokenizer,
        "whole",
        lambda: [_content(tokenizer), tokenizer.all_special_tokens, tokenizer_settings(tokenizer)],
    )


def legacy_tokenizer_fingerprint(tokenizer: Any) -> str:
    """Compute the fingerprint that policies of version 1 hold: sha256 over the vocabulary and the special tokens."""
    return _remember(tokenizer, "legacy", lambda: [_vocabulary(tokenizer), tokenizer.all_special_tokens])


def tokenizer_settings(tokenizer: Any) -> dict[str, Any]:
    """Return what a tokenizer's backend does not know, and `save_pretrained` of the tokenizer may not write."""
    return {name: getattr(tokenizer, name) for name in _SETTINGS if hasattr(tokenizer, name)}


def set_tokenizer(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Give a tokenizer what `tokenizer_settings` returned.

    Raises:
        ValueError: it returns no such setting.
    """
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise ValueError(f"settings of a tokenizer must be some of {', '.join(_SETTINGS)} (got {name!r})")
        setattr(tokenizer, name, value)


def save_tokenizer(tokenizer: Any, directory: str | Path) -> None:
    """Write a tokenizer with the settings that it has now, so that the one that is loaded has the same fingerprint.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    copied = copy.copy(tokenizer)
    copied.init_kwargs = {**tokenizer.init_kwargs, **tokenizer_settings(tokenizer)}
    try:
        copied.save_pretrained(directory)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(f"{directory}: {error}") from error  # of tokenizers, which has no kinds of errors


def _remember(tokenizer: Any, kind: str, content: Callable[[], Any]) -> str:
    """Return the sha256 of the content, which is made anew only where the tokenizer looks different."""
    check_is_tokenizer(tokenizer)
    now = _appearance(tokenizer)
    known = _known.get(tokenizer)
    if known is None or known[0] != now:
        known = _known[tokenizer] = (now, {})
    if kind not in known[1]:
        known[1][kind] = hashlib.sha256(json.dumps(content(), sort_keys=True).encode()).hexdigest()
    return known[1][kind]


def _content(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        try:
            return {**json.loads(backend.to_str()), "truncation": None, "padding": None}
        except Exception:  # the library cannot write steps in Python
            return [_vocabulary(tokenizer), _steps(backend)]
    return [type(tokenizer).__name__, _vocabulary(tokenizer), _switches(tokenizer)]


def _appearance(tokenizer: Any) -> tuple[Any, ...]:
    """Return markers that are read in microseconds and differ after a change of the tokenizer."""
    seen = (len(tokenizer), list(tokenizer.all_special_tokens), copy.deepcopy(tokenizer_settings(tokenizer)))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return *seen, _switches(tokenizer)
    model = backend.model
    settings = [getattr(model, name, None) for name in _MODEL_SETTINGS]
    added = sorted((number, repr(word)) for number, word in backend.get_added_tokens_decoder().items())
    return *seen, id(backend), type(model), settings, added, _steps(backend)


def _steps(backend: Any) -> list[str]:
    """Describe the steps of a backend; of a step in Python it is only known that there is one."""
    found = []
    for step in (backend.normalizer, backend.pre_tokenizer, backend.post_processor):
        try:
            found.append(repr(step))
        except Exception:
            found.append(type(step).__name__)
    return found


def _switches(tokenizer: Any) -> dict[str, bool]:
    return {
        name: value
        for name, value in sorted(vars(tokenizer).items())
        if isinstance(value, bool) and not name.startswith("_") and name not in _OTHER_SWITCHES
    }


def _vocabulary(tokenizer: Any) -> Any:
    return tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
