"""Few rows are answered without torch's own threads, which would spin on the cores that the kernels' need."""

from __future__ import annotations

import pytest
import torch
from thread_counts import assert_no_threads_of_torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition

KINDS = [
    {"labels": 3},
    {"labels": 4, "problem_type": "multi_label_classification"},
    {"labels": 1},
    {"labels": 2, "problem_type": "regression"},
]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("kind", KINDS, ids=["one of three", "several", "one label", "numbers"])
def test_predict_starts_none(tiny_bert, word_tokenizer, packed_dtype, kind, rows):
    fast = EarlyExitTextClassificationModel(tiny_bert(2, **kind).to(packed_dtype))
    texts = ["a good film", "bad"] * rows
    assert_no_threads_of_torch(lambda: fast.predict(texts[:rows], tokenizer=word_tokenizer))


def test_predict_with_exits_starts_none(tiny_bert, word_tokenizer):
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=3))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 0.0, 0.01), 1, "encoder.0.attention")
    found = fast.predict(["a good film", "bad"] * 4, tokenizer=word_tokenizer)
    assert 0 in found.exit_rule
    assert_no_threads_of_torch(lambda: fast.predict(["a good film", "bad"] * 4, tokenizer=word_tokenizer))


def test_forward_starts_none(tiny_bert, word_tokenizer):
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=3))
    batch = word_tokenizer(["a good film", "bad"] * 4, padding=True, return_tensors="pt")
    assert_no_threads_of_torch(lambda: fast(**batch))
