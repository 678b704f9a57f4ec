"""Choose the backend of a model."""

from __future__ import annotations

import logging
from typing import Any

from moco_rt.architectures import architecture_of
from moco_rt.architectures.genuine import Watch
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime.backends.base import Backend
from moco_rt.runtime.backends.packed import PackedBackend
from moco_rt.runtime.backends.reference import ReferenceBackend
from moco_rt.runtime.backends.whole import WholeBackend

#: The names a caller may ask for.
BACKENDS = ("auto", "packed", "reference", "whole")

_log = logging.getLogger(__name__)


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
