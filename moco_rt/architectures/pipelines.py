"""Other libraries and our models: pipelines know them, tracers and compilers leave them alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch.nn import Module
from transformers import PreTrainedModel
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

    def can_generate(self) -> bool:
        """Answer that it does not write text."""
        return False


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
