"""Backend: what runs a model's batches, as a protocol, and what several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import Architecture
from moco_rt.architectures.genuine import Watch
from moco_rt.encoding import EncodedTexts
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint


class Backend(Protocol):
    """Runs batches of one model.

    Attributes:
        name: what the model's `backend` says.
        architecture: the model's sub-layers, where exits may stand; None: there are none.
        max_seqlen: how many tokens a row may have.
    """

    name: str
    architecture: Architecture | None
    max_seqlen: int

    @property
    def device(self) -> torch.device:
        """The device its inputs must be on."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        ...

    def is_outdated(self) -> bool:
        """Tell whether the model was changed since in ways that this backend would not honour."""
        ...

    def run(self, exits: Mapping[str, ExitPoint], inputs: ModelInputs) -> Results:
        """Classify a batch of valid inputs with these exits by site."""
        ...

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Classify rows that lie end to end, each with at least one token, with these exits by site."""
        ...

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
        """Classify a batch of valid images with these exits by site."""
        ...


def sees_any_change(watch: Watch | None) -> bool:
    """Tell whether a watch, where there is one, sees a change of whatever kind."""
    return watch is not None and (watch.sees_change() or watch.sees_other_parts())


def evaluate(model: Any, parts: Iterable[torch.nn.Module]) -> None:
    """Put a model in evaluation mode; the caller, who still holds it, may have changed that."""
    if any(part.training for part in parts):
        model.eval()
