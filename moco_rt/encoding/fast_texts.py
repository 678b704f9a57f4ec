"""The `tokie` library beside Hugging Face's: for texts of characters that both are proven to treat alike.

Hugging Face's ids are the ones that count. Whatever is not proven is left to it, and some of what is proven is asked of
both all the same: if they ever differ, Hugging Face's library does all from then on, and the log says so.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from moco_rt.encoding.characters import ProvenCharacters
from moco_rt.encoding.cutting import Frame
from moco_rt.encoding.encoded_texts import EncodedTexts
from moco_rt.encoding.hugging_face import calls_the_library, encode_as_given, private_copy
from moco_rt.encoding.proof_files import proof_file

tokie: Any
try:
    tokie = import_module("tokie")
except ImportError:
    tokie = None

#: Version of how characters are proven: proofs of another one are made anew.
_PROOF = 1
#: Texts that are asked of both libraries: the first of all, and then the first of every call with many.
_CHECKED_FIRST, _CHECKED_EACH, _MANY = 64, 4, 512

_Text = str | tuple[str, str]

_log = logging.getLogger(__name__)

#: The process that has threads of tokie's: children of fork() have none of them, and would wait for them.
_process: int | None = None
#: Of each tokenizer its fingerprint and what was made for it; None: it is not covered.
_known: WeakKeyDictionary[Any, tuple[str, FastTexts | None]] = WeakKeyDictionary()


def fast_texts(tokenizer: Any, fingerprint: Callable[[Any], str]) -> FastTexts | None:
    """Return what encodes a tokenizer's texts faster; None: the library is not there, or does not cover it.

    Args:
        tokenizer: from Hugging Face.
        fingerprint: identifies a tokenizer as it is now.
    """
    global _process
    if tokie is None or os.environ.get("MOCO_FAST_TEXTS") == "0" or not calls_the_library(tokenizer):
        return None
    _process = os.getpid() if _process is None else _process
    if _process != os.getpid():
        return None
    name = fingerprint(tokenizer)
    known = _known.get(tokenizer)
    if known is None or known[0] != name:
        try:
            known = (name, FastTexts(tokenizer, name))
        except ValueError as reason:
            _log.info("texts are encoded by Hugging Face's library alone: %s", reason)
            known = (name, None)
        _known[tokenizer] = known
    return known[1]


class FastTexts:
    """One tokenizer's texts, encoded by tokie where that is proven to give Hugging Face's ids.

    Args:
        tokenizer: from Hugging Face, as it is now.
        fingerprint: identifies it.

    Raises:
        ValueError: the tokenizer is not of the kind that proofs speak of, or tokie does not load it or does not agree.
    """

    def __init__(self, tokenizer: Any, fingerprint: str):
        backend = private_copy(tokenizer).backend_tokenizer
        content = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
        _check_kind(content)
        self._backend = backend
        self._engine = _load(content)
        self._from_left = tokenizer.truncation_side == "left"
        self._types = "token_type_ids" in tokenizer.model_input_names
        self._added = [token["content"] for token in content["added_tokens"]]
        self._beginnings = sorted({token[:1] for token in self._added})
        self._frames = [_frame(backend, "a"), _frame(backend, ("a", "a"))]
        self._unchecked = _CHECKED_FIRST
        self._differs = False
        model, pre_tokenizer, normalizer = content["model"], backend.pre_tokenizer, backend.normalizer
        self._characters = ProvenCharacters(
            self._words_as_given,
            self._words,
            normalise=normalizer.normalize_str,
            words=lambda text: [word for word, _ in pre_tokenizer.pre_tokenize_str(text)],
            unknown=model["vocab"][model["unk_token"]],
            longest=model["max_input_chars_per_word"],
            file=proof_file(f"{fingerprint}-{version('tokenizers')}-{version('tokie')}-{_PROOF}"),
        )

    def encode(self, tokenizer: Any, texts: Sequence[_Text], max_length: int) -> EncodedTexts:
        """Tokenise as `encode_as_given` does."""
        if self._differs:
            return encode_as_given(tokenizer, texts, max_length)
        fit, single = self._fit(texts)
        parts, places = [], []
        for pairs, chosen in ((False, fit & single), (True, fit & ~single)):
            if chosen.any():
                places.append(np.flatnonzero(chosen))
                some = texts if chosen.all() else _some(texts, places[-1])
                parts.append(self._encode(some, pairs, max_length))
                if not self._check(tokenizer, some, parts[-1], max_length):
                    return encode_as_given(tokenizer, texts, max_length)
        if not fit.all():
            places.append(np.flatnonzero(~fit))
            parts.append(encode_as_given(tokenizer, _some(texts, places[-1]), max_length))
        if len(parts) == 1:
            return parts[0]
        return EncodedTexts.concatenate(parts).take(np.argsort(np.concatenate([np.empty(0, np.int64), *places])))

    def share(self, texts: Sequence[_Text]) -> float:
        """Return the share of texts that are encoded by tokie."""
        return 0.0 if self._differs else float(self._fit(texts)[0].mean())

    def _fit(self, texts: Sequence[_Text]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which texts are proven, and which are not pairs: (N,) each."""
        single = np.fromiter((isinstance(text, str) for text in texts), np.bool_, count=len(texts))
        fit = np.zeros(len(texts), np.bool_)
        for pairs, chosen in ((False, single), (True, ~single)):
            if chosen.any() and self._frames[pairs] is not None:
                some = _parts(texts if chosen.all() else _some(texts, np.flatnonzero(chosen)))
                holds = self._characters.fit(some)
                for beginning in self._beginnings:
                    for place, part in enumerate(some):
                        if beginning in part and any(token in part for token in self._added):
                            holds[place] = False
                fit[chosen] = holds.reshape(-1, 1 + pairs).all(axis=1)
        return fit, single

    def _encode(self, texts: Sequence[_Text], pairs: bool, max_length: int) -> EncodedTexts:
        frame = self._frames[pairs]
        assert frame is not None
        ids, lengths = self._engine.encode_batch_flat(_parts(texts), add_special_tokens=False)
        found = frame.put_around(ids, lengths.astype(np.int64), max_length, from_left=self._from_left)
        return found if self._types else EncodedTexts(found.ids, found.lengths)

    def _check(self, tokenizer: Any, texts: Sequence[_Text], found: EncodedTexts, max_length: int) -> bool:
        """Ask Hugging Face's library for some texts too, and tell whether it agrees."""
        count = min(len(texts), max(self._unchecked, _CHECKED_EACH if len(texts) >= _MANY else 0))
        if not count:
            return True
        self._unchecked -= min(count, self._unchecked)
        given = encode_as_given(tokenizer, texts[:count], max_length)
        if _same(given, found[:count]):
            return True
        self._differs = True
        _log.warning("texts are encoded by Hugging Face's library alone from now on: tokie gave other ids")
        return False

    def _words_as_given(self, texts: list[str]) -> EncodedTexts:
        rows = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return EncodedTexts.of([{"input_ids": row.ids} for row in rows])

    def _words(self, texts: list[str]) -> EncodedTexts:
        ids, lengths = self._engine.encode_batch_flat(texts, add_special_tokens=False)
        return EncodedTexts(ids.astype(np.int32), lengths.astype(np.int64))


