"""Other libraries and our models: pipelines and trainers know them, tracers and compilers leave them alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch.nn import Module
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

_Forward = TypeVar("_Forward", bound=Callable[..., Any])


def not_traced(forward: _Forward) -> _Forward:
    """Return a forward that `torch.compile` runs as it is, and that tracing and exporting refuse.

    They would record the answers to one batch: the extension is no operator of torch's, and rows leave by what is
    computed.

    Raises:
        RuntimeError: it is traced or exported.
    """

    @functools.wraps(forward)
    def called(*args: Any, **kwargs: Any) -> Any:
        if torch.jit.is_tracing() or torch.compiler.is_exporting():  # type: ignore[attr-defined, no-untyped-call]
            raise RuntimeError("the model must run in Python (got torch.jit.trace, or torch.export)")
        if torch.compiler.is_dynamo_compiling():
            return torch.compiler.disable(forward)(*args, **kwargs)
        return forward(*args, **kwargs)

    return cast("_Forward", called)


def announce_to_pipelines(key: str, class_name: str, *, images: bool = False) -> None:
    """Add a class to the text classifiers, or to the image classifiers, that transformers knows by name.

    `pipeline("text-classification")` logs an error about any model whose class it does not find in this table, and has
    no public way to add one without a configuration class.

    Args:
        key: the entry's own name.
        class_name: of the model.
        images: it takes images.
    """
    table = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES if images else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    table[key] = class_name


class PipelineModel:
    """The attributes, beside its output, that `transformers` asks a classifier for."""

    input_modalities = "text"

    @property
    def config(self) -> Any:
        """The model's configuration, which tells `transformers.Trainer` what in an output is no prediction."""
        return _for_trainers(vars(self)["config"])

    @config.setter
    def config(self, config: Any) -> None:
        vars(self)["config"] = config

    def can_generate(self) -> bool:
        """Answer that it does not write text."""
        return False


def _for_trainers(config: Any) -> Any:
    """Return a configuration with the same state, changed with it, of a class that names what is no prediction.

    The model's own is left as it is: it is saved, and others hold it.
    """
    known = "exit_site" in getattr(config, "keys_to_ignore_at_inference", ())
    if known or not isinstance(config, PreTrainedConfig):
        return config
    kind: Any = type(config)
    view: Any = object.__new__(_kind_for_trainers(kind))
    object.__setattr__(view, "__dict__", vars(config))
    return view


@functools.cache
def _kind_for_trainers(kind: Any) -> Any:
    """Return a class of configurations like another, whose copies and pickles are of that other one."""
    ignored = [*getattr(kind, "keys_to_ignore_at_inference", ()), "exit_site", "exit_rule", "tier"]
    members = {
        "__init__": kind.__init__,  # else a new one is made
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__eq__": lambda config, other: isinstance(other, kind) and vars(config) == vars(other),
        "__reduce_ex__": lambda config, _: (_with_state, (kind, vars(config))),
        "keys_to_ignore_at_inference": ignored,
    }
    return type(kind.__name__, (kind,), members)


def _with_state(kind: Any, state: dict[str, Any]) -> Any:
    config = object.__new__(kind)
    vars(config).update(state)
    return config


def unwrap(model: Any, tokenizer: Any = None, name: str = "tokenizer") -> tuple[Any, Any]:
    """The Hugging Face model and the tokenizer inside a pipeline, or inside a model with exits.

    Args:
        model: what may hold them as `.model` and `.tokenizer`; anything else is returned as it is.
        tokenizer: taken instead of the one that is found; None: that one, if there is any.
        name: of the attribute; `image_processor` of models that take images.
    """
    while not isinstance(model, PreTrainedModel) and not hasattr(model, "peft_config"):  # adapters are not unwrapped
        inside = getattr(model, "model", None)
        if not isinstance(inside, Module):
            break
        if tokenizer is None:
            tokenizer = getattr(model, name, None)
        model = inside
    return model, tokenizer
