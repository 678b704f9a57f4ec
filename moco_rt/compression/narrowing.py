"""Make layers narrower: which heads and neurons stay is found on texts, without gradients and without labels.

Sub-layers are compared by how much the model's answers change when half of one's units are gone (see `distance`),
and by how much of its output is lost with each group of units; what costs least for the work it saves goes first. The
output projections are then solved for anew, from the bottom, so that each narrower sub-layer gives what the model's own
gives, in spite of what was lost below it (arXiv:2204.09656, 2303.04185, 2308.03449).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures.compressed.layers import Widths, layer_parts
from moco_rt.architectures.compressed.model import CompressedConfig, CompressedForSequenceClassification
from moco_rt.compression.answers import answers, distance
from moco_rt.compression.reconstruction import Removals, order_removals, solve
from moco_rt.compression.sub_layers import Batch, SubLayer, Walk, sub_layers, watch, with_one

#: Neurons go in groups of so many: the kernels work on blocks of 16 outputs.
_NEURONS = 16


def narrow(model: Any, batches: Sequence[Batch], width: float, heads: int = 1) -> CompressedForSequenceClassification:
    """Return a model with a share of the heads and neurons of another, without any training.

    Args:
        model: the classifier, in float32.
        batches: texts to choose by, padded.
        width: the share of the multiply-adds in the products of the layers that is left.
        heads: how many heads go at a time, so that blocks of weights divide those that stay.

    Raises:
        ValueError: its layers cannot be made narrower, or not to this width.
    """
    model = _with_own_layers(model)
    halves = sub_layers(model, heads, _NEURONS)
    if width == 1:
        return _cut(model, halves, [torch.arange(half.units, device=model.device) for half in halves])
    budget = width * sum(half.units * half.unit_weights for half in halves)
    if sum(half.step * half.unit_weights for half in halves) > budget:
        some = "a head" if heads == 1 else f"{heads} heads, as few as the blocks divide,"
        raise ValueError(f"width must leave every layer {some} and {_NEURONS} neurons (got {width})")
    removals, losses = _measure(model, halves, batches)
    removed = _share_out(halves, removals, losses, budget)
    kept = [each.kept(count) for each, count in zip(removals, removed, strict=True)]
    return _cut(_rebuild(model, halves, kept, batches), halves, kept)


def _with_own_layers(model: Any) -> Any:
    """Return a copy of a model whose layers share no modules and no weights, as each is cut and solved by itself."""
    found = smaller(model, Widths.of(model)).model
    found.load_state_dict(model.state_dict())
    return found


def _measure(model: Any, halves: Sequence[SubLayer], batches: Sequence[Batch]) -> tuple[list[Removals], list[float]]:
    """Return the order of removals in each sub-layer, and the loss when half of its groups of units are gone."""
    few = batches[::2]  # answers cost more than moments, and need fewer tokens
    expected = answers(model, few)
    walk = Walk(model, batches)
    removals, losses = [], []
    for half in tqdm(halves, desc="widths", delay=2, leave=False):
        linear = model.get_submodule(half.path)
        walk.take_step()
        moments = linear.weight.new_zeros(linear.in_features + 1, linear.in_features + 1)
        tokens = 0
        with watch(linear) as seen:
            for place, mask in enumerate(walk.masks):
                walk.hidden[place] = walk.run(place)
                x = with_one(seen[0][0][mask])
                moments += x.T @ x
                tokens += len(x)
        moments /= tokens
        order = order_removals(moments, linear.weight.detach(), linear.bias.detach(), half)
        weight = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach()
        removals.append(order)
        losses.append(_loss_without(model, half, order, moments, weight @ moments, few, expected))
    return removals, losses


def _loss_without(
    model: Any,
    half: SubLayer,
    order: Removals,
    moments: Tensor,
    products: Tensor,
    batches: Sequence[Batch],
    expected: Tensor,
) -> float:
    """Return how far a model's answers move when half of a sub-layer's groups are gone."""
    linear = model.get_submodule(half.path)
    before = linear.weight.detach().clone(), linear.bias.detach().clone()
    _set(linear, half, order.kept(len(order.units) // 2), moments, products)
    try:
        return distance(expected, answers(model, batches), model.config)
    finally:
        _copy_into(linear, *before)


def _share_out(
    halves: Sequence[SubLayer], removals: Sequence[Removals], losses: Sequence[float], budget: float
) -> list[int]:
    """Return how many groups of units each sub-layer loses, so that all keep to a budget of weights.

    The next group to go is the one whose absence adds least to the loss for the weights that it saves; a sub-layer's
    loss is taken to grow with the error of its output.
    """
    removed = [0] * len(halves)
    left = sum(half.units * half.unit_weights for half in halves)

    def price(place: int) -> float:
        errors, gone = removals[place].errors, removed[place]
        if gone + 1 >= len(errors):
            return float("inf")
        scale = losses[place] / max(errors[len(removals[place].units) // 2], 1e-12)
        return scale * (errors[gone + 1] - errors[gone]) / (halves[place].step * halves[place].unit_weights)

    while left > budget:
        place = min(range(len(halves)), key=price)
        removed[place] += 1
        left -= halves[place].step * halves[place].unit_weights
    return removed


def _rebuild(model: Any, halves: Sequence[SubLayer], kept: Sequence[Tensor], batches: Sequence[Batch]) -> Any:
    """Return a copy of a model whose output projections read the units that are kept alone, solved from the bottom."""
    rebuilt = copy.deepcopy(model)
    full, cut = Walk(model, batches), Walk(rebuilt, batches)
    for half, units in zip(tqdm(halves, desc="least squares", delay=2, leave=False), kept, strict=True):
        full_linear, linear = model.get_submodule(half.path), rebuilt.get_submodule(half.path)
        full.take_step()
        cut.take_step()
        moments = linear.weight.new_zeros(linear.in_features + 1, linear.in_features + 1)
        products = linear.weight.new_zeros(linear.out_features, linear.in_features + 1)
        tokens = 0
        with watch(full_linear) as of_full, watch(linear) as of_cut:
            for place, mask in enumerate(full.masks):
                after = full.run(place)
                cut.run(place)
                # What is added to the residual should also make up for what the residual lacks.
                target = (of_full[0][1] + full.hidden[place] - cut.hidden[place])[mask]
                x = with_one(of_cut[0][0][mask])
                moments += x.T @ x
                products += target.T @ x
                tokens += len(x)
                full.hidden[place] = after
        _set(linear, half, units, moments / tokens, products / tokens)
        cut.advance()
    return rebuilt


def _set(linear: torch.nn.Linear, half: SubLayer, units: Tensor, moments: Tensor, products: Tensor) -> None:
    """Give a linear layer the weights with which some units come nearest to its target; the others get zeros."""
    places = half.inputs_of(units)
    solved, bias = solve(moments, products, places, linear.weight.detach())
    weight = torch.zeros_like(linear.weight)
    weight[:, places] = solved.to(weight.dtype)
    _copy_into(linear, weight, bias)


@torch.no_grad()
def _copy_into(linear: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


@torch.no_grad()
def _cut(model: Any, halves: Sequence[SubLayer], kept: Sequence[Tensor]) -> CompressedForSequenceClassification:
    """Return a model that has no other heads and neurons than those that are kept."""
    heads, neurons = kept[::2], kept[1::2]
    widths = Widths(tuple(map(len, heads)), tuple(map(len, neurons)))
    found = smaller(model, widths)
    state = dict(model.state_dict())
    for layer, part in enumerate(layer_parts(model)):
        of_heads = halves[2 * layer].inputs_of(heads[layer])
        of_neurons = halves[2 * layer + 1].inputs_of(neurons[layer])
        for paths, places in (((part.query, part.key, part.value), of_heads), ((part.up,), of_neurons)):
            for path in paths:
                state |= {f"{path}.{name}": state[f"{path}.{name}"][places] for name in ("weight", "bias")}
        for path, places in ((part.output, of_heads), (part.down, of_neurons)):
            state[f"{path}.weight"] = state[f"{path}.weight"][:, places]
    found.model.load_state_dict(state)
    return found


def smaller(model: Any, widths: Widths, lengths: Sequence[float] = ()) -> CompressedForSequenceClassification:
    """Return a model like another with layers of these widths, whose weights are not set, and these lengths."""
    base = copy.deepcopy(model.config)
    base.num_hidden_layers = len(widths.heads)  # some may have been taken away since the model was loaded
    config = CompressedConfig(base, widths.heads, widths.neurons, lengths, name_or_path=base.name_or_path)
    # What is drawn for its weights, in vain, is not missed by the caller's own draws.
    device = torch.device(model.device)
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type), device:
        made: CompressedForSequenceClassification = CompressedForSequenceClassification(config).to(model.dtype).eval()
    return made
