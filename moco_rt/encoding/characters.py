"""Characters that two libraries are proven to treat alike, and the texts that are made of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moco_rt.encoding.encoded_texts import EncodedTexts
from moco_rt.encoding.proof_files import load_proof, save_proof

#: Makes the ids of words, without special tokens.
WordEncoder = Callable[[list[str]], EncodedTexts]

#: Weights of characters that are none: words end at weight 0.
_UNPROVEN, _UNTRIED = 255, 254
#: Characters are tried in blocks of so many. All beyond the first 65,536 count as unproven.
_BLOCK = 256
_CHARACTERS = 1 << 16
#: What each character is tried in: alone, repeated, at the ends of words and inside, beside punctuation, spaces,
#: digits, capitals, accents, and characters of other scripts.
_CONTEXTS = (
    *("{}", "{0}{0}", "{0}{0}{0}", "{0} {0}", "a{}", "{}a", "a{}a", "x{0}y{0}z", "1{}2", "The{}film", "un{0}{0}ing"),
    *("play{}ed", "A{}. B", "{}S", ".{}.", "'{}'", "-{}s", " {} ", "a {} a", "\t{}\n"),
    *("\u200b{}\u200b", "\u00a0{}\u00ad"),  # what is not seen
    *("\u00e9{}", "{}\u00e9", "{}\u0301", "e\u0301{}", "a\u0327{}\u0301"),  # Latin, with accents that combine
    *("\u03c3{}", "{}\u03a3", "\u044f{}\u0439", "\u4e2d{}\u6587", "\u304b{}", "\uac00{}\ub098"),  # Greek ... Korean
)
#: Random texts of proven characters that each block is tried in at last, and their lengths at most.
_MIXED, _MIXED_LENGTH = 400, 40

_log = logging.getLogger(__name__)


class ProvenCharacters:
    """For one tokenizer the characters that two libraries make the same ids of.

    It rests on how such tokenizers work: they map characters one by one, cut texts at spaces and punctuation, and cut
    each word by itself. A character counts as proven if both give the same ids in every context that it is tried in,
    none of them that of the unknown word: words of proven characters are unknown only if they are too long.

    Args:
        given: the library whose ids count.
        other: the one that must give the same.
        normalise: what `given` makes of a text before it cuts it into words.
        words: the words that `given` cuts a normalised text into.
        unknown: the id of the unknown word.
        longest: bytes that a word may have.
        file: where the proof is kept; None: nowhere.

    Raises:
        ValueError: the two do not agree on letters, spaces and line ends.
    """

    def __init__(
        self,
        given: WordEncoder,
        other: WordEncoder,
        *,
        normalise: Callable[[str], str],
        words: Callable[[str], list[str]],
        unknown: int,
        longest: int,
        file: Path | None = None,
    ):
        self._given, self._other = given, other
        self._normalise, self._words = normalise, words
        self._unknown, self._longest, self._file = unknown, longest, file
        self._proving = threading.Lock()
        # By character the bytes that it adds to a word; _UNPROVEN, _UNTRIED; the last one stands for all beyond.
        self._weights = np.full(_CHARACTERS + 1, _UNTRIED, np.uint8)
        self._weights[_CHARACTERS] = _UNPROVEN
        known = None if file is None else load_proof(file)
        if known is not None:
            self._weights[:_CHARACTERS] = known
        # A vocabulary need not know the other scripts.
        self._contexts = [context for context in _CONTEXTS if self._agree([context.format("a")])[0]]
        self._prove(np.zeros(1, np.int64))
        if (
            not self._agree(["a" * longest])[0]
            or self._weights[ord("a")] != 1
            or self._weights[ord("\n")] != 0
            or self._weights[ord(" ")] != 0
        ):
            raise ValueError("both libraries must agree on the ids of letters, spaces and line ends (got other ids)")

    def fit(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which texts both libraries make the same ids of: (N,)."""
        fit = np.ones(len(texts), np.bool_)
        ascii_ = np.fromiter((text.isascii() for text in texts), np.bool_, count=len(texts))
        for places, encoding in ((np.flatnonzero(ascii_), "ascii"), (np.flatnonzero(~ascii_), "utf-32-le")):
            if len(places):
                some = texts if len(places) == len(texts) else [texts[place] for place in places.tolist()]
                fit[places] = self._fit(some, encoding)
        return fit

    def _fit(self, texts: Sequence[str], encoding: str) -> NDArray[np.bool_]:
        # Line ends between the texts end their last words.
        joined = "\n".join([*texts, ""]).encode(encoding)
        if encoding == "ascii":
            # One pass over the bytes, where a look-up of each would take eight.
            table = self._weights[:_BLOCK].tobytes()
            translated = joined.translate(table)
            if bytes([_UNPROVEN]) not in translated and b"\1" * (self._longest + 1) not in translated:
                return np.ones(len(texts), np.bool_)
            weights = np.frombuffer(translated, np.uint8)
        else:
            codes = np.minimum(np.frombuffer(joined, np.uint32), _CHARACTERS)
            weights = self._weights[codes]
            untried = np.unique(codes[weights == _UNTRIED] // _BLOCK)
            if len(untried):
                self._prove(untried)
                weights = self._weights[codes]
        text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, count=len(texts)) + 1)
        word_ends = np.flatnonzero(weights == 0)
        sizes = np.diff(np.cumsum(weights, dtype=np.int64)[word_ends], prepend=0)
        bad = np.concatenate([np.flatnonzero(weights == _UNPROVEN), word_ends[sizes > self._longest]])
        fit = np.ones(len(texts), np.bool_)
        fit[np.searchsorted(text_ends, bad, side="right")] = False
        return fit

    def _prove(self, blocks: NDArray[np.int64]) -> None:
        """Try the characters of blocks that have not been tried."""
        with self._proving:
            untried = [block for block in blocks.tolist() if self._weights[block * _BLOCK] == _UNTRIED]
            for block in untried:
                self._weights[block * _BLOCK : (block + 1) * _BLOCK] = self._weights_of(block)
            if untried and self._file is not None:
                save_proof(self._file, self._weights[:_CHARACTERS], _UNTRIED)

    def _weights_of(self, block: int) -> NDArray[np.uint8]:
        weights = np.full(_BLOCK, _UNPROVEN, np.uint8)
        codes = [code for code in range(block * _BLOCK, (block + 1) * _BLOCK) if not 0xD800 <= code < 0xE000]
        # Alone first: most characters of most vocabularies are unknown.
        candidates = [
            code for code, same in zip(codes, self._agree([chr(code) for code in codes]), strict=True) if same
        ]
        tried = [context.format(chr(code)) for code in candidates for context in self._contexts]
        same = np.array(self._agree(tried), np.bool_).reshape(len(candidates), len(self._contexts)).all(axis=1)
        proven = [code for code, holds in zip(candidates, np.atleast_1d(same).tolist(), strict=True) if holds]
        before = np.flatnonzero(self._weights < _UNTRIED)
        random = np.random.default_rng(block)
        texts = []
        for length in random.integers(1, _MIXED_LENGTH + 1, _MIXED if proven else 0).tolist():
            own = random.choice(proven, length)
            others = random.choice(before, length) if len(before) else own
            texts.append("".join(map(chr, np.where(random.random(length) < 0.5, own, others).tolist())))
        # An unknown word is one that is too long; `fit` sees to these.
        if not all(self._agree(texts, unknown=True)):
            _log.info("characters U+%04X to U+%04X count as unproven: mixed texts differ", codes[0], codes[-1])
            return weights
        for code in proven:
            weights[code % _BLOCK] = self._weight(chr(code))
        return weights

    def _weight(self, character: str) -> int:
        """Return the bytes that a character adds to a word at most, before or after it is normalised; 0: it ends it."""
        around = self._normalise(f"a{character}a")
        words = self._words(around)
        if len(words) > 1 and words[0] == words[-1] == "a":
            return 0
        return max(1, len(around.encode()) - 2, len(character.encode()) if not character.isascii() else 1)

    def _agree(self, texts: list[str], *, unknown: bool = False) -> list[bool]:
        """Tell of each text whether both libraries make the same ids of it, without the unknown word unless allowed."""
        given, other = self._given(texts), self._other(texts)
        return [
            a == b and (unknown or self._unknown not in a) for a, b in zip(_lists(given), _lists(other), strict=True)
        ]


def _lists(encoded: EncodedTexts) -> list[list[int]]:
    ids, ends = encoded.ids.tolist(), np.cumsum(encoded.lengths).tolist()
    return [ids[first:end] for first, end in zip([0, *ends], ends, strict=False)]
