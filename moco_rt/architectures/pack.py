"""`pack`: Hugging Face models whose encoder runs on the packed kernels, for tasks that have no exits."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from moco_rt._C import PackedBatch, TransformerClassifier
from moco_rt.architectures.base import Architecture
from moco_rt.architectures.genuine import WeightPlaces, check_genuine
from moco_rt.architectures.registry import adapter_of_base


def pack(model: Any) -> Any:
    """Return a model of the same class whose encoder runs on the packed kernels: without exits or a certificate.

    It answers as the model does, to rounding, with zeros in place of the states of padding, and shares its modules
    with it; the kernels have a copy of the weights as they are now. Calls that the kernels do not cover (hidden states
    or attentions asked for, embeddings in place of ids, positions of one's own, rows not padded on the right, training
    mode) go to the model's own encoder.

    Args:
        model: `...ForTokenClassification`, `...ForQuestionAnswering`, or what `AutoModel` loads, of a covered family of
            encoders, in float32 or bfloat16 on the CPU.

    Raises:
        TypeError: model is not a Hugging Face model.
        ValueError: the kernels do not cover it.

    Example:
        >>> tagger = pipeline("token-classification", model=moco_rt.pack(model), tokenizer=tokenizer)
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a Hugging Face model (got {type(model).__name__})")
    check_genuine(model)
    base = model.base_model
    packed_base = _shallow_copy(base)
    packed_base.forward = _PackedForward(base)
    if base is model:
        return packed_base
    packed = _shallow_copy(model)
    packed._modules[model.base_model_prefix] = packed_base
    return packed


def _shallow_copy(module: Any) -> Any:
    """Return a module of the same parts, of which some can be replaced."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


class _PackedForward:
    """The forward of a base model.

    Args:
        base: the model, whose own forward takes the calls that the kernels do not.
    """

    def __init__(self, base: Any):
        architecture = _headless_architecture_of(base)
        if architecture.pooled_token != "first":
            raise ValueError(f"model must be an encoder (got {type(base).__name__})")
        if base.device.type != "cpu":
            raise ValueError(f"the packed kernels need a model on the CPU (got {base.device})")
        self._base = base
        self._architecture = architecture
        self._pack_weights()
        self._max_seqlen = architecture.max_seqlen
        self._pool = architecture.pool

    def _pack_weights(self) -> None:
        self._encoder: TransformerClassifier = self._architecture.encoder(self._base.dtype, classifier=False)
        self._places = WeightPlaces(self._base)

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """Return the hidden states (rows, S, D), pooled where the model pools, as the base model does."""
        as_tuple = others.pop("return_dict", None) is False
        more_is_asked = any(other is not None and other is not False for other in others.values())
        if input_ids is None or more_is_asked or self._base.training or not _padded_on_the_right(attention_mask):
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            kind = {"return_dict": False} if as_tuple else {}
            return self._base(input_ids, attention_mask=attention_mask, **types, **others, **kind)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        output = self._output(self._hidden(input_ids, attention_mask, token_type_ids))
        return output.to_tuple() if as_tuple else output

    def __reduce__(self) -> Any:
        """Copies and pickles pack the weights anew."""
        return _PackedForward, (self._base,)

    def _output(self, hidden: Tensor) -> Any:
        if not hasattr(self._base, "pooler"):
            return BaseModelOutput(last_hidden_state=hidden)
        pooled = None if self._base.pooler is None else self._pool(hidden)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)

    @torch.no_grad()
    def _hidden(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Hidden states (rows, S, D), zeros in the place of padding."""
        if self._places.have_changed():
            self._pack_weights()
        batch = PackedBatch(attention_mask)
        batch.take_ids(input_ids, token_type_ids)
        self._encoder.embed(batch)
        for layer in range(self._encoder.num_layers):
            self._encoder.attention(layer, batch)
            self._encoder.feed_forward(layer, batch)
        self._encoder.finish(batch)
        return torch.nn.functional.pad(batch.pad(), (0, 0, 0, input_ids.shape[1] - batch.max_seqlen))


def _padded_on_the_right(mask: Tensor | None) -> bool:
    """Tell whether every row begins with its real tokens."""
    if mask is None:
        return True
    return mask.dim() == 2 and bool(mask[:, 0].all()) and not bool((mask[:, 1:] > mask[:, :-1]).any())


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


def _headless_architecture_of(base: Any) -> Architecture:
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
