"""Make weights zero in small blocks, those that cost least, while the others of their output make up for them.

What a block costs, and what the others should become, follow from the second moments of a linear layer's inputs
(optimal brain surgeon, blocks as in arXiv:2203.07259; the sweep over inputs is that of arXiv:2301.00774). Layers are
pruned one after the other, each on what the pruned ones below it give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures.compressed.layers import layer_parts
from moco_rt.architectures.compressed.model import CompressedForSequenceClassification
from moco_rt.compression.sub_layers import Batch, Walk, watch

#: Outputs and inputs of a block of weights that are zero together: those that kernels without zeros take.
Block = tuple[int, int]
BLOCKS: tuple[Block, ...] = ((1, 1), (1, 4), (4, 1))

#: What is added to the diagonal of second moments, relative to its mean.
_RIDGE = 1e-2
#: Inputs whose errors are spread over the inputs behind them at once.
_SWEEP = 128


def check_block(model: Any, block: Block) -> None:
    """Refuse blocks that no kernels take, or that do not divide a model's layers.

    Raises:
        ValueError: they are such.
    """
    if tuple(block) not in BLOCKS:
        raise ValueError(f"block must be (outputs, inputs), one of {', '.join(map(str, BLOCKS))} (got {block})")
    for part in layer_parts(model):
        for path in astuple(part):
            linear = model.get_submodule(path)
            if linear.out_features % block[0] or linear.in_features % block[1]:
                sizes = f"{linear.out_features} x {linear.in_features}"
                raise ValueError(f"block must divide the model's layers (got {block}, and {sizes} of {path})")


def prune(model: CompressedForSequenceClassification, batches: Sequence[Batch], sparsity: float, block: Block) -> None:
    """Make a share of the weights in the products of each layer zero, in place; blocks that are zero stay so.

    Args:
        model: the classifier, on any device.
        batches: texts by which weights are chosen, padded.
        sparsity: the share of each product's weights that is zero afterwards.
        block: (outputs, inputs) of which all weights are zero or none.
    """
    inner: Any = model.model
    at_hand = [{name: tensor.to(model.device) for name, tensor in batch.items()} for batch in batches]
    walk = Walk(inner, at_hand)
    for part in tqdm(layer_parts(inner), desc="prune", delay=2, leave=False):
        for first, second in (((part.query, part.key, part.value), part.output), ((part.up,), part.down)):
            walk.take_step()
            for paths in (first, (second,)):  # the second reads what the first, pruned, gives
                moments = _moments(walk, inner.get_submodule(paths[0]))
                for path in paths:
                    weight = inner.get_submodule(path).weight
                    weight.data.copy_(pruned(weight.detach(), moments, sparsity, block))
            walk.hidden = [walk.run(place) for place in range(len(batches))]


def _moments(walk: Walk, linear: torch.nn.Linear) -> Tensor:
    """Return the mean products of a linear layer's inputs over all real tokens: (inputs, inputs) float32."""
    moments = linear.weight.new_zeros(linear.in_features, linear.in_features, dtype=torch.float32)
    tokens = 0
    with watch(linear) as seen:
        for place, mask in enumerate(walk.masks):
            walk.run(place)
            x = seen[0][0][mask].float()
            moments += x.T @ x
            tokens += len(x)
    return moments / tokens


def pruned(weight: Tensor, moments: Tensor, sparsity: float, block: Block) -> Tensor:
    """Return a weight with a share of its blocks zero, the others changed so that the outputs change least.

    Args:
        weight: (outputs, inputs), of which some may be zero already.
        moments: (inputs, inputs) mean products of the inputs.
        sparsity: the share of the blocks that is zero in the result.
        block: (outputs, inputs) of one.
    """
    w, moments = weight.double(), moments.double()
    ridge = _RIDGE * float(moments.diagonal().mean())
    inverse = torch.linalg.inv(moments + ridge * torch.eye(len(moments), dtype=w.dtype, device=w.device))
    kept = _kept(w, inverse, sparsity, block)
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


def _kept(w: Tensor, inverse: Tensor, sparsity: float, block: Block) -> Tensor:
    """Return which weights stay, those of the blocks that would cost most: (outputs, inputs) bool."""
    outputs, inputs = block
    places = torch.arange(w.shape[1], device=w.device).view(-1, inputs)
    between = torch.linalg.inv(inverse[places[:, :, None], places[:, None, :]])  # (blocks, inputs, inputs)
    by_block = w.view(w.shape[0], -1, inputs)
    costs = torch.einsum("obi,bij,obj->ob", by_block, between, by_block)
    costs = costs.view(-1, outputs, costs.shape[1]).sum(dim=1)
    gone = round(sparsity * costs.numel())
    kept = torch.ones(costs.numel(), dtype=torch.bool, device=w.device)
    kept[costs.flatten().argsort()[:gone]] = False
    return kept.view(costs.shape).repeat_interleave(outputs, dim=0).repeat_interleave(inputs, dim=1)


def masks_of(model: CompressedForSequenceClassification) -> dict[Tensor, Tensor]:
    """Return which weights of the layers' products are not zero: bool, by weight."""
    inner: Any = model.model
    weights = [inner.get_submodule(path).weight for part in layer_parts(inner) for path in astuple(part)]
    return {weight: weight.detach() != 0 for weight in weights}
