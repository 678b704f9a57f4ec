"""WholeBackend: the model's own forward, for models that no other backend runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import PackedBatch, Results
from moco_rt.architectures import Architecture
from moco_rt.architectures.genuine import Watch, WeightPlaces
from moco_rt.architectures.own_forward import OwnForward, padded_on_the_right
from moco_rt.encoding import EncodedTexts
from moco_rt.runtime.backends.base import evaluate, sees_any_change
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint


class WholeBackend:
    """The model's own forward, whatever it is; there are no exits.

    Args:
        model: a Hugging Face classifier.
        reason: why no other backend runs it.
        watch: sees changes after which another backend may run it; None: it was asked for.
    """

    name = "whole"
    architecture: Architecture | None = None

    def __init__(self, model: Any, reason: str = "it was asked for", watch: Watch | None = None):
        self.reason, self._watch = reason, watch
        self._model, self._places = model, WeightPlaces(model)
        self._forward = OwnForward(model)
        self.max_seqlen = self._forward.max_seqlen

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self._forward.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        return self._forward.dtype

    def is_outdated(self) -> bool:
        """Tell whether weights were moved or written, or another backend may run the model by now; all is honoured."""
        return self._places.have_changed() or sees_any_change(self._watch)

    def run(self, exits: Mapping[str, ExitPoint], inputs: ModelInputs) -> Results:  # noqa: ARG002
        """Call the model's own forward: every row runs to the end."""
        evaluate(self._model, self._model.modules())
        inputs = ModelInputs(*padded_on_the_right(*inputs))
        PackedBatch(inputs.attention_mask)  # which refuses masks that are none
        return _of_all_rows(self._forward.logits(*inputs))

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Pad the rows, and call the model's own forward."""
        return self.run(exits, ModelInputs.of(rows, self.device))

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:  # noqa: ARG002
        """Call the model's own forward: every image runs to the end."""
        evaluate(self._model, self._model.modules())
        return _of_all_rows(self._forward.logits_of_images(pixel_values))


def _of_all_rows(logits: Tensor) -> Results:
    """Return the results where every row ran to the end with these logits: (rows, C)."""
    results = Results(*logits.shape, dtype=logits.dtype)
    whole = PackedBatch.of_lengths(torch.ones(len(logits), dtype=torch.long, device="cpu"))
    results.write_last(whole, logits.cpu())
    return results
