"""Answers of two models compared: how far a smaller model's are from those of the model which it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, logsigmoid, mse_loss

from moco_rt.compression.sub_layers import Batch
from moco_rt.runtime.model import EarlyExitTextClassificationModel


@torch.no_grad()
def answers(model: Any, batches: Sequence[Batch]) -> Tensor:
    """Return the logits of all rows, by the fastest backend that covers the model: (N, C) float32."""
    fast = EarlyExitTextClassificationModel(model)
    return torch.cat([fast(**batch).logits.float() for batch in batches])


def problem_type(config: Any) -> str:
    """Return what a model's answers are, which a configuration may leave to the number of labels."""
    if config.num_labels == 1:
        return "regression"
    named: str | None = config.problem_type
    return named or "single_label_classification"


def divergence(given: Tensor, found: Tensor, config: Any) -> Tensor:
    """Return the mean over rows of how far answers are from others.

    Of one label the KL divergence between probabilities; where several labels may hold at once the sum of that of each;
    of numbers, and of models with one label, the squared error.

    Args:
        given: (rows, C) logits that should be met.
        found: (rows, C) logits.
        config: the model's, which says what its answers are.
    """
    if problem_type(config) == "regression":
        return mse_loss(found, given)
    if problem_type(config) == "multi_label_classification":
        both = [torch.stack([logsigmoid(logits), logsigmoid(-logits)]) for logits in (found, given)]
        return kl_div(both[0], both[1], log_target=True, reduction="sum") / len(given)
    return kl_div(found.log_softmax(dim=1), given.log_softmax(dim=1), log_target=True, reduction="batchmean")


def distance(given: Tensor, found: Tensor, config: Any) -> float:
    """Return the `divergence` as a number from 0 on.

    It is a sum of terms of both signs, which single precision would round to below 0 where answers are nearly the same.
    """
    return max(0.0, float(divergence(given.double(), found.double(), config)))


def surprise(logits: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    """Return the negative log-likelihood of answers that are drawn from a model's own, summed over rows.

    The squares of its gradients are Fisher information. Numbers are taken to be off by a standard normal error.

    Args:
        logits: (rows, C).
        config: the model's, which says what its answers are.
        generator: of the answers, on the CPU.
    """
    said = logits.detach().float().cpu()
    if problem_type(config) == "regression":
        drawn = said + torch.randn(said.shape, generator=generator, dtype=said.dtype, device=said.device)
        return mse_loss(logits, drawn.to(logits), reduction="sum") / 2
    if problem_type(config) == "multi_label_classification":
        drawn = torch.bernoulli(said.sigmoid(), generator=generator)
        return binary_cross_entropy_with_logits(logits, drawn.to(logits), reduction="sum")
    labels = torch.multinomial(said.softmax(dim=1), 1, generator=generator)[:, 0]
    return cross_entropy(logits, labels.to(logits.device), reduction="sum")
