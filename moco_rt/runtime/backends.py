"""Backends: what runs a model's batches. One protocol, and how a model gets its backend."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from moco_rt._C import PackedBatch, Results
from moco_rt.architectures import Architecture, architecture_of
from moco_rt.architectures.genuine import Watch, WeightPlaces, check_genuine
from moco_rt.architectures.own_forward import OwnForward, padded_on_the_right
from moco_rt.encoding import EncodedTexts
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime import packed, reference
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.runtime.machine import describe_densities, describe_machine

#: The names a caller may ask for.
BACKENDS = ("auto", "packed", "reference", "whole")

_CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


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


class ReferenceBackend:
    """The model's own sub-modules, driven one by one: slow, clear, on every device.

    Args:
        model: a Hugging Face classifier.
        architecture: what drives it.
        watch: sees changes after which a faster backend may run it; None: it was asked for.
    """

    name = "reference"

    def __init__(self, model: Any, architecture: Architecture, watch: Watch | None = None):
        self.architecture: Architecture | None = architecture
        self.max_seqlen, self._of_all = architecture.max_seqlen, watch
        self._driven, self._model = architecture, model
        self._parts = tuple(model.modules())  # walking the tree anew for every batch is a tenth of a small one's time
        self._watch = self._new_watch()

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self._driven.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        return self._driven.dtype

    def is_outdated(self) -> bool:
        """Tell whether a module that is passed by got a hook or another method, was replaced or set."""
        if _sees_any_change(self._of_all) or self._watch.sees_other_parts():
            return True
        if not self._watch.sees_change():
            return False
        try:
            self._driven = self.architecture = architecture_of(self._model)
        except ValueError:
            return True
        self._watch = self._new_watch()
        return False

    def _new_watch(self) -> Watch:
        passed_by = [self._model.get_submodule(path) for path in self._driven.passed_by]
        return Watch(passed_by, self._model.config, self._parts)

    def run(self, exits: Mapping[str, ExitPoint], inputs: ModelInputs) -> Results:
        """Run `reference.forward`."""
        _evaluate(self._model, self._parts)
        return reference.forward(self._driven, exits, *inputs)

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Pad the rows, and run `reference.forward`."""
        return self.run(exits, ModelInputs.of(rows, self.device))

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
        """Run `reference.forward_images`."""
        _evaluate(self._model, self._parts)
        return reference.forward_images(self._driven, exits, pixel_values)


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
        self._model = model
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
        """Tell whether the model was changed since it was found that no other backend runs it; all is honoured here."""
        return _sees_any_change(self._watch)

    def run(self, exits: Mapping[str, ExitPoint], inputs: ModelInputs) -> Results:  # noqa: ARG002
        """Call the model's own forward: every row runs to the end."""
        _evaluate(self._model, self._model.modules())
        inputs = ModelInputs(*padded_on_the_right(*inputs))
        PackedBatch(inputs.attention_mask)  # which refuses masks that are none
        return _of_all_rows(self._forward.logits(*inputs))

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Pad the rows, and call the model's own forward."""
        return self.run(exits, ModelInputs.of(rows, self.device))

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:  # noqa: ARG002
        """Call the model's own forward: every image runs to the end."""
        _evaluate(self._model, self._model.modules())
        return _of_all_rows(self._forward.logits_of_images(pixel_values))


def choose_backend(asked_for: str, model: Any) -> Backend:
    """The backend that was asked for; of `auto` the fastest that computes what the model computes.

    A log line says why where that is not `packed`.

    Raises:
        TypeError: model is not a Hugging Face classifier of texts or images.
        ValueError: the backend that was asked for does not cover the model.
    """
    if asked_for == "whole":
        return WholeBackend(model)
    # Before the model is looked at: a hook that keeps a faster backend away may go meanwhile.
    watch = Watch(tuple(model.modules()), model.config) if asked_for == "auto" else None
    try:
        architecture = architecture_of(model)
    except ValueError as reason:
        if asked_for != "auto":
            raise
        _log.warning("backend: whole, without exits, because %s", reason)
        return WholeBackend(model, str(reason), watch)
    if asked_for == "reference":
        return ReferenceBackend(model, architecture)
    try:
        return PackedBackend(model, architecture)
    except ValueError as reason:
        if asked_for == "packed" or is_int8(model):  # whose own modules are far slower than float32's
            raise
        _log.warning("backend: reference, because %s", reason)
        return ReferenceBackend(model, architecture, watch)


def _sees_any_change(watch: Watch | None) -> bool:
    return watch is not None and (watch.sees_change() or watch.sees_other_parts())


def _of_all_rows(logits: Tensor) -> Results:
    """Return the results where every row ran to the end with these logits: (rows, C)."""
    results = Results(*logits.shape, dtype=logits.dtype)
    results.write_last(PackedBatch.of_lengths(torch.ones(len(logits), dtype=torch.long, device=_CPU)), logits.cpu())
    return results


def _evaluate(model: Any, parts: Iterable[torch.nn.Module]) -> None:
    """Put a model in evaluation mode; the caller, who still holds it, may have changed that."""
    if any(part.training for part in parts):
        model.eval()
