"""Weights that become zero: which, what the others become, and that they stay zero while a model learns."""

from __future__ import annotations

import pytest
import torch
from tiny_models import cut_to

from moco_rt import EarlyExitTextClassificationModel, compress, quantize
from moco_rt.architectures.compressed.layers import Widths, layer_parts
from moco_rt.compression import compress as compress_module
from moco_rt.compression.answers import divergence
from moco_rt.compression.narrowing import smaller
from moco_rt.compression.pruning import BLOCKS, _share_out, masks_of, pruned
from moco_rt.compression.sensitivity import sensitivities
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus


@pytest.fixture(scope="module")
def taught():
    """A classifier that has learnt something, its tokenizer, and texts."""
    reviews = make_corpus(400, seed=0, median_words=12)
    texts = [row.text for row in reviews]
    model, tokenizer = train_classifier(texts, [row.label for row in reviews], seed=0)
    return cut_to(model, 2), tokenizer, texts


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


def share_of_zero_blocks(model, block):
    """The share of all products' blocks that is zero."""
    return torch.cat([zero_blocks(weight.detach(), block).flatten() for weight in masks_of(model)]).float().mean()


@pytest.mark.parametrize("block", BLOCKS)
def test_the_share_of_blocks_is_zero_and_the_others_make_up_for_it(block):
    x, weight, moments = correlated()
    found = pruned(weight, moments, torch.ones(len(weight)), 0.5, block)
    gone = zero_blocks(found, block)
    assert gone.sum() == round(0.5 * gone.numel())
    left_out = weight * (found != 0)
    plain = (x @ (weight - left_out).T).square().mean()
    assert (x @ (weight - found).T).square().mean() < 0.7 * plain


