"""Weights that become zero: which, what the others become, and that they stay zero while a model learns."""

from __future__ import annotations

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, compress, quantize
from moco_rt.compression import compress as compress_module
from moco_rt.compression.pruning import BLOCKS, masks_of, pruned
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus


@pytest.fixture(scope="module")
def taught():
    """A classifier that has learnt something, its tokenizer, and texts."""
    reviews = make_corpus(400, seed=0, median_words=12)
    texts = [row.text for row in reviews]
    return *train_classifier(texts, [row.label for row in reviews], seed=0), texts


@pytest.fixture(autouse=True)
def few_tokens_to_choose_by(monkeypatch):
    monkeypatch.setattr(compress_module, "_TOKENS", 3000)


def correlated(tokens=2000, inputs=64, seed=0):
    torch.manual_seed(seed)
    x = torch.randn(tokens, 16) @ torch.randn(16, inputs) + 0.3 * torch.randn(tokens, inputs)
    return x, torch.randn(32, inputs), x.T @ x / tokens


def zero_blocks(weight, block):
    """Which blocks of a weight are zero."""
    outputs, inputs = weight.shape
    blocks = weight.view(outputs // block[0], block[0], inputs // block[1], block[1])
    return (blocks == 0).all(dim=3).all(dim=1)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_share_of_blocks_is_zero_and_the_others_make_up_for_it(block):
    x, weight, moments = correlated()
    found = pruned(weight, moments, 0.5, block)
    gone = zero_blocks(found, block)
    assert gone.sum() == round(0.5 * gone.numel())
    left_out = weight * (found != 0)
    plain = (x @ (weight - left_out).T).square().mean()
    assert (x @ (weight - found).T).square().mean() < 0.7 * plain


def test_one_weight_is_made_up_for_as_least_squares_would():
    x, weight, moments = correlated(inputs=8)
    weight = weight[:1]
    found = pruned(weight, moments, 1 / 8, (1, 1))
    (place,) = (found == 0).nonzero()[:, 1].tolist()
    # The inputs before it stay; those behind it take over what it gave.
    torch.testing.assert_close(found[:, :place], weight[:, :place])
    behind = x[:, place + 1 :]
    lost = x[:, place] * weight[0, place]
    ridge = 1e-2 * moments.diagonal().mean() * len(x)
    expected = torch.linalg.solve(behind.T @ behind + ridge * torch.eye(behind.shape[1]), behind.T @ lost)
    torch.testing.assert_close(found[0, place + 1 :] - weight[0, place + 1 :], expected, rtol=1e-3, atol=1e-3)


def test_zeros_stay_when_more_are_asked_for():
    _, weight, moments = correlated()
    first = pruned(weight, moments, 0.3, (1, 4))
    second = pruned(first, moments, 0.6, (1, 4))
    assert (second[first == 0] == 0).all()
    assert zero_blocks(second, (1, 4)).float().mean() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("block", [(1, 4), (4, 1)])
def test_a_pruned_model_has_the_zeros_and_nearly_the_answers_in_every_form(taught, block):
    model, tokenizer, texts = taught
    small = compress(model, texts, tokenizer=tokenizer, sparsity=0.6, block=block, epochs=0)
    assert small.config.compression == {"sparsity": 0.6, "block": list(block), "epochs": 0}
    for weight in masks_of(small):
        assert zero_blocks(weight.detach(), block).float().mean() == pytest.approx(0.6, abs=0.01)
    ours = EarlyExitTextClassificationModel(small)
    batch = tokenizer(texts[:50], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = small(**batch).logits
    torch.testing.assert_close(ours(**batch).logits, expected, atol=1e-4, rtol=1e-3)
    ours.tokenizer = tokenizer
    given = EarlyExitTextClassificationModel(model)
    given.tokenizer = tokenizer
    agree = (ours.predict(texts).labels == given.predict(texts).labels).float().mean()
    assert agree > 0.75
    in_int8 = EarlyExitTextClassificationModel(quantize(small, texts, tokenizer=tokenizer))
    in_int8.tokenizer = tokenizer
    assert (in_int8.predict(texts).labels == ours.predict(texts).labels).float().mean() > 0.97


@pytest.mark.usefixtures("often")
def test_zeros_stay_while_a_model_learns_and_after_an_interruption(taught, interrupted_after, tmp_path):
    model, tokenizer, texts = taught
    texts = texts[:200]
    wanted = {"tokenizer": tokenizer, "sparsity": 0.7, "epochs": 2}
    whole = compress(model, texts, **wanted)
    for weight in masks_of(whole):
        assert zero_blocks(weight.detach(), (1, 4)).float().mean() == pytest.approx(0.7, abs=0.01)
    file = tmp_path / "recovery.pt"
    with interrupted_after(6):
        compress(model, texts, checkpoint=file, **wanted)
    again = compress(model, texts, checkpoint=file, **wanted)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_blocks_must_divide_the_layers(tiny_bert, one_line_error):
    with one_line_error(ValueError, "block must divide the model's layers (got (1, 4), and 30 x 30 of bert.encoder."):
        compress(tiny_bert(hidden=30), ["a film"], tokenizer=None, sparsity=0.5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1 (got 1.0)"),
        (
            {"sparsity": 0.5, "block": (2, 2)},
            "block must be (outputs, inputs), one of (1, 1), (1, 4), (4, 1) (got (2, 2))",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_one_line(taught, wrong, words, one_line_error):
    model, tokenizer, texts = taught
    with one_line_error(ValueError, words):
        compress(model, texts, tokenizer=tokenizer, **wrong)
