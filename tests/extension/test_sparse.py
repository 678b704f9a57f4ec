"""Weights without their zeros: the same bits as with them."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from moco_rt import _C, EarlyExitTextClassificationModel
from moco_rt.quantization.int8_linear import Int8Linear

#: 384 inputs are summed in one go.
SIZES = [(64, 384), (70, 388), (3, 30), (130, 1000), (16, 8)]
TOKENS = [1, 2, 7, 8, 9, 16, 25, 33, 64, 100]
#: (outputs, inputs) of which all are zero or none.
BLOCKS = [(1, 1), (1, 4), (4, 1)]
DTYPES = {"float32": torch.float32, "int8": torch.int8}


def sparse_layer(outputs, inputs, block, share=0.2, seed=0):
    torch.manual_seed(seed)
    linear = torch.nn.Linear(inputs, outputs)
    rows, columns = -(-outputs // block[0]), -(-inputs // block[1])
    kept = (torch.rand(rows, columns) < share).repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    with torch.no_grad():
        linear.weight *= kept[:outputs, :inputs]  # leaves -0, as masks do
        if outputs > 4:
            linear.weight[5] = 0
    return linear


def tiles_multiply(form):
    """Tell whether products are on tiles, beside which no zeros are skipped."""
    return _C.products_of(DTYPES[form]) == "oneDNN" or (_C.cpu_isa() == "amx" and form != "float32")


def layers_of(form, linear):
    if form == "int8":
        layer = Int8Linear.of(linear, torch.ones(linear.in_features))
        return torch.float32, (layer.weight, layer.bias, layer.scale, layer.smooth)
    return torch.float32, (linear.weight.detach(), linear.bias.detach())


@pytest.mark.parametrize("form", ["float32", "int8"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", SIZES)
def test_products_without_zeros_have_the_same_bits(size, block, form):
    # A word of int8 is four inputs: of single weights few may stay.
    dtype, weights = layers_of(form, sparse_layer(*size, block, share=0.2 if form == "float32" else 0.05))
    if size[0] >= 64 and not tiles_multiply(form):
        assert _C.density(weights, dtype) < 0.4
    for tokens in TOKENS:
        x = torch.randn(tokens, size[1]).to(dtype)
        assert torch.equal(_C.linear(x, weights), _C.linear(x, weights, skip_zeros=False))


def test_where_few_weights_are_zero_all_are_multiplied():
    for form in ("float32", "int8"):
        dtype, weights = layers_of(form, sparse_layer(64, 384, (1, 4), share=0.7))
        assert _C.density(weights, dtype) == 1


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_layer_of_zeros_gives_its_bias_with_the_same_bits(form):
    linear = torch.nn.Linear(40, 20)
    torch.nn.init.zeros_(linear.weight)
    _, weights = layers_of(form, linear)
    assert torch.equal(_C.linear(torch.randn(5, 40), weights), linear.bias.detach().expand(5, -1))


def test_a_token_has_the_same_bits_alone_and_in_any_batch_of_sparse_products():
    for form, block in itertools.product(("float32", "int8"), BLOCKS):
        _, weights = layers_of(form, sparse_layer(70, 388, block))
        x = torch.randn(200, 388)
        together = _C.linear(x, weights)
        for first, last in ((0, 1), (3, 10), (100, 150), (7, 200)):
            assert torch.equal(_C.linear(x[first:last], weights), together[first:last])


@pytest.mark.skipif(not _C.can_multiply(torch.bfloat16), reason="the processor does not multiply bfloat16")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", [(64, 384), (130, 1000)])
def test_bfloat16_products_without_zeros_err_by_at_most_twice_the_error(size, block):
    linear = sparse_layer(*size, block, share=0.1).to(torch.bfloat16)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    for tokens in TOKENS:
        x = torch.randn(tokens, size[1], dtype=torch.bfloat16)
        expected = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
        plain = (torch.nn.functional.linear(x, weight, bias).double() - expected).abs().max()
        assert (_C.linear(x, (weight, bias)).double() - expected).abs().max() <= 2 * plain


def test_what_is_not_a_number_stays_so():
    _, weights = layers_of("float32", sparse_layer(64, 384, (1, 4)))
    x = torch.randn(3, 384)
    x[1, 7] = torch.nan
    found = _C.linear(x, weights)
    read = weights[0][:, 7] != 0
    assert found[1, read].isnan().all()
    assert found[[0, 2]].isfinite().all()


def with_zeros(model, share):
    torch.manual_seed(0)
    for module in model.bert.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            kept = (torch.rand(module.out_features, module.in_features // 4) < share).repeat_interleave(4, 1)
            module.weight.data *= kept
    return model


def test_a_checkpoint_with_zeros_runs_without_them_and_says_at_which_density(tiny_bert, caplog):
    model = with_zeros(tiny_bert(hidden=64), 0.15)
    with caplog.at_level(logging.INFO, logger="moco_rt"):
        fast = EarlyExitTextClassificationModel(model)
    (line,) = [record.message for record in caplog.records if "zeros" in record.message]
    assert line.startswith("zeros are not multiplied: queries, keys and values ")
    assert "feed-forward down " in line
    ids = torch.randint(1, 100, (7, 20))
    mask = (torch.arange(20) < torch.tensor([20, 3, 1, 7, 19, 12, 4])[:, None]).long()
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(fast(ids, attention_mask=mask).logits, expected, atol=2e-5, rtol=1e-4)


def test_a_dense_model_says_nothing_of_zeros(tiny_bert, caplog):
    with caplog.at_level(logging.INFO, logger="moco_rt"):
        EarlyExitTextClassificationModel(tiny_bert())
    assert not [record for record in caplog.records if "zeros" in record.message]
