"""Texts by tokie: Hugging Face's ids, or left to Hugging Face's library."""

from __future__ import annotations

import copy
import io
import logging
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from check_texts import SPECIALS, WHAT_IS_NOT_SEEN, differing, random_texts
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from moco_rt.encoding import EncodedTexts, fast_texts
from moco_rt.inputs.tokenization import encode
from moco_rt.inputs.tokenizer_identity import tokenizer_fingerprint

tokie = pytest.importorskip("tokie")

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()[]<>/&%$#@*+=_^`{|}~\\éß中σяé"
WORDS = ["the", "film", "was", "good", "##s", "##ing", "bad", "un", "##able", "[", "##é"]


def make_tokenizer(lowercase=True, longest=100):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    words = {word: i for i, word in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=longest))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **names,
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _proofs_are_kept_apart(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("MOCO_FAST_TEXTS", raising=False)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def fast_of(tokenizer):
    return fast_texts.fast_texts(tokenizer, tokenizer_fingerprint)


CARE = [
    *("", " ", "a" * 99, "a" * 100, "a" * 101, "a" * 5000, "é" * 99, "é" * 101, "ß" * 60, "\u03c3" * 60, "中" * 300),
    *("The film was good.", "a\u0301", "\u0301", "\u0391\u03a3", "\u03a3", "İ", "\ufb01", "가나", "😀", "a😀b", "ก"),
    "x" * 100 + "\n" + "y",
    *(f"a{special}b" for special in SPECIALS),
    *(f"a{character}b {character}" for character in WHAT_IS_NOT_SEEN),
]


@pytest.mark.parametrize("max_length", [3, 4, 16, 1000])
def test_texts_that_want_care_have_the_tokenizers_own_ids(tokenizer, max_length):
    assert differing(tokenizer, CARE, max_length) == []
    assert differing(tokenizer, [(a, b) for a in CARE[::2] for b in CARE[1::3]], max_length + 1) == []
    assert 0.2 < fast_of(tokenizer).share(CARE) < 0.8


@pytest.mark.parametrize(("lowercase", "longest"), [(True, 100), (False, 100), (True, 12)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_random_texts_have_the_tokenizers_own_ids(lowercase, longest, side):
    tokenizer = make_tokenizer(lowercase, longest)
    tokenizer.truncation_side = side
    texts = random_texts(500, [*WORDS, *LETTERS], seed=1)
    assert differing(tokenizer, texts, 24) == []
    assert fast_of(tokenizer).share(texts) > 0.1


@pytest.mark.shared
def test_real_texts_and_random_ones_have_the_real_tokenizers_ids(shared_dir):
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "models" / "tiny-imdb")
    texts = random_texts(1000, sorted(tokenizer.get_vocab()), seed=0)
    assert differing(tokenizer, texts, 32) == []
    assert fast_of(tokenizer).share(texts) > 0.2


def test_words_that_are_too_long_or_unknown_are_left_to_the_tokenizer(tokenizer):
    texts = ["good " + "a" * 100, "good " + "a" * 101, "a\0" * 60, "😀", "a film"]
    encode(tokenizer, texts, 64)
    assert fast_of(tokenizer)._fit(texts)[0].tolist() == [True, False, False, False, True]


def test_special_tokens_inside_texts_are_left_to_the_tokenizer(tokenizer):
    assert fast_of(tokenizer)._fit(["a [MASK]", "a [mask]", ("a", "[SEP]"), "[SEP"])[0].tolist() == [
        *(False, True, False, True)
    ]


def test_where_the_libraries_differ_the_log_says_so_and_hugging_face_does_the_rest(monkeypatch, caplog):
    tokenizer = make_tokenizer()
    fast, texts = fast_of(tokenizer), ["a good film", "bad"]
    expected = encode(tokenizer, texts, 8).ids.tolist()
    fast = fast_of(tokenizer)
    fast._unchecked = 1
    monkeypatch.setattr(fast, "_encode", lambda texts, *_: EncodedTexts.of([{"input_ids": [7]}] * len(texts)))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert encode(tokenizer, texts, 8).ids.tolist() == expected
    assert [record.message for record in caplog.records] == [
        "texts are encoded by Hugging Face's library alone from now on: tokie gave other ids"
    ]
    assert fast.share(texts) == 0


def with_normalised_word(tokenizer):
    tokenizer.add_tokens([AddedToken("film", normalized=True)])


def with_other_normaliser(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def with_other_words(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


@pytest.mark.parametrize("change", [with_normalised_word, with_other_normaliser, with_other_words])
def test_tokenizers_that_are_not_covered_are_left_alone(change):
    tokenizer = make_tokenizer()
    assert fast_of(tokenizer) is not None
    change(tokenizer)
    assert fast_of(tokenizer) is None
    assert differing(tokenizer, ["A good FILM", ("film", "bad")], 5) == []


def test_a_tokenizer_that_does_something_of_its_own_is_left_alone():
    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, *args, **kwargs):
            found = super()._encode_plus(*args, **kwargs)
            found["input_ids"] = [[9, *ids] for ids in found["input_ids"]]
            return found

    tokenizer = make_tokenizer()
    tokenizer.__class__ = Own
    assert fast_of(tokenizer) is None
    assert encode(tokenizer, ["good"], 8).ids[0] == 9


def test_it_can_be_switched_off(tokenizer, monkeypatch):
    monkeypatch.setenv("MOCO_FAST_TEXTS", "0")
    assert fast_of(tokenizer) is None


def test_without_the_library_everything_is_as_before(tokenizer, monkeypatch):
    monkeypatch.setattr(fast_texts, "tokie", None)
    assert fast_of(tokenizer) is None
    assert differing(tokenizer, CARE, 16) == []


def test_proofs_are_kept_on_disk_and_taken_from_there(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts = ["good", "é", "中", "\u03c3"]
    first = fast_of(make_tokenizer())
    share = first.share(texts)
    files = list((tmp_path / "cache").rglob("*.npz"))
    assert len(files) == 1
    again = fast_of(make_tokenizer())
    monkeypatch.setattr(again._characters, "_weights_of", None)  # nothing is tried again
    assert again.share(texts) == share
    whole = files[0].read_bytes()
    no_array = io.BytesIO()
    with zipfile.ZipFile(no_array, "w") as archive:
        archive.writestr("weights", b"broken")
    for broken in (b"broken", b"", whole[:-30], whole[:100] + b"x" * 9 + whole[109:], no_array.getvalue()):
        files[0].write_bytes(broken)
        assert fast_of(make_tokenizer()).share(texts) == share


def test_a_cache_that_cannot_be_written_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert differing(make_tokenizer(), ["good", "é"], 8) == []


def test_threads_may_encode_at_once():
    tokenizer = make_tokenizer()
    texts = random_texts(300, WORDS, seed=5)
    expected = tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: encode(tokenizer, texts, 16), range(8)):
            assert [row["input_ids"].tolist() for row in found] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_fork_leaves_texts_to_hugging_face():
    code = """
import os, signal
from test_fast_texts import make_tokenizer, fast_of
from moco_rt.inputs.tokenization import encode

tokenizer = make_tokenizer()
expected = encode(tokenizer, ["a good film"] * 600, 8).ids.tolist()
assert fast_of(tokenizer) is not None
child = os.fork()
if child == 0:
    signal.alarm(30)
    same = encode(tokenizer, ["a good film"] * 600, 8).ids.tolist() == expected
    os._exit(0 if same and fast_of(tokenizer) is None and fast_of(make_tokenizer()) is None else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    path = os.pathsep.join([os.path.dirname(__file__), *(entry for entry in sys.path if entry)])  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


def test_segments_are_given_only_where_the_tokenizer_gives_them():
    tokenizer = copy.deepcopy(make_tokenizer())
    pair = [("good", "bad")]
    assert encode(tokenizer, pair, 8).types.tolist() == [0, 0, 0, 1, 1]
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert encode(tokenizer, pair, 8).types is None
    assert np.array_equal(encode(tokenizer, pair, 8).lengths, [5])
