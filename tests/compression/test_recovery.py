"""What a smaller model learns, and where there is nothing to learn."""

from __future__ import annotations

import logging

import pytest
import torch

from moco_rt import compress
from moco_rt.compression import compress as compress_module
from moco_rt.compression import recovery

TEXTS = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 5


def test_where_the_cut_costs_nothing_there_is_nothing_to_learn(tiny_bert, word_tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(recovery, "_loss", None)
    model = tiny_bert()
    with caplog.at_level(logging.INFO, logger="moco_rt"):
        small = compress(model, TEXTS, tokenizer=word_tokenizer, epochs=3)
    assert "there is nothing to learn" in caplog.text
    for name, weight in model.state_dict().items():
        assert torch.equal(small.model.state_dict()[name], weight)


def test_a_cut_that_costs_almost_nothing_is_learnt_from(tiny_bert, word_tokenizer, monkeypatch):
    """Single precision may say that the answers are less than nothing apart."""
    rates, learning_rate = [], compress_module.learning_rate
    monkeypatch.setattr(compress_module, "learning_rate", lambda apart: rates.append(learning_rate(apart)) or rates[-1])
    for seed in range(4):
        model = tiny_bert(seed=seed)
        model.classifier.weight.data.mul_(1e-4)
        compress(model, TEXTS, tokenizer=word_tokenizer, width=0.9, epochs=1)
    assert all(0 < rate < 1e-8 for rate in rates)


@pytest.mark.parametrize("lengths", [None, {0: 0.5}])
def test_a_model_that_returns_tuples_is_learnt_from(tiny_bert, word_tokenizer, lengths):
    wanted = {"tokenizer": word_tokenizer, "sparsity": 0.5, "lengths": lengths, "epochs": 1}
    expected = compress(tiny_bert(), TEXTS, **wanted)
    found = compress(tiny_bert(return_dict=False), TEXTS, **wanted)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
