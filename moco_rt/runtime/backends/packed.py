"""PackedBackend: the extension's own kernels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import PackedBatch, Results
from moco_rt.architectures import Architecture
from moco_rt.architectures.genuine import Watch, WeightPlaces, check_genuine
from moco_rt.encoding import EncodedTexts
from moco_rt.runtime import packed
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.runtime.machine import describe_densities, describe_machine

_CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class PackedBackend:
    """The extension's own kernels, on a copy of the weights as they are when it is made.

    Embeddings and int8 weights are the model's own.

    Raises:
        ValueError: the kernels do not cover the model, its device or its dtype.
    """

    name = "packed"
    device = _CPU

    def __init__(self, model: Any, architecture: Architecture):
        if architecture.device != _CPU:
            raise ValueError(f"the packed kernels need a model on the CPU (got {architecture.device})")
        check_genuine(model)
        self.architecture: Architecture | None = architecture
        self._real_tokens, self._pooled = architecture.real_tokens, architecture.pooled_token
        self.max_seqlen = architecture.max_seqlen
        self._model = model
        # Before the weights are packed: what another thread changes meanwhile is seen, too.
        self._watch = Watch(tuple(model.modules()), model.config)
        self._places = WeightPlaces(model)
        self._encoder = architecture.encoder(model.dtype)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("the packed backend runs on\n%s", describe_machine())
        self._warm_up()
        if _log.isEnabledFor(logging.INFO) and (densities := describe_densities(self._encoder)):
            _log.info("zeros are not multiplied: %s", densities)

    def _warm_up(self) -> None:
        """Run one row: what is laid out when it is first needed is there before the first row comes."""
        assert self.architecture is not None
        if (image_size := self.architecture.image_size) is not None:
            self.run_images({}, torch.zeros(1, *image_size, dtype=torch.float32, device=_CPU))
            return
        self.run({}, ModelInputs(ids := torch.zeros(1, 1, dtype=torch.long, device=_CPU), ids + 1, None))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        return self._encoder.dtype

    def is_outdated(self) -> bool:
        """Tell whether a module got a hook or another method, was replaced or set, or weights were moved or written."""
        if self._places.have_changed() or self._watch.sees_other_parts():
            return True
        if not self._watch.sees_change():
            return False
        try:
            check_genuine(self._model)
        except ValueError:
            return True
        self._watch = Watch(tuple(self._model.modules()), self._model.config)  # what was added changes nothing
        return False

    def run(self, exits: Mapping[str, ExitPoint], inputs: ModelInputs) -> Results:
        """Run `packed.forward`."""
        ids, mask = self._real_tokens(inputs.input_ids, inputs.attention_mask)
        batch = PackedBatch(mask, pooled=self._pooled)
        return packed.forward(self._encoder, exits, batch, ids, inputs.token_type_ids)

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Run `packed.forward` on the rows as they are; where a row may end before its last token, as `run` does."""
        if self._pooled != "first":
            return self.run(exits, ModelInputs.of(rows, _CPU))
        batch = PackedBatch.of_lengths(torch.from_numpy(rows.lengths))
        types = None if rows.types is None else torch.from_numpy(rows.types)
        return packed.forward(self._encoder, exits, batch, torch.from_numpy(rows.ids), types)

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
        """Run `packed.forward_images`."""
        return packed.forward_images(self._encoder, exits, self.max_seqlen, pixel_values)
