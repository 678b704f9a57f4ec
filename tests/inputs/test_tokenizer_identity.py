"""When two tokenizers are the same, and what of a tokenizer its files keep."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import pickle

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from moco_rt.inputs import tokenizer_identity
from moco_rt.inputs.tokenizer_identity import (
    legacy_tokenizer_fingerprint,
    save_tokenizer,
    tokenizer_fingerprint,
    tokenizer_settings,
)


def roberta():
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "ab", "Ġ", "Ġa"]
    return RobertaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[("a", "b"), ("Ġ", "a")])


def lower(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def other_pieces(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def other_template(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )


def other_words(tokenizer):
    tokenizer.backend_tokenizer.model = models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")


def add_a_word(tokenizer):
    tokenizer.add_tokens(["plot"])


def add_a_word_of_the_vocabulary(tokenizer):
    tokenizer.add_tokens(["film"])


def other_pad(tokenizer):
    tokenizer.pad_token = "[UNK]"


def with_segments(tokenizer):
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def segments_in_place(tokenizer):
    tokenizer.model_input_names.append("token_type_ids")


def cut_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"


def split_specials(tokenizer):
    tokenizer.split_special_tokens = True


CHANGES = [
    lower,
    other_pieces,
    other_template,
    other_words,
    add_a_word,
    add_a_word_of_the_vocabulary,
    other_pad,
    with_segments,
    segments_in_place,
    cut_on_the_left,
    split_specials,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_tokenizer_that_is_changed_is_another(word_tokenizer, change):
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.model_input_names = list(tokenizer.model_input_names)
    before = tokenizer_fingerprint(tokenizer)
    assert before == tokenizer_fingerprint(word_tokenizer)
    assert len(before) == 64
    change(tokenizer)
    assert tokenizer_fingerprint(tokenizer) != before


def test_truncation_and_padding_that_calls_set_and_the_side_of_padding_do_not_count(word_tokenizer):
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer(["good film"] * 2, padding=True, truncation=True, max_length=3)
    tokenizer.padding_side = "left"
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(word_tokenizer)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
def test_copies_are_the_same(word_tokenizer, again):
    assert tokenizer_fingerprint(again(word_tokenizer)) == tokenizer_fingerprint(word_tokenizer)


@pytest.mark.parametrize("change", [len, add_a_word, with_segments, cut_on_the_left, split_specials, lower])
def test_what_is_saved_is_the_same_when_it_is_loaded(word_tokenizer, tmp_path, change):
    tokenizer = copy.deepcopy(word_tokenizer)
    change(tokenizer)
    kept = dict(tokenizer.init_kwargs)
    save_tokenizer(tokenizer, tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer_settings(loaded) == tokenizer_settings(tokenizer)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    assert tokenizer.init_kwargs == kept


@pytest.mark.parametrize("make", [roberta, ByT5Tokenizer])
def test_other_kinds_are_the_same_when_they_are_loaded(tmp_path, make):
    tokenizer = make()
    save_tokenizer(tokenizer, tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)


@pytest.mark.shared
@pytest.mark.parametrize("model", ["minilm-imdb", "tiny-sst2"])
def test_real_tokenizers_are_the_same_when_they_are_saved_and_loaded(shared_dir, tmp_path, model):
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "models" / model)
    save_tokenizer(tokenizer, tmp_path)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == tokenizer_fingerprint(tokenizer)


def test_of_a_tokenizer_in_python_class_words_and_switches_count():
    tokenizer = ByT5Tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(ByT5Tokenizer()) == before
    tokenizer.verbose = not tokenizer.verbose
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.do_lower_case = True
    lowered = tokenizer_fingerprint(tokenizer)
    assert lowered != before
    tokenizer.add_tokens(["plot"])
    assert len({before, lowered, tokenizer_fingerprint(tokenizer)}) == 3
    assert tokenizer_fingerprint(type("Other", (ByT5Tokenizer,), {})()) != before


def test_steps_in_python_are_known_to_be_there(word_tokenizer):
    class Halves:
        def pre_tokenize(self, text):
            text.split(lambda _, part: [part])

    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Halves())
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(word_tokenizer)


def test_fingerprints_of_many_tokenizers_in_turn_are_made_once(monkeypatch):
    made = []
    content = tokenizer_identity._content
    monkeypatch.setattr(tokenizer_identity, "_content", lambda tokenizer: made.append(1) or content(tokenizer))
    words = [Tokenizer(models.WordLevel({"[UNK]": 0, f"w{i}": 1}, unk_token="[UNK]")) for i in range(12)]
    tokenizers = [PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]") for backend in words]
    for _ in range(3):
        assert len({tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers}) == 12
    assert len(made) == 12


def test_known_fingerprints_keep_no_tokenizer_alive(word_tokenizer):
    gc.collect()
    before = len(tokenizer_identity._known)
    tokenizer_fingerprint(copy.deepcopy(word_tokenizer))
    gc.collect()
    assert len(tokenizer_identity._known) <= before


def test_the_fingerprint_in_policies_of_version_1_is_of_words_and_special_tokens(word_tokenizer):
    said = json.dumps([word_tokenizer.convert_ids_to_tokens(range(12)), word_tokenizer.all_special_tokens])
    before = legacy_tokenizer_fingerprint(word_tokenizer)
    assert before == hashlib.sha256(said.encode()).hexdigest()
    changed = copy.deepcopy(word_tokenizer)
    lower(changed)
    assert legacy_tokenizer_fingerprint(changed) == before
    add_a_word(changed)
    assert legacy_tokenizer_fingerprint(changed) != before
