"""What holds a model: it is taken out; and what others ask a model for."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

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


def test_a_trainer_is_told_what_is_no_prediction(model):
    """What `Trainer.predict` returns is all of an output but these; the model's own configuration says nothing more."""
    fast = EarlyExitTextClassificationModel(model)
    output = fast(torch.ones(1, 3, dtype=torch.long))
    assert [name for name in output if name not in fast.config.keys_to_ignore_at_inference] == ["logits"]
    assert not hasattr(model.config, "keys_to_ignore_at_inference")
    assert "keys_to_ignore_at_inference" not in fast.config.to_dict()


def test_the_configuration_is_that_of_the_model(tiny_bert):
    model = tiny_bert()
    fast = EarlyExitTextClassificationModel(model)
    fast.config.id2label = {0: "bad", 1: "good"}
    model.config.note = "mine"
    assert (model.config.id2label[1], fast.config.note) == ("good", "mine")
    assert fast.config == model.config
    assert model.config == fast.config
    for copied in (copy.deepcopy(fast.config), pickle.loads(pickle.dumps(fast.config))):
        assert type(copied) is type(model.config)
        assert copied == model.config
    other = copy.deepcopy(fast)
    other.config.note = "its own"
    assert (other.model.config.note, model.config.note) == ("its own", "mine")
    assert other.config != model.config
    assert isinstance(AutoModelForSequenceClassification.from_config(fast.config), type(model))


def test_a_trainer_predicts_what_the_model_does(model, tmp_path):
    pytest.importorskip("accelerate", reason="the trainer needs it")
    fast = EarlyExitTextClassificationModel(model)
    rows = [{"input_ids": torch.tensor(ids)} for ids in ([5, 6, 7], [8, 9, 10], [11, 12, 13])]
    found = Trainer(fast, TrainingArguments(tmp_path, report_to=[], use_cpu=True)).predict(rows).predictions
    expected = fast(torch.stack([row["input_ids"] for row in rows])).logits
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_labels_are_refused(model, one_line_error):
    fast = EarlyExitTextClassificationModel(model)
    with one_line_error(ValueError, "labels must be left out: the model answers, and is not trained (got Tensor)"):
        fast(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, dtype=torch.long))
