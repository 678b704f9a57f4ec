"""Tokenizers from folders: whole ones, missing ones and broken ones."""

from __future__ import annotations

import pytest
from transformers import (
    BertConfig,
    CanineConfig,
    CanineTokenizer,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from moco_rt.architectures import Source, find_tokenizer, load_classifier, load_tokenizer

MISSING = "must hold the files of a tokenizer (got none of tokenizer.json, vocab.txt, "


def test_a_tokenizer_is_found_where_its_files_lie(tmp_path, word_tokenizer):
    word_tokenizer.save_pretrained(tmp_path)
    found = find_tokenizer(Source(str(tmp_path)))
    assert isinstance(found, PreTrainedTokenizerFast)
    assert found("a good film")["input_ids"] == word_tokenizer("a good film")["input_ids"]


@pytest.mark.parametrize("config", [BertConfig, RobertaConfig, ModernBertConfig])
@pytest.mark.parametrize("settings", [False, True], ids=["nothing", "settings alone"])
def test_of_no_words_no_tokenizer_is_made(tmp_path, word_tokenizer, tiny_bert, one_line_error, config, settings):
    if settings:
        word_tokenizer.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").unlink()
    config().save_pretrained(tmp_path)
    assert find_tokenizer(Source(str(tmp_path))) is None
    model = tiny_bert()
    model.config.name_or_path = model.name_or_path = str(tmp_path)
    with one_line_error(ValueError, f"{tmp_path} {MISSING}"):
        load_tokenizer(model)


def test_a_classifier_without_a_tokenizer_is_refused(tmp_path, tiny_bert, one_line_error):
    tiny_bert().save_pretrained(tmp_path)
    with one_line_error(ValueError, f"{tmp_path} {MISSING}"):
        load_classifier(str(tmp_path))


def test_a_tokenizer_of_characters_needs_no_words(tmp_path, tiny_bert):
    CanineConfig().save_pretrained(tmp_path)
    CanineTokenizer().save_pretrained(tmp_path)
    model = tiny_bert()
    model.config.name_or_path = model.name_or_path = str(tmp_path)
    assert isinstance(load_tokenizer(model), CanineTokenizer)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'], ids=["empty", "half", "not all"])
def test_broken_files_are_named(tmp_path, word_tokenizer, one_line_error, content):
    word_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with one_line_error(ValueError, f"the tokenizer in {tmp_path} must be readable (got "):
        find_tokenizer(Source(str(tmp_path)))


def test_a_model_from_nowhere_has_none(tiny_bert, one_line_error):
    with one_line_error(ValueError, "tokenizer must be given: the model does not say where it came from (got None)"):
        load_tokenizer(tiny_bert())