def _check_kind(content: dict[str, Any]) -> None:
    """Refuse a tokenizer that does not map characters one by one and cut words one by one, or has words of its own."""
    kinds = [(content[step] or {}).get("type") for step in ("normalizer", "pre_tokenizer", "model")]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        raise ValueError(f"it must be of BERT's kind (got {', '.join(map(str, kinds))})")
    if any(token["normalized"] or not token["content"] for token in content["added_tokens"]):
        raise ValueError("its added words must be looked for in texts as they are (got one that is normalised)")


def _load(content: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="moco_rt-") as directory:
        file = Path(directory) / "tokenizer.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        try:
            return tokie.Tokenizer.from_json(str(file))
        except Exception as error:
            raise ValueError(f"tokie must load it (got {error})") from error


def _frame(backend: Any, text: _Text) -> Frame | None:
    return Frame.of(backend.encode(*((text,) if isinstance(text, str) else text)))


def _some(texts: Sequence[_Text], places: NDArray[np.int64]) -> list[_Text]:
    return [texts[place] for place in places.tolist()]


def _parts(texts: Sequence[_Text]) -> list[str]:
    """Return texts, or both texts of each pair, end to end."""
    if all(isinstance(text, str) for text in texts):
        return list(texts)  # type: ignore[arg-type]
    return [part for text in texts for part in ((text,) if isinstance(text, str) else text)]


def _same(given: EncodedTexts, found: EncodedTexts) -> bool:
    types = [np.zeros_like(rows.ids) if rows.types is None else rows.types for rows in (given, found)]
    return (
        np.array_equal(given.lengths, found.lengths)
        and np.array_equal(given.ids, found.ids)
        and np.array_equal(types[0], types[1])
    )
