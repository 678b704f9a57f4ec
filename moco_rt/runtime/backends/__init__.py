"""Backends: what runs a model's batches. One protocol, a file for each backend, and how a model gets its own."""

from moco_rt.runtime.backends.base import Backend
from moco_rt.runtime.backends.choice import BACKENDS, choose_backend
from moco_rt.runtime.backends.whole import WholeBackend

__all__ = ["BACKENDS", "Backend", "WholeBackend", "choose_backend"]
