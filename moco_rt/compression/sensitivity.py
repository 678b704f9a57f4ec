"""Sensitivity: how much a model's answers depend on the outputs of its layers' products, from texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from moco_rt.architectures.compressed.layers import layer_parts
from moco_rt.compression.answers import surprise
from moco_rt.compression.sub_layers import Batch


def sensitivities(model: Any, batches: Sequence[Batch], seed: int) -> dict[str, Tensor]:
    """Return how far answers move when an output of a product is off, for all layers.

    That is the diagonal of the Fisher information at the product's outputs, summed over a row's tokens and averaged
    over rows: half of it times the squared error of an output is what that error adds to the KL divergence from the
    model's own answers, as far as errors are small (as in arXiv:1503.05671, with a diagonal for the outputs).

    Args:
        model: a classifier made by `compress`, in evaluation mode.
        batches: padded texts, where the model is.
        seed: of the answers, which are drawn from what the model says.

    Returns:
        (outputs,) float32 by path of the linear layer within `model.model`.
    """
    inner: Any = model.model
    paths = [path for part in layer_parts(inner) for path in astuple(part)]
    outputs: dict[str, Tensor] = {}

    def keep(path: str, output: Tensor) -> None:
        if output.requires_grad:  # another call only finds out which tokens go on
            outputs[path] = output

    handles = [
        inner.get_submodule(path).register_forward_hook(lambda _, __, output, path=path: keep(path, output))
        for path in paths
    ]
    generator = torch.Generator().manual_seed(seed)
    sums = {
        path: torch.zeros(inner.get_submodule(path).out_features, dtype=torch.float32, device=model.device)
        for path in paths
    }
    try:
        with torch.enable_grad():
            for batch in batches:
                loss = surprise(model(**batch, return_dict=True).logits, model.config, generator)
                gradients = torch.autograd.grad(loss, [outputs[path] for path in paths])
                for path, gradient in zip(paths, gradients, strict=True):
                    sums[path] += gradient.float().square().flatten(end_dim=-2).sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
    rows = sum(len(batch["input_ids"]) for batch in batches)
    return {path: each / rows for path, each in sums.items()}