def test_one_weight_is_made_up_for_as_least_squares_would():
    x, weight, moments = correlated(inputs=8)
    weight = weight[:1]
    found = pruned(weight, moments, torch.ones(len(weight)), 1 / 8, (1, 1))
    (place,) = (found == 0).nonzero()[:, 1].tolist()
    # The inputs before it stay; those behind it take over what it gave.
    torch.testing.assert_close(found[:, :place], weight[:, :place])
    behind = x[:, place + 1 :]
    lost = x[:, place] * weight[0, place]
    ridge = 1e-2 * moments.diagonal().mean() * len(x)
    expected = torch.linalg.solve(behind.T @ behind + ridge * torch.eye(behind.shape[1]), behind.T @ lost)
    torch.testing.assert_close(found[0, place + 1 :] - weight[0, place + 1 :], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("block", BLOCKS)
def test_zeros_stay_also_beside_others_that_cost_nothing(block):
    _, weight, moments = correlated()
    weight[4:8, 8:16] = 0
    weighed = torch.zeros(len(weight))  # no answer depends on any output
    zeros = zero_blocks(weight, block)
    for share in (int(zeros.sum()) / 2 / zeros.numel(), int(zeros.sum()) / zeros.numel(), 0.5):
        found = zero_blocks(pruned(weight, moments, weighed, share, block), block)
        assert found[zeros].all()
        assert found.sum() == max(int(zeros.sum()), round(share * zeros.numel()))


def test_zeros_stay_when_more_are_asked_for():
    _, weight, moments = correlated()
    first = pruned(weight, moments, torch.ones(len(weight)), 0.3, (1, 4))
    second = pruned(first, moments, torch.ones(len(first)), 0.6, (1, 4))
    assert (second[first == 0] == 0).all()
    assert zero_blocks(second, (1, 4)).float().mean() == pytest.approx(0.6, abs=0.01)


def test_outputs_that_matter_keep_more_weights():
    _, weight, moments = correlated()
    weighed = torch.ones(len(weight))
    weighed[:8] = 100.0
    zeros = pruned(weight, moments, weighed, 0.5, (1, 1)) == 0
    assert zeros[:8].float().mean() < 0.2 < zeros[8:].float().mean()


def test_zeros_are_shared_out_by_what_they_cost_and_every_product_keeps_some():
    cheap, dear = torch.arange(100.0) / 1000, 1 + torch.arange(300.0)
    shares = _share_out({"cheap": cheap, "dear": dear}, 0.8)
    assert shares["cheap"] == pytest.approx(0.95, abs=0.011)  # a quarter of the 20% that all would keep
    assert 100 * shares["cheap"] + 300 * shares["dear"] == pytest.approx(320, abs=2)
    assert _share_out({"cheap": cheap, "dear": dear}, 0.2) == pytest.approx({"cheap": 0.8, "dear": 0.0}, abs=0.01)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_sensitivities_say_what_noise_on_an_output_costs_the_answers(kind, tiny_bert):
    model = smaller(tiny_bert(labels=3), Widths.of(tiny_bert(labels=3)))
    model.config.problem_type = kind
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    batch = {"input_ids": torch.randint(5, 90, (400, 6)), "attention_mask": torch.ones(400, 6, dtype=torch.long)}
    path = layer_parts(model.model)[0].up
    expected = 0.5 * float(sensitivities(model, [batch], seed=0)[path].sum())
    with torch.no_grad():
        given, size = model(**batch).logits, 1e-2
        handle = model.model.get_submodule(path).register_forward_hook(
            lambda _, __, output: output + size * torch.randn_like(output)
        )
        found = [divergence(given, model(**batch).logits, model.config) for _ in range(20)]
        handle.remove()
    scale = given.shape[1] / 2 if kind == "regression" else 1  # a mean of squares there, not half of their sum
    assert scale * float(torch.stack(found).mean()) / size**2 == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("block", [(1, 4), (4, 1)])
def test_a_pruned_model_has_the_zeros_and_nearly_the_answers_in_every_form(taught, block):
    model, tokenizer, texts = taught
    small = compress(model, texts, tokenizer=tokenizer, sparsity=0.6, block=block, epochs=0)
    assert small.config.compression == {"sparsity": 0.6, "block": list(block), "epochs": 0}
    assert share_of_zero_blocks(small, block) == pytest.approx(0.6, abs=0.01)
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
    assert share_of_zero_blocks(whole, (1, 4)) == pytest.approx(0.7, abs=0.01)
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


@pytest.mark.parametrize("cost", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_where_all_costs_are_equal_all_products_lose_as_many_blocks(cost, sparsity):
    costs = {f"{size}": torch.full((size,), cost, dtype=torch.float64) for size in (256, 64, 256, 1000, 8)}
    shares = _share_out(costs, sparsity)
    assert sum(shares[path] * len(each) for path, each in costs.items()) == round(
        sparsity * sum(map(len, costs.values()))
    )
    for path, share in shares.items():
        assert abs(share - sparsity) < 1.5 / len(costs[path])


def test_of_equal_costs_no_more_go_than_are_asked_for():
    costs = {
        "half": torch.cat([torch.zeros(50), torch.arange(1, 51)]).double(),
        "none": torch.arange(1, 101).double(),
        "all": torch.zeros(100).double(),
    }
    assert _share_out(costs, 0.3) == {"half": 0.34, "none": 0.0, "all": 0.56}
    shares = _share_out(costs, 0.6)
    assert sum(shares.values()) == pytest.approx(1.8)
    assert shares["all"] == 0.9  # of each at least a tenth stays


def test_of_a_model_whose_answers_are_certain_the_share_is_zero_that_is_asked_for(tiny_bert, word_tokenizer):
    model = tiny_bert(labels=2)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([200.0, -200.0]))
    small = compress(model, ["the good film", "not bad"] * 20, tokenizer=word_tokenizer, sparsity=0.5, epochs=0)
    assert share_of_zero_blocks(small, (1, 4)) == pytest.approx(0.5, abs=0.002)
