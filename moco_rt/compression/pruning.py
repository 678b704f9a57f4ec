"""Make weights zero in small blocks, those that cost least, while the others of their output make up for them.

What a block costs, and what the others should become, follow from the second moments of a linear layer's inputs
(optimal brain surgeon, blocks as in arXiv:2203.07259; the sweep over inputs is that of arXiv:2301.00774), and from how
much the answers depend on each output (see `compression.sensitivity`), which makes the blocks of all layers comparable.
Layers are pruned one after the other, each on what the pruned ones below it give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures.compressed.layers import head_size, layer_parts
from moco_rt.architectures.compressed.model import CompressedForSequenceClassification
from moco_rt.compression.sensitivity import sensitivities
from moco_rt.compression.sub_layers import Batch, Walk, watch

#: Outputs and inputs of a block of weights that are zero together: those that kernels without zeros take.
Block = tuple[int, int]
BLOCKS: tuple[Block, ...] = ((1, 1), (1, 4), (4, 1))

#: What is added to the diagonal of second moments, relative to its mean.
_RIDGE = 1e-2
#: Inputs whose errors are spread over the inputs behind them at once.
_SWEEP = 128
#: Of its blocks a product keeps at least this share of what it would keep if all products lost as many.
_LEAST_KEPT = 0.25


def check_block(model: Any, block: Block) -> None:
    """Refuse blocks that do not divide a model's layers.

    Raises:
        ValueError: they are such.
    """
    for part in layer_parts(model):
        for path in astuple(part):
            linear = model.get_submodule(path)
            if linear.out_features % block[0] or linear.in_features % block[1]:
                sizes = f"{linear.out_features} x {linear.in_features}"
                raise ValueError(f"block must divide the model's layers (got {block}, and {sizes} of {path})")


def heads_at_once(model: Any, block: Block) -> int:
    """Return how many heads must be left out together for blocks to divide what is left of layers that they divide."""
    return max(block) // math.gcd(max(block), head_size(model.config))


def prune(
    model: CompressedForSequenceClassification, batches: Sequence[Batch], sparsity: float, block: Block, seed: int
) -> None:
    """Make a share of the weights in the products of the layers zero, in place; blocks that are zero stay so.

    Products lose more or less than others, so that the answers lose least.

    Args:
        model: the classifier, on any device.
        batches: texts by which weights are chosen, padded.
        sparsity: the share of all products' weights that is zero afterwards.
        block: (outputs, inputs) of which all weights are zero or none.
        seed: of the answers that are drawn to find out what those depend on.
    """
    inner: Any = model.model
    at_hand = [{name: tensor.to(model.device) for name, tensor in batch.items()} for batch in batches]
    few = at_hand[::2]  # gradients cost more than moments, and need fewer tokens
    weighed = sensitivities(model, few, seed)
    shares = _share_out(_block_costs(inner, few, weighed, block), sparsity)
    walk = Walk(inner, at_hand)
    for first, second in tqdm(_sub_layer_products(inner), desc="prune", delay=2, leave=False):
        walk.take_step()
        for paths in (first, (second,)):  # the second reads what the first, pruned, gives
            (moments,) = _moments(walk, [inner.get_submodule(paths[0])])
            for path in paths:
                weight = inner.get_submodule(path).weight
                weight.data.copy_(pruned(weight.detach(), moments, weighed[path], shares[path], block))
        walk.advance()


def _sub_layer_products(model: Any) -> list[tuple[tuple[str, ...], str]]:
    """Return the products of each sub-layer: those that read its input, and the one that reads what these give."""
    halves: list[tuple[tuple[str, ...], str]] = []
    for part in layer_parts(model):
        halves += [((part.query, part.key, part.value), part.output), ((part.up,), part.down)]
    return halves


def _block_costs(model: Any, batches: Sequence[Batch], weighed: dict[str, Tensor], block: Block) -> dict[str, Tensor]:
    """Return what the answers lose with each block of weights, by path of the product: flat, float64."""
    walk, costs = Walk(model, batches), {}
    for first, second in _sub_layer_products(model):
        walk.take_step()
        linears = [model.get_submodule(path) for path in (first[0], second)]
        for paths, moments in zip((first, (second,)), _moments(walk, linears), strict=True):
            inverse = _inverse(moments)
            for path in paths:
                weight = model.get_submodule(path).weight.detach().double()
                costs[path] = _costs(weight, inverse, weighed[path], block).flatten()
        walk.advance()
    return costs


def _share_out(costs: dict[str, Tensor], sparsity: float) -> dict[str, float]:
    """Return the share of each product's blocks that becomes zero: all products' cheapest, but never nearly all of one.

    Where a product keeps almost nothing, small errors are no longer what it is about, and costs say too little.
    """
    least = (1 - sparsity) * _LEAST_KEPT
    most = [max(1, round((1 - least) * each.numel())) for each in costs.values()]
    capped = [_capped(each, count) for each, count in zip(costs.values(), most, strict=True)]
    gone = min(round(sparsity * sum(map(len, capped))), sum(most))
    if gone == 0:
        return dict.fromkeys(costs, 0.0)
    limit = torch.cat(capped).kthvalue(gone).values
    below = [int((each < limit).sum()) for each in capped]
    equal = [int((each == limit).sum()) for each in capped]
    counts = [under + some for under, some in zip(below, _parts(gone - sum(below), equal), strict=True)]
    return {path: count / costs[path].numel() for path, count in zip(costs, counts, strict=True)}


def _capped(costs: Tensor, most: int) -> Tensor:
    """Return costs of which only so many, the lowest, are finite; of equal ones the first."""
    highest = costs.kthvalue(most).values
    capped = torch.where(costs > highest, torch.inf, costs)
    equal = (costs == highest).nonzero().flatten()
    capped[equal[most - int((costs < highest).sum()) :]] = torch.inf
    return capped


def _parts(whole: int, sizes: Sequence[int]) -> list[int]:
    """Return parts of a whole number in proportion to sizes, none of which is smaller than its part."""
    ends = [whole * end // max(1, sum(sizes)) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def _moments(walk: Walk, linears: Sequence[torch.nn.Linear]) -> list[Tensor]:
    """Return the mean products of the inputs of linear layers over all real tokens: each (inputs, inputs) float32."""
    sums = [each.weight.new_zeros(each.in_features, each.in_features, dtype=torch.float32) for each in linears]
    tokens = 0
    with ExitStack() as stack:
        watched = [stack.enter_context(watch(each)) for each in linears]
        for place, mask in enumerate(walk.masks):
            walk.run(place)
            for moments, seen in zip(sums, watched, strict=True):
                x = seen[0][0][mask].float()
                moments += x.T @ x
            tokens += int(mask.sum())
    return [moments / tokens for moments in sums]


def _inverse(moments: Tensor) -> Tensor:
    """Return the inverse of second moments with something added to their diagonal: float64."""
    moments = moments.double()
    ridge = _RIDGE * (float(moments.diagonal().mean()) or 1.0)  # where all inputs are 0 any will do
    inverse: Tensor = torch.linalg.inv(
        moments + ridge * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    )
    return inverse


def pruned(weight: Tensor, moments: Tensor, weighed: Tensor, sparsity: float, block: Block) -> Tensor:
    """Return a weight with a share of its blocks zero, the others changed so that the outputs change least.

    Args:
        weight: (outputs, inputs), of which some may be zero already.
        moments: (inputs, inputs) mean products of the inputs.
        weighed: (outputs,) what a squared error of each costs.
        sparsity: the share of the blocks that is zero in the result.
        block: (outputs, inputs) of one.
    """
    w, inverse = weight.double(), _inverse(moments)
    kept = _kept(_costs(w, inverse, weighed, block), sparsity, block)
    upper = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, w.shape[1], _SWEEP):
        own = slice(start, min(start + _SWEEP, w.shape[1]))
        errors = _sweep(w[:, own], upper[own, own], kept[:, own])
        w[:, own.stop :] -= errors @ upper[own, own.stop :]
    return (w * kept).to(weight.dtype)


def _sweep(w: Tensor, upper: Tensor, kept: Tensor) -> Tensor:
    """Make weights zero one input after the other, in place, and spread what is lost over the inputs behind it.

    Args:
        w: (outputs, inputs).
        upper: (inputs, inputs) the Cholesky factor of the inverse moments.
        kept: (outputs, inputs) which stay.

    Returns:
        What was lost of each, in steps of the factor's rows: (outputs, inputs).
    """
    errors = torch.zeros_like(w)
    for i in range(w.shape[1]):
        errors[:, i] = torch.where(kept[:, i], 0.0, w[:, i]) / upper[i, i]
        w[:, i:] -= errors[:, i, None] * upper[i, i:]
    return errors


def _costs(w: Tensor, inverse: Tensor, weighed: Tensor, block: Block) -> Tensor:
    """Return what is lost with each block, when the others make up for it: (outputs / block, inputs / block).

    It is -1 of blocks that are zero already: they go before those that cost nothing, and so stay zero.
    """
    outputs, inputs = block
    places = torch.arange(w.shape[1], device=w.device).view(-1, inputs)
    between = torch.linalg.inv(inverse[places[:, :, None], places[:, None, :]])  # (blocks, inputs, inputs)
    by_block = w.view(w.shape[0], -1, inputs)
    costs = torch.einsum("obi,bij,obj->ob", by_block, between, by_block) * weighed[:, None]
    costs = costs.view(-1, outputs, costs.shape[1]).sum(dim=1)
    zero = (by_block == 0).all(dim=2).view(-1, outputs, costs.shape[1]).all(dim=1)
    return torch.where(zero, -1.0, costs)


def _kept(costs: Tensor, sparsity: float, block: Block) -> Tensor:
    """Return which weights stay, those of the blocks that would cost most: (outputs, inputs) bool."""
    kept = torch.ones(costs.numel(), dtype=torch.bool, device=costs.device)
    kept[costs.flatten().argsort(stable=True)[: round(sparsity * costs.numel())]] = False
    return kept.view(costs.shape).repeat_interleave(block[0], dim=0).repeat_interleave(block[1], dim=1)


def masks_of(model: CompressedForSequenceClassification) -> dict[Tensor, Tensor]:
    """Return which weights of the layers' products are not zero: bool, by weight."""
    inner: Any = model.model
    weights = [inner.get_submodule(path).weight for part in layer_parts(inner) for path in astuple(part)]
    return {weight: weight.detach() != 0 for weight in weights}
