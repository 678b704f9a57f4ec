"""A family's adapter around its base model alone, whatever head stands on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.registry import adapter_of_base


class _Headless(torch.nn.Module):
    """The place of a base model within its classifiers, without a classifier."""

    name: str
    make_base: Callable[[Any], Any]

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.add_module(self.name, self.make_base(config))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = getattr(self, self.name).device
        return device


def headless_architecture_of(base: Any) -> Architecture:
    """The adapter that drives a base model (`BertModel`, say), which it holds as its classifier would.

    Raises:
        ValueError: its family is not covered, or driving its parts would not compute what it computes.
    """
    adapter = adapter_of_base(base)
    kind: Any = type(base)
    pooler = {}
    if "add_pooling_layer" in inspect.signature(kind).parameters:
        pooler = {"add_pooling_layer": getattr(base, "pooler", None) is not None}
    places = {"name": base.base_model_prefix, "make_base": staticmethod(partial(kind, **pooler))}
    holder: Any = type("Headless", (_Headless,), places | {"__module__": __name__})
    with torch.device("meta"):
        around = holder(base.config)
    around.add_module(base.base_model_prefix, base)
    return adapter(around)
