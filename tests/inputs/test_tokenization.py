"""Tokenising: on private copies, so that nobody's calls cut anybody else's texts."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import AddedToken, normalizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, CanineTokenizer

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.encoding.hugging_face import private_copy
from moco_rt.inputs.tokenization import TokenlessTextError, encode

TEXTS = ["a good film was bad", "", ("a film", "not good but bad"), "film " * 90, "<plot> the <plot>"]


@pytest.fixture
def tokenizer(word_tokenizer):
    return copy.deepcopy(word_tokenizer)


def with_words(tokenizer):
    tokenizer.add_tokens(["<plot>", AddedToken("film", lstrip=True), "good"])
    tokenizer.add_tokens([AddedToken("<end>", special=True)], special_tokens=True)


def cut_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"


def lower(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def split_specials(tokenizer):
    tokenizer.split_special_tokens = True


def ids_of(rows):
    return [row["input_ids"].tolist() for row in rows]


def expected(tokenizer, texts, max_length):
    """What the library says, called for each text alone."""
    for text in texts:
        pair = (text,) if isinstance(text, str) else text
        yield tokenizer(*pair, truncation=True, max_length=max_length)["input_ids"]


@pytest.mark.parametrize("change", [len, with_words, cut_on_the_left, lower, split_specials])
@pytest.mark.parametrize("max_length", [4, 64])
def test_ids_are_those_of_the_tokenizer_itself(tokenizer, change, max_length):
    change(tokenizer)
    found = ids_of(encode(tokenizer, TEXTS, max_length))
    assert found == list(expected(tokenizer, TEXTS, max_length))


def test_added_words_keep_their_numbers(tokenizer):
    with_words(tokenizer)
    own, copied = tokenizer.backend_tokenizer, private_copy(tokenizer).backend_tokenizer
    assert copied.get_added_tokens_decoder() == own.get_added_tokens_decoder()
    assert copied.get_vocab() == own.get_vocab()


@pytest.mark.parametrize("set_before", [True, False])
def test_a_tokenizer_is_as_it_was_afterwards(tokenizer, set_before):
    if set_before:
        tokenizer(["film"] * 2, truncation=True, max_length=7, padding="max_length")
    before = tokenizer.backend_tokenizer.to_str()
    encode(tokenizer, TEXTS, 5)
    assert tokenizer.backend_tokenizer.to_str() == before


def test_what_others_do_with_a_tokenizer_does_not_change_what_it_makes_of_texts(tokenizer):
    texts = ["a good film was not bad but the film was"] * 300
    found = list(expected(tokenizer, texts[:1], 6)) * len(texts)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            tokenizer(["film " * 20], truncation=True, max_length=3)
            tokenizer(["film " * 20] * 2, padding=True)

    other = threading.Thread(target=disturb)
    other.start()
    try:
        with ThreadPoolExecutor(2) as threads:
            runs = list(threads.map(lambda _: encode(tokenizer, texts, 6), range(20)))
    finally:
        stop.set()
        other.join()
    assert all(ids_of(rows) == found for rows in runs)


def test_a_long_text_in_one_thread_keeps_nobody_waiting(tokenizer):
    started, finish = threading.Event(), threading.Event()

    class Slow:
        def __call__(self, texts, **options):  # noqa: ARG002
            started.set()
            assert finish.wait(60)
            return {"input_ids": [[1]] * len(texts)}

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(encode, Slow(), ["film"], 8)
        assert started.wait(60)
        assert len(encode(tokenizer, ["film"], 8)) == 1
        finish.set()
        assert ids_of(slow.result()) == [[1]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_fork_tokenises_though_its_parent_did_so_just_then():
    code = """
import os, signal, threading, time
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from moco_rt.inputs.tokenization import encode

def make():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")

shared, busy = make(), threading.Event()

def work():
    while True:
        encode(shared, ["film " * 100_000] * 4, 8)
        busy.set()

threading.Thread(target=work, daemon=True).start()
assert busy.wait(60)
time.sleep(0.05)
for tokenizer in (shared, make()):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if encode(tokenizer, ["film"] * 3, 8).ids.tolist() == [1] * 3 else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_copies_do_not_live_on(tokenizer):
    copied = weakref.ref(private_copy(tokenizer))
    gc.collect()
    assert copied() is None


@pytest.mark.parametrize("kind", [ByT5Tokenizer, CanineTokenizer])
def test_tokenizers_in_python_are_used_as_they_are(kind):
    tokenizer = kind()
    assert private_copy(tokenizer) is tokenizer
    found = ids_of(encode(tokenizer, ["a film", "é"], 5))
    assert found == list(expected(tokenizer, ["a film", "é"], 5))


@pytest.mark.parametrize("text", ["a \ud83d", ("a", "\ud83d")], ids=ascii)
def test_what_the_library_cannot_take_is_named(tokenizer, text, one_line_error):
    with one_line_error(ValueError, "texts must be valid Unicode (got a lone surrogate U+D83D as character"):
        encode(tokenizer, ["film", text], 8)


@pytest.mark.parametrize("text", ["", " ", ("", "")], ids=repr)
def test_a_text_without_a_token_is_refused_by_its_place(tokenizer, text, one_line_error):
    assert len(encode(tokenizer, ["film", text], 8)) == 2
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    words = f"text at place 1 of 3 must have at least one token (got none from {text!r})"
    with one_line_error(TokenlessTextError, words):
        encode(tokenizer, ["film", text, text], 8)


def test_a_text_without_a_token_is_shown_in_a_line_however_long_it_is(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(TokenlessTextError) as caught:
        encode(tokenizer, ["\n" * 100_000], 8)
    assert len(str(caught.value)) < 200
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.text, again.place) == (str(caught.value), caught.value.text, 0)


def test_before_a_text_without_a_token_is_refused_nothing_is_computed(
    tiny_bert, tokenizer, one_line_error, monkeypatch
):
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    fast = EarlyExitTextClassificationModel(tiny_bert())
    monkeypatch.setattr(fast, "run_packed", None)
    with one_line_error(TokenlessTextError, "text at place 2 must have at least one token (got none from '')"):
        fast.predict(["a film", "good", ""], tokenizer=tokenizer)


def test_a_nul_is_encoded(tokenizer):
    assert len(encode(tokenizer, ["a\0film"], 8)) == 1


@pytest.mark.shared
@pytest.mark.parametrize("model", ["minilm-imdb", "tiny-sst2"])
def test_real_tokenizers_make_the_same_ids(shared_dir, model):
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "models" / model)
    texts = ["A fine film, naïve; 東京 😀 [SEP] <b>", "x" * 300, ("What?", "That. " * 300), ""]
    for max_length in (8, 128):
        found = ids_of(encode(tokenizer, texts, max_length))
        assert found == list(expected(tokenizer, texts, max_length))
