"""Narrower layers: of the layers that are there, by as many heads as blocks divide, and of some that give nothing."""

from __future__ import annotations

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, compress
from moco_rt.compression.pruning import heads_at_once

TEXTS = ["the good film was not bad", "a film", "bad bad but the film was good good good", "not the film"] * 5


def assert_runs(small, tokenizer):
    batch = tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = small(**batch).logits
    torch.testing.assert_close(EarlyExitTextClassificationModel(small)(**batch).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "block", "at_once"), [(26, 4, 2), (9, 4, 4), (64, 4, 1), (9, 1, 1)])
def test_as_many_heads_go_as_blocks_divide(tiny_bert, size, block, at_once):
    assert heads_at_once(tiny_bert(hidden=4 * size, heads=4), (1, block)) == at_once
    assert heads_at_once(tiny_bert(hidden=4 * size, heads=4), (block, 1)) == at_once


@pytest.mark.parametrize("block", [(1, 4), (4, 1)])
@pytest.mark.parametrize("epochs", [0, 1])
def test_blocks_divide_what_is_left_of_heads_that_they_do_not_divide(tiny_bert, word_tokenizer, block, epochs):
    model = tiny_bert(hidden=36, heads=6, intermediate_size=48)  # heads of 6 numbers
    small = compress(model, TEXTS, tokenizer=word_tokenizer, width=0.5, sparsity=0.5, block=block, epochs=epochs)
    assert sum(small.config.heads) < 12
    assert all(heads % 2 == 0 for heads in small.config.heads)
    assert_runs(small, word_tokenizer)


def test_heads_that_only_go_together_may_be_too_many_to_stay(tiny_bert, word_tokenizer, one_line_error):
    model = tiny_bert(hidden=36, heads=4, intermediate_size=32)
    words = "width must leave every layer 4 heads, as few as the blocks divide, and 16 neurons (got 0.3)"
    with one_line_error(ValueError, words):
        compress(model, TEXTS, tokenizer=word_tokenizer, width=0.3, sparsity=0.5)


def test_layers_that_were_taken_away_are_not_asked_for(tiny_bert, word_tokenizer):
    model = tiny_bert(3)
    model.bert.encoder.layer = model.bert.encoder.layer[:2]
    small = compress(model, TEXTS, tokenizer=word_tokenizer, width=0.6, sparsity=0.5, lengths=0.7, epochs=1)
    assert len(small.config.heads) == len(small.model.bert.encoder.layer) == 2
    assert small.config.num_hidden_layers == 2
    assert model.config.num_hidden_layers == 3
    assert_runs(small, word_tokenizer)


@pytest.mark.parametrize("gone", ["output.dense", "intermediate.dense"], ids=["writes nothing", "reads nothing"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_sub_layer_that_gives_nothing_goes_first(tiny_bert, word_tokenizer, gone, epochs):
    model = tiny_bert()
    for parameter in model.bert.encoder.layer[0].get_submodule(gone).parameters():
        torch.nn.init.zeros_(parameter)
    small = compress(model, TEXTS, tokenizer=word_tokenizer, width=0.7, sparsity=0.5, epochs=epochs)
    assert small.config.neurons[0] == 16
    assert_runs(small, word_tokenizer)


def shared_module(model):
    layers = model.bert.encoder.layer
    layers[1] = layers[0]


def shared_weights(model):
    first, second = model.bert.encoder.layer[:2]
    second.output.dense.weight = first.output.dense.weight
    second.attention.output.dense.bias = first.attention.output.dense.bias


@pytest.mark.parametrize("share", [shared_module, shared_weights])
@pytest.mark.parametrize("dials", [{"width": 0.6}, {"width": 0.6, "sparsity": 0.5}, {"sparsity": 0.5}], ids=str)
def test_layers_that_share_are_cut_each_by_itself(tiny_bert, word_tokenizer, share, dials):
    shared, own = tiny_bert(3), tiny_bert(3)
    share(shared)
    own.load_state_dict(shared.state_dict())
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    found, expected = (compress(each, TEXTS, tokenizer=word_tokenizer, epochs=0, **dials) for each in (shared, own))
    assert found.describe() == expected.describe()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    for name, tensor in before.items():
        assert torch.equal(shared.state_dict()[name], tensor), name
