"""What holds a model: it is taken out; and what others ask a model for."""

from __future__ import annotations

import pytest
import torch
from transformers import pipeline

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import unwrap


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert()


def test_a_pipeline_gives_its_model_and_its_tokenizer(model, word_tokenizer):
    for held in (model, EarlyExitTextClassificationModel(model)):
        classify = pipeline("text-classification", model=held, tokenizer=word_tokenizer)
        found, tokenizer = unwrap(classify)
        assert found is model
        assert tokenizer is word_tokenizer


def test_a_tokenizer_that_is_given_counts(model, word_tokenizer):
    classify = pipeline("text-classification", model=model, tokenizer=word_tokenizer)
    other = object()
    assert unwrap(classify, other) == (model, other)


def test_a_model_with_exits_gives_the_model(model):
    assert unwrap(EarlyExitTextClassificationModel(model)) == (model, None)


@pytest.mark.parametrize("other", [torch.nn.Linear(2, 2), None, "name", 3])
def test_anything_else_is_returned_as_it_is(other):
    assert unwrap(other) == (other, None)


def test_labels_are_refused(model, one_line_error):
    fast = EarlyExitTextClassificationModel(model)
    with one_line_error(ValueError, "labels must be left out: the model answers, and is not trained (got Tensor)"):
        fast(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, dtype=torch.long))
