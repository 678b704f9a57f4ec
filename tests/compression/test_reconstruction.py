"""Least squares in place of what is left out: orders of removal and solved weights, against doing it the long way."""

from __future__ import annotations

import pytest
import torch

from moco_rt.compression.reconstruction import order_removals, solve
from moco_rt.compression.sub_layers import SubLayer, with_one

TOKENS, OUTPUTS = 400, 5


def sample(inputs, seed=0):
    """Inputs that depend on each other, weights and a bias."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, inputs, generator=generator)
    x = torch.randn(TOKENS, inputs, generator=generator) @ mixed + 0.5
    return x, torch.randn(OUTPUTS, inputs, generator=generator), torch.randn(OUTPUTS, generator=generator)


def moments_of(x):
    both = with_one(x)
    return both.T @ both / len(x)


def relative_error(x, weight, bias, kept):
    """The error of the best weights for some inputs, by plain least squares in float64."""
    target = (x @ weight.T + bias).double()
    best = with_one(x[:, kept]).double()
    residual = target - best @ torch.linalg.lstsq(best, target).solution
    return float(residual.square().sum() / target.square().sum())


@pytest.fixture
def no_ridge(monkeypatch):
    monkeypatch.setattr("moco_rt.compression.reconstruction._RIDGE", 1e-9)


@pytest.mark.usefixtures("no_ridge")
@pytest.mark.parametrize(("unit", "units", "step"), [(1, 24, 4), (1, 12, 1), (4, 6, 1), (4, 6, 2)])
def test_errors_are_those_of_the_best_weights(unit, units, step):
    sub_layer = SubLayer(0, "", unit, units, step, 1)
    x, weight, bias = sample(unit * units)
    found = order_removals(moments_of(x), weight, bias, sub_layer)
    assert torch.cat(found.units).sort().values.tolist() == list(range(units))
    assert len(found.errors) == len(found.units) == units // step
    assert found.errors[0] == 0
    for removed, error in enumerate(found.errors):
        kept = sub_layer.inputs_of(found.kept(removed))
        assert error == pytest.approx(relative_error(x, weight, bias, kept), rel=1e-3, abs=1e-6)


@pytest.mark.usefixtures("no_ridge")
def test_the_first_unit_to_go_is_the_one_that_costs_least():
    x, weight, bias = sample(12)
    first = order_removals(moments_of(x), weight, bias, SubLayer(0, "", 1, 12, 1, 1)).units[0]
    costs = [relative_error(x, weight, bias, [i for i in range(12) if i != gone]) for gone in range(12)]
    assert first.tolist() == [costs.index(min(costs))]


def test_an_input_that_says_nothing_goes_first_and_one_that_is_doubled_costs_nothing():
    x, weight, bias = sample(12)
    x[:, 3] = 7.0
    x[:, 5] = x[:, 8]
    found = order_removals(moments_of(x), weight, bias, SubLayer(0, "", 1, 12, 1, 1))
    gone = {int(unit) for unit in torch.cat(found.units[:2])}
    assert 3 in gone
    assert gone & {5, 8}
    assert found.errors[2] < 1e-2


@pytest.mark.usefixtures("no_ridge")
def test_solved_weights_are_those_of_least_squares():
    x, weight, bias = sample(10)
    target = x @ weight.T + bias
    kept = torch.tensor([0, 3, 4, 9])
    solved, solved_bias = solve(moments_of(x), target.T @ with_one(x) / len(x), kept, weight)
    error = (x[:, kept] @ solved.T + solved_bias - target).square().sum() / target.square().sum()
    assert float(error) == pytest.approx(relative_error(x, weight, bias, kept), rel=1e-4)


def test_all_inputs_give_the_weights_back():
    x, weight, bias = sample(6)
    moments = moments_of(x)
    products = torch.cat([weight, bias[:, None]], dim=1) @ moments
    solved, solved_bias = solve(moments, products, torch.arange(6), weight)
    torch.testing.assert_close(solved, weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(solved_bias, bias, rtol=1e-3, atol=1e-3)


def test_an_output_that_is_always_0_loses_nothing():
    x, weight, bias = sample(12)
    sub_layer = SubLayer(0, "", 1, 12, 4, 1)
    assert order_removals(moments_of(x), 0 * weight, 0 * bias, sub_layer).errors == [0.0, 0.0, 0.0]


def test_inputs_that_are_always_0_leave_the_weights_as_they_are():
    x, weight, bias = sample(12)
    nothing = moments_of(0 * x)
    assert max(order_removals(nothing, weight, bias, SubLayer(0, "", 1, 12, 4, 1)).errors) < 1
    solved, solved_bias = solve(nothing, torch.cat([weight, bias[:, None]], dim=1) @ nothing, torch.arange(12), weight)
    torch.testing.assert_close(solved, weight)
    torch.testing.assert_close(solved_bias, bias)
