"""Models under torch.compile, torch.jit.trace and torch.export: they run as they are, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import make_inputs
from transformers import BertForTokenClassification

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition, pack


@pytest.fixture(params=["exits", "reference", "cascade", "packed tagger"])
def model(request, tiny_bert, tiny_classifier, word_tokenizer):
    if request.param == "cascade":
        return Cascade([(tiny_bert(1, seed=seed), word_tokenizer) for seed in (1, 2)], thresholds=[0.6])
    if request.param == "packed tagger":
        return pack(tiny_classifier(BertForTokenClassification, num_labels=3))
    fast = EarlyExitTextClassificationModel(tiny_bert(2), backend="auto" if request.param == "exits" else "reference")
    fast.add_rule(LinearCondition(np.ones(32, np.float32), 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    return fast


def both(lengths):
    return make_inputs(lengths).values()


@pytest.mark.filterwarnings("ignore")
def test_compiled_it_answers_as_it_is(model):
    compiled = torch.compile(model, backend="eager")
    for lengths in ([5, 3], [7, 1, 2], [4]):
        with torch.no_grad():
            assert torch.equal(compiled(*both(lengths)).logits, model(*both(lengths)).logits)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trace", [torch.jit.trace, torch.export.export], ids=["trace", "export"])
def test_traced_or_exported_it_is_refused(model, trace, one_line_error):
    options = {"strict": False}
    with one_line_error(RuntimeError, "the model must run in Python (got torch.jit.trace, or torch.export)"):
        trace(model, tuple(both([5, 3])), **options)
