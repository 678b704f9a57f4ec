"""Linear layers by themselves: how exact they are in each form, and that a token's bits are its own."""

from __future__ import annotations

import itertools

import pytest
import torch
from instruction_sets import check_same_everywhere

from moco_rt import _C
from moco_rt.quantization.int8_linear import Int8Linear

#: One token, fewer and more than a tile has, and several tiles; no multiple of a vector's width, one, a whole panel.
TOKENS = (1, 5, 48, 131)
INPUTS = (2, 16, 50, 384, 1538)
OUTPUTS = (1, 2, 15, 16, 64, 70, 130)

DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(not _C.can_multiply(torch.bfloat16), reason="the processor does not multiply it"),
    ),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_products_are_within_twice_the_error_of_torchs(inputs, outputs, dtype):
    torch.manual_seed(inputs + outputs)
    weight, bias = torch.randn(outputs, inputs, dtype=dtype), torch.randn(outputs, dtype=dtype)
    for tokens in TOKENS:
        x = torch.randn(tokens, inputs, dtype=dtype)
        expected = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
        error = (_C.linear(x, (weight, bias)).double() - expected).abs().max()
        plain = (torch.nn.functional.linear(x, weight, bias).double() - expected).abs().max()
        size = (x.double().abs() @ weight.double().abs().T).max()
        assert error <= 2 * plain + 1e-7 * size


def extreme_weights(outputs, inputs, seed):
    """Weights of the largest sizes that an `Int8Linear` holds: +-127, 0, and sums that just fit 16 bits."""
    torch.manual_seed(seed)
    groups = -(-inputs // 8)
    fours = torch.tensor(
        [[127, 1, 0, 0], [-127, -1, 0, 0], [32, 32, 32, 32], [-32, -32, -32, -32], [127, -127, 1, -1], [0, 0, 0, 0]]
    )
    drawn = fours[torch.randint(len(fours), (outputs, groups, 2))]  # (outputs, groups, pair, 4)
    weight = drawn.unflatten(3, (2, 2)).transpose(2, 3).flatten(1)  # a pair's two inputs of each of two words
    return weight[:, :inputs].to(torch.int8)


def int8_weights(weight):
    """(weight, bias, scale, smooth) with scales of 1, so that what comes out are the sums themselves."""
    outputs, inputs = weight.shape
    layer = Int8Linear(inputs, outputs)
    padded = torch.nn.functional.pad(weight, (0, -inputs % 8, 0, -outputs % 16))
    layer.weight = padded.unflatten(0, (-1, 16)).unflatten(2, (-1, 4)).transpose(1, 2).contiguous()
    return layer.weight, torch.zeros(outputs), torch.ones(outputs), torch.ones(inputs)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_sums_of_int8_products_are_exact_up_to_the_corners(inputs, outputs):
    weight = extreme_weights(outputs, inputs, seed=inputs + outputs)
    weight[:, :2] = 0
    for tokens, values in itertools.product(TOKENS, ([255], [0, 255], [0, 1, 127, 128, 254, 255])):
        x = torch.tensor(values)[torch.randint(len(values), (tokens, inputs))].float()
        x[:, 0], x[:, 1] = 0, 255  # so that a byte is a step of 1
        sums = torch.stack([(row.long() * weight.long()).sum(1) for row in x])
        assert torch.equal(_C.linear(x, int8_weights(weight)).long(), sums)


@pytest.mark.parametrize("inputs", [5, 8, 20])
@pytest.mark.parametrize("output", [0, 17])
def test_int8_weights_that_no_layer_packs_are_refused(inputs, output):
    """On processors that sum in 16 bits they would overflow, or numbers behind the last input would be read."""
    weight = torch.zeros(20, inputs, dtype=torch.int8)
    weight[output, :2] = torch.tensor([127, 2])
    with pytest.raises(ValueError, match="at most 128 together, and zeros behind the last input"):
        _C.linear(torch.ones(1, inputs), int8_weights(weight))
    weight[output, :2] = torch.tensor([-127, -2])
    with pytest.raises(ValueError, match="at most 128 together"):
        _C.linear(torch.ones(1, inputs), int8_weights(weight))
    weight[output, :2] = torch.tensor([127, -127])
    packed = int8_weights(weight)
    _C.linear(torch.ones(1, inputs), packed)
    if inputs % 8:
        packed[0][output // 16, -1, output % 16, -1] = 1
        with pytest.raises(ValueError, match="zeros behind the last input"):
            _C.linear(torch.ones(1, inputs), packed)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)], ids=str)
def test_a_layer_without_inputs_or_outputs_is_refused(shape):
    with pytest.raises(ValueError, match="a layer must have outputs and inputs"):
        _C.linear(torch.zeros(2, shape[1]), (torch.zeros(shape), torch.ones(shape[0])))


def test_signs_that_torch_keeps_beside_the_memory_are_seen():
    negative = torch.randn(4, 8, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    eye = torch.eye(8), torch.zeros(8)
    assert torch.equal(_C.linear(negative, eye), negative.resolve_neg())
    assert torch.equal(_C.linear(torch.eye(8), (negative, torch.zeros(4))), negative.resolve_neg().T)


FORMS = ["float32", "int8"] + (["bfloat16"] if _C.can_multiply(torch.bfloat16) else [])


def layer_of(form, inputs=150, outputs=70):
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs)
    if form == "int8":
        layer = Int8Linear.of(linear, torch.ones(inputs))
        return torch.float32, (layer.weight, layer.bias, layer.scale, layer.smooth)
    dtype = getattr(torch, form)
    return dtype, (linear.weight.detach().to(dtype), linear.bias.detach().to(dtype))


@pytest.mark.parametrize("form", FORMS)
def test_a_token_has_the_same_bits_alone_and_in_any_batch(form):
    dtype, weights = layer_of(form)
    x = torch.randn(200, 150).to(dtype)
    together = _C.linear(x, weights)
    for first, last in ((0, 1), (3, 10), (100, 150), (7, 200)):
        assert torch.equal(_C.linear(x[first:last], weights), together[first:last])


SAME_EVERYWHERE = """
import hashlib, torch
from moco_rt import _C
from tests.extension.test_linear import layer_of
digest = hashlib.sha256()
for form in ("float32", "int8"):
    dtype, weights = layer_of(form)
    x = torch.randn(60, 150, generator=torch.Generator().manual_seed(1))
    digest.update(_C.linear(x, weights).numpy().tobytes())
print(digest.hexdigest())
"""


def test_every_instruction_set_with_fused_multiply_add_gives_the_same_bits():
    check_same_everywhere(SAME_EVERYWHERE)


def test_what_does_not_fit_is_refused(one_line_error):
    weight, bias = torch.ones(3, 8), torch.ones(3)
    with one_line_error(ValueError, "linear: x must have shape [2, 8] (got [2, 7])"):
        _C.linear(torch.ones(2, 7), (weight, bias))
    with one_line_error(TypeError, "linear: x must be torch.float32 or torch.bfloat16 (got torch.float64)"):
        _C.linear(torch.ones(2, 8, dtype=torch.float64), (weight, bias))
