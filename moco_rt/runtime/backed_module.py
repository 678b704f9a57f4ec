"""A Hugging Face classifier as a module of ours: it gets a backend, and another one when it moves or is changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import TEXTS, check_classifier, check_label_names
from moco_rt.architectures.conversion import Dtype, dtype_to_run_in, to_dtype
from moco_rt.encoding import EncodedTexts
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.runtime.backends import BACKENDS, Backend, WholeBackend, choose_backend
from moco_rt.runtime.checks import ModelInputs
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.runtime.weights import WeightsBefore


class BackedModule(torch.nn.Module):
    """A classifier that runs on a backend; it stays in evaluation mode.

    Args:
        model: a Hugging Face classifier.
        backend: the name of the backend that is asked for.
        dtype: see `to_dtype`.

    Raises:
        TypeError: model is not a classifier of what this class takes, or dtype is no dtype.
        ValueError: the backend is unknown or does not cover the model, or its classes are not named from 0 on.
    """

    #: The classifiers that the class takes: of `TEXTS`, or of `IMAGES`.
    takes = TEXTS

    def __init__(self, model: Any, backend: str, dtype: Dtype | None):
        super().__init__()
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)} (got {backend!r})")
        check_classifier(model, self.takes)
        check_label_names(model.config)
        self.model = to_dtype(model, dtype).eval()
        self._form_as_given = numeric_form(model if dtype is not None else self.model)
        self.config = self.model.config
        self._asked_for = backend
        self._changing = threading.RLock()  # a backend is not chosen while weights move
        self._backend = choose_backend(backend, self.model)
        self._whole_because = self._backend.reason if isinstance(self._backend, WholeBackend) else None
        self.max_seqlen = self._backend.max_seqlen
        # Called whether this module is loaded, or one around it.
        self.register_load_state_dict_post_hook(_choose_backend_again)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> BackedModule:  # noqa: ARG002
        """Stays in evaluation mode: it answers, it is not trained."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> BackedModule:
        """Run by `.to`, `.half` and their like: where weights have moved, the backend is chosen anew.

        What cannot be done, because there is no such device, the backend that was asked for does not cover it, or exits
        or a certificate were made for another dtype, leaves everything as it was.
        """
        with self._changing:
            before = WeightsBefore(self.model)
            try:
                super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
                if before.have_moved():
                    self._check_form()  # before float16 becomes float32 again, with rounded weights
                    if (dtype := dtype_to_run_in(self.model)) is not None:
                        self.model.to(dtype)
                    self._choose_backend()
            except BaseException:
                before.restore()
                raise
        return self

    def restore_weights(self, before: WeightsBefore) -> None:
        """Run again on the weights that the model had before it moved."""
        before.restore()
        self._choose_backend()

    def _choose_backend(self) -> None:
        """Choose for what the model is now; one that began without exits stays so."""
        self._check_form()
        if self._whole_because is None:
            self._backend = choose_backend(self._asked_for, self.model)
        else:
            self._backend = WholeBackend(self.model, self._whole_because)

    def _check_form(self) -> None:
        """Refuse the model's numeric form where something that goes with the model was made for another; here nothing.

        Raises:
            ValueError: it was.
        """

    def _note_change(self) -> None:
        """Note for what goes with the model that it was changed; here nothing goes with it."""

    def __getstate__(self) -> dict[str, Any]:
        """The state without what copies and pickles make anew: the compiled policy, the backend's weights, the lock."""
        return {**self.__dict__, "_compiled": None, "_backend": None, "_changing": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._changing = threading.RLock()
        self._choose_backend()

    @property
    def backend(self) -> str:
        """`packed`, `reference` or `whole`: what runs."""
        return self._backend.name

    @property
    def device(self) -> torch.device:
        """The device that inputs must be on."""
        return self._backend.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        return self._backend.dtype

    @torch.no_grad()
    def run(
        self,
        exits: Mapping[str, ExitPoint],
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Results:
        """Classify a batch of valid inputs, (B, S) each, with these exits by site; the caller's autocast takes no part.

        Raises:
            ValueError: hooks were set, or methods replaced, that the backend that was asked for cannot honour.
        """
        backend = self._backend_as_it_must_be()
        with _without_autocast(self.device):
            return backend.run(exits, ModelInputs(input_ids, attention_mask, token_type_ids))

    @torch.no_grad()
    def run_packed(self, exits: Mapping[str, ExitPoint], rows: EncodedTexts) -> Results:
        """Classify tokenised texts, each with at least one token, as `run` classifies them padded.

        Raises:
            ValueError: as `run`, and where a text has no token.
        """
        backend = self._backend_as_it_must_be()
        with _without_autocast(self.device):
            return backend.run_packed(exits, rows)

    @torch.no_grad()
    def run_images(self, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
        """Classify a batch of valid images, (B, channels, height, width), as `run` classifies texts.

        Raises:
            ValueError: as `run`, and where the model's own forward does not take the images.
        """
        backend = self._backend_as_it_must_be()
        with _without_autocast(self.device):
            return backend.run_images(exits, pixel_values)

    def _backend_as_it_must_be(self) -> Backend:
        """Return the backend, chosen anew where the model was changed in ways that it would not honour."""
        backend = self._backend
        if not backend.is_outdated():
            return backend
        with self._changing:
            if self._backend.is_outdated():  # another thread may have been here
                self._choose_backend()
                self._note_change()
            return self._backend


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Keep the caller's autocast out; where there is none, which is asked in less time, nothing is entered."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _choose_backend_again(module: BackedModule, _: Any) -> None:
    module._choose_backend()
    module._note_change()
