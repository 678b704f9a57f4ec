"""A linear layer in 8 bits: how near it is to the layer it was made from, and what stays when it is moved."""

from __future__ import annotations

import copy

import pytest
import torch

from moco_rt.quantization.int8_linear import Int8Linear


def make_linear(inputs=64, outputs=48, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, outputs)


def ones(linear):
    return torch.ones(linear.in_features)


@torch.no_grad()
def test_weights_are_rounded_to_the_nearest_of_the_steps_of_their_output():
    linear = make_linear()
    layer = Int8Linear.of(linear, ones(linear))
    assert layer.unpacked().dtype == torch.int8
    error = (layer.unpacked() * layer.scale[:, None] - linear.weight).abs()
    assert (error <= 0.501 * layer.scale[:, None]).all()
    torch.testing.assert_close(layer.bias, linear.bias)


def sums_in_16_bits(weight):
    """The largest sums of each output's positive and negative weights that a processor without VNNI adds in 16 bits."""
    grouped = weight.long().unflatten(1, (-1, 2, 2, 2))  # (outputs, groups of 8, word, pair, input of a pair)
    signs = [(sign * grouped).clamp(min=0).sum(dim=(2, 4)).flatten(1).amax(1) for sign in (1, -1)]
    return torch.stack(signs).amax(0)


@torch.no_grad()
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0], ids=["even", "uneven", "a few large"])
def test_scales_are_the_smallest_with_which_weights_fit_8_bits_and_sums_16(spread):
    linear = make_linear()
    linear.weight *= torch.exp(spread * torch.randn_like(linear.weight))
    weight = Int8Linear.of(linear, ones(linear)).unpacked()
    sums = sums_in_16_bits(weight)
    assert sums.max() <= 128
    assert weight.abs().max() <= 127
    assert ((sums >= 124) | (weight.abs().amax(1) == 127)).all()


@torch.no_grad()
def test_blocks_hold_16_outputs_and_words_4_inputs_and_zeros_beyond():
    linear = make_linear(inputs=6, outputs=20)
    layer = Int8Linear.of(linear, ones(linear))
    assert layer.weight.shape == Int8Linear(6, 20).weight.shape == (2, 2, 16, 4)
    weight = (linear.weight / layer.scale[:, None]).round()
    for block, word, output, place in ((0, 0, 0, 0), (0, 1, 15, 1), (1, 0, 3, 3)):
        assert layer.weight[block, word, output, place] == weight[16 * block + output, 4 * word + place]
    assert not layer.weight[1, :, 4:].any()
    assert not layer.weight[:, 1, :, 2:].any()
    assert torch.equal(layer.unpacked(), weight.to(torch.int8))


@torch.no_grad()
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0], ids=["around 0", "above 0", "below 0"])
def test_the_answer_is_as_near_as_8_bits_allow(shift):
    linear = make_linear()
    x = torch.randn(200, 64) + shift
    layer = Int8Linear.of(linear, ones(linear))
    # Inputs are off by half a step at most, weights by half of theirs, and these errors are independent.
    step = (x.amax(1).clamp(min=0) - x.amin(1).clamp(max=0)) / 255
    spread = (step[:, None] ** 2 * (linear.weight**2).sum(1) + (x**2).sum(1)[:, None] * layer.scale**2) / 12
    error = (layer(x) - linear(x)) / spread.sqrt()
    assert 0.8 < error.std() < 1.2
    assert error.abs().max() < 6


@torch.no_grad()
def test_a_token_does_not_depend_on_others():
    linear = make_linear()
    layer = Int8Linear.of(linear, ones(linear))
    x = torch.randn(5, 7, 64) * torch.logspace(-3, 3, 7)[:, None]
    whole = layer(x)
    assert whole.shape == (5, 7, 48)
    for row in range(5):
        for token in range(7):
            torch.testing.assert_close(layer(x[row, token]), whole[row, token], rtol=1e-6, atol=0)


@torch.no_grad()
def test_smoothing_makes_room_for_what_a_large_channel_hides():
    linear = make_linear()
    linear.weight[:, 5] *= 0.01
    x = torch.randn(200, 64)
    x[:, 5] *= 100
    smooth = ones(linear)
    smooth[5] = 100
    errors = [(Int8Linear.of(linear, by)(x) - linear(x)).square().mean() for by in (ones(linear), smooth)]
    assert errors[1] < 0.1 * errors[0]


@torch.no_grad()
@pytest.mark.parametrize("x", [torch.zeros(2, 64), torch.full((2, 64), 3.0), torch.full((2, 64), -0.5)])
def test_constant_tokens_are_exact_but_for_the_weights(x):
    linear = make_linear()
    layer = Int8Linear.of(linear, ones(linear))
    expected = x @ (layer.unpacked() * layer.scale[:, None]).T + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_output_without_weights_is_its_bias():
    linear = make_linear()
    linear.weight[3] = 0
    layer = Int8Linear.of(linear, ones(linear))
    assert torch.equal(layer(torch.randn(9, 64))[:, 3], linear.bias[3].expand(9))


@torch.no_grad()
def test_it_shares_no_memory_with_the_layer_it_was_made_from():
    linear = make_linear()
    layer = Int8Linear.of(linear, ones(linear))
    before = layer.bias.clone()
    linear.bias.zero_()
    assert torch.equal(layer.bias, before)


def test_a_layer_without_bias_adds_nothing():
    linear = torch.nn.Linear(8, 4, bias=False)
    assert not Int8Linear.of(linear, ones(linear)).bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_it_answers_in_the_dtype_of_its_input_and_keeps_its_own(dtype):
    linear = make_linear()
    layer = Int8Linear.of(linear, ones(linear))
    moved = copy.deepcopy(layer).to(dtype)
    assert moved(torch.randn(3, 64, dtype=dtype)).dtype == dtype
    assert all(torch.equal(ours, own) for ours, own in zip(moved.buffers(), layer.buffers(), strict=True))
    assert [buffer.dtype for buffer in moved.buffers()] == [torch.int8] + [torch.float32] * 3
