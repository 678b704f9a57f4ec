"""Backends: what runs a model's batches. One protocol, and how a model gets its backend."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import Architecture
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime import packed, reference
from moco_rt.runtime.exit_points import ExitPoint

#: The names a caller may ask for.
BACKENDS = ("auto", "packed", "reference")

_CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Runs batches of one model.

    Attributes:
        name: what `EarlyExitTextClassificationModel.backend` says.
    """

    name: str

    @property
    def device(self) -> torch.device:
        """The device its inputs must be on."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        ...

    def run(
        self,
        exits: Mapping[str, ExitPoint],
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None,
    ) -> Results:
        """Classify a batch of valid inputs, (B, S) each, with these exits by site."""
        ...


class PackedBackend:
    """The extension's own kernels, on a copy of the weights as they are when it is made (in int8 on the model's own).

    Raises:
        ValueError: the kernels do not cover the model, its device or its dtype.
    """

    name = "packed"
    device = _CPU

    def __init__(self, model: Any, architecture: Architecture):
        if architecture.device != _CPU:
            raise ValueError(f"the packed kernels need a model on the CPU (got {architecture.device})")
        self._encoder = architecture.encoder(model.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        return self._encoder.dtype

    def run(
        self,
        exits: Mapping[str, ExitPoint],
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None,
    ) -> Results:
        """See `packed.forward`."""
        return packed.forward(self._encoder, exits, input_ids, attention_mask, token_type_ids)


class ReferenceBackend:
    """The model's own sub-modules, driven one by one: slow, clear, on every device."""

    name = "reference"

    def __init__(self, model: Any, architecture: Architecture):
        self._model = model
        self._architecture = architecture
        self._parts = tuple(model.modules())  # walking the tree anew for every batch is a tenth of a small one's time

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self._architecture.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def run(
        self,
        exits: Mapping[str, ExitPoint],
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None,
    ) -> Results:
        """See `reference.forward`."""
        if any(part.training for part in self._parts):  # whoever holds the model that was given may have done that
            self._model.eval()
        return reference.forward(self._architecture, exits, input_ids, attention_mask, token_type_ids)


def choose_backend(asked_for: str, model: Any, architecture: Architecture) -> Backend:
    """The backend that was asked for; of `auto` the fastest that covers the model, and a log line where it is not packed.

    Raises:
        ValueError: the backend that was asked for does not cover the model.
    """
    if asked_for == "reference":
        return ReferenceBackend(model, architecture)
    try:
        return PackedBackend(model, architecture)
    except ValueError as reason:
        if asked_for == "packed" or is_int8(model):  # whose own modules are far slower than float32's
            raise
        _log.warning("backend: reference, because %s", reason)
        return ReferenceBackend(model, architecture)
