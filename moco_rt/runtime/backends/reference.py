"""ReferenceBackend: the model's own sub-modules, driven one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import Architecture, architecture_of
from moco_rt.architectures.genuine import Watch, WeightPlaces
from moco_rt.encoding import EncodedTexts
from moco_rt.runtime import reference
from moco_rt.runtime.backends.base import evaluate, sees_any_change
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint


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
        self._driven, self._model, self._places = architecture, model, WeightPlaces(model)
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
        """Tell whether a module that is passed by got a hook or another method, was replaced or set, or weights moved.

        Those that were written are honoured, too, but what goes with the model must hear of it.
        """
        if self._places.have_changed() or sees_any_change(self._of_all) or self._watch.sees_other_parts():
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
        evaluate(self._model, self._parts)
        return reference.forward(self._driven, exits, *inputs)

    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Pad the rows, and run `reference.forward`."""
        return self.run(exits, ModelInputs.of(rows, self.device))

    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
        """Run `reference.forward_images`."""
        evaluate(self._model, self._parts)
        return reference.forward_images(self._driven, exits, pixel_values)
