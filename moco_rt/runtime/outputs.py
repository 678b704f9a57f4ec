"""What models and cascades return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass
class EarlyExitOutput(ModelOutput):
    """What the model returns.

    Attributes:
        logits: (B, C). A row that left early has log-probabilities: 1 - the exit's bound for its class, the rest
            shared by the other classes.
        exit_site: (B,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (B,) int64, place in `model.policy.exits`; -1 = ran to the end.
    """

    logits: Tensor | None = None
    exit_site: Tensor | None = None
    exit_rule: Tensor | None = None


@dataclass
class CascadeOutput(EarlyExitOutput):
    """What a cascade returns.

    Attributes:
        tier: (B,) int64, the place of the model that answered, whose sites and exits are meant.
    """

    tier: Tensor | None = None


@dataclass
class Prediction:
    """What `predict` returns, by text.

    Attributes:
        labels: (N,) int64, the class with the highest probability.
        probs: (N, C) float32; a model with one label, or with several that may hold at once, gives each its own.
        exit_site: (N,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (N,) int64, place in `model.policy.exits`; -1 = ran to the end.
        tier: (N,) int64, the place in a cascade of the model that answered, whose sites and exits are meant; 0 of a
            model by itself.
    """

    labels: Tensor
    probs: Tensor
    exit_site: Tensor
    exit_rule: Tensor
    tier: Tensor
