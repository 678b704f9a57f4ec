"""Ids of texts against Hugging Face's: `python bench/check_texts.py --random 1000000`.

Every text of `../shared/data`, at two lengths, and random texts and pairs over all of Unicode, at several, by every
tokenizer of `../shared/models` that differs from the others. The expected ids are those of the tokenizer itself, called
the usual way. Also says how many of the texts went the fast way. A million take about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from random import Random
from typing import Any

import numpy as np
from common import SHARED, read_jsonl
from transformers import AutoTokenizer

from moco_rt.encoding import EncodedTexts
from moco_rt.encoding.fast_texts import fast_texts
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import encode
from moco_rt.inputs.tokenizer_identity import tokenizer_fingerprint

CHUNK = 10_000
LENGTHS = (8, 16, 64, 256)
SPECIALS = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[mask]", "[", "]", "[unused1]", "##s")
WHAT_IS_NOT_SEEN = "\x00\x07\x1f\x7f\x85\u00a0\u00ad\u200b\u200d\u2028\ufeff\ufffd\u3000\r\n\t"
#: Where letters of scripts stand; the last is all of Unicode.
ALPHABETS = (
    *((0x20, 0x7F), (0x20, 0x250), (0x250, 0x590), (0x590, 0x800), (0x900, 0x1100), (0x1100, 0x1200), (0x1E00, 0x2000)),
    *((0x2000, 0x2E80), (0x3000, 0x3400), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0x10000), (0x1F300, 0x1FB00)),
    (0, 0x110000),
)


def random_texts(count: int, words: Sequence[str], seed: int) -> list[TextInput]:
    """Texts of known words, of characters of one script, of several, or of anything; one in four is a pair."""
    random = Random(seed)
    texts: list[TextInput] = []
    for _ in range(count):
        if random.random() < 0.25:
            texts.append((_random_text(random, words), _random_text(random, words)))
        else:
            texts.append(_random_text(random, words))
    return texts


def _random_text(random: Random, words: Sequence[str]) -> str:
    pieces = []
    for _ in range(random.randrange(8)):
        kind = random.random()
        if kind < 0.45:
            pieces.append(random.choice(["", " ", " ", " "]).join(random.choices(words, k=random.randint(1, 11))))
        elif kind < 0.85:
            alphabet = ALPHABETS[0] if kind < 0.65 else random.choice(ALPHABETS)
            pieces.append(_characters(random, alphabet, random.randint(1, 19)))
        elif kind < 0.9:
            pieces.append(random.choice(SPECIALS))
        elif kind < 0.95:
            pieces.append(random.choice(WHAT_IS_NOT_SEEN))
        else:
            pieces.append(_characters(random, random.choice(ALPHABETS[:4]), 2) * random.randint(10, 59))
    return random.choice(["", " "]).join(pieces)


def _characters(random: Random, alphabet: tuple[int, int], count: int) -> str:
    codes = [random.randrange(*alphabet) for _ in range(count)]
    return "".join("a" if 0xD800 <= code < 0xE000 else chr(code) for code in codes)


def differing(tokenizer: Any, texts: Sequence[TextInput], max_length: int) -> list[TextInput]:
    """Texts whose ids, or segments, are not what the tokenizer itself says of them."""
    expected = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    types = expected.get("token_type_ids")
    found = encode(tokenizer, texts, max_length)
    whole = EncodedTexts.of([{"input_ids": ids} for ids in expected["input_ids"]])
    segments = np.zeros_like(whole.ids) if types is None else np.fromiter(chain.from_iterable(types), np.int32)
    own_segments = np.zeros_like(found.ids) if found.types is None else found.types
    if not np.array_equal(whole.lengths, found.lengths):
        return [text for text, a, b in zip(texts, whole.lengths, found.lengths, strict=True) if a != b]
    places = np.repeat(np.arange(len(texts)), found.lengths)[(whole.ids != found.ids) | (segments != own_segments)]
    return [texts[place] for place in np.unique(places).tolist()]


def all_texts() -> Iterator[tuple[str, list[TextInput]]]:
    """Names of files and their texts."""
    for path in sorted((SHARED / "data").rglob("*.jsonl")):
        rows = read_jsonl(path, None)
        yield (
            str(path.relative_to(SHARED)),
            [(row["text"], row["text2"]) if "text2" in row else row.get("text", row.get("query")) for row in rows],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=20_000, help="random texts for each tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-only", action="store_true", help="leave out the texts of ../shared/data")
    options = parser.parse_args()
    loaded = [AutoTokenizer.from_pretrained(path) for path in sorted((SHARED / "models").iterdir()) if path.is_dir()]
    failed = 0
    for tokenizer in {tokenizer_fingerprint(one): one for one in loaded}.values():
        print(f"{tokenizer.name_or_path}: {tokenizer_fingerprint(tokenizer)[:12]}")
        for name, texts in () if options.random_only else all_texts():
            failed += check(name, tokenizer, texts, (16, 256))
        words = sorted(tokenizer.get_vocab())
        for start in range(0, options.random, CHUNK):
            texts = random_texts(min(CHUNK, options.random - start), words, options.seed + start)
            length = LENGTHS[start // CHUNK % len(LENGTHS)]
            failed += check(f"random from {start}", tokenizer, texts, (length,))
    raise SystemExit(f"{failed} texts differ" if failed else None)


def check(name: str, tokenizer: Any, texts: Sequence[TextInput], lengths: Sequence[int]) -> int:
    """Compare texts at some lengths, print what came out, and return how many differ."""
    start = time.perf_counter()
    bad = [text for length in lengths for text in differing(tokenizer, texts, length)]
    fast = fast_texts(tokenizer, tokenizer_fingerprint)
    share = 0.0 if fast is None else fast.share(texts)
    print(f"{name}: {len(texts)} texts, {share:.1%} fast, {len(bad)} differ, {time.perf_counter() - start:.1f} s")
    for text in bad[:3]:
        print(ascii(text))
    return len(bad)


if __name__ == "__main__":
    main()
