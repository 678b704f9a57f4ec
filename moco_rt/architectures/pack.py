"""`pack`: Hugging Face models whose encoder runs on the packed kernels, for tasks that have no exits."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from moco_rt._C import PackedBatch, TransformerClassifier
from moco_rt.architectures.base import Architecture
from moco_rt.architectures.genuine import Watch, WeightPlaces, check_genuine
from moco_rt.architectures.pipelines import not_traced
from moco_rt.architectures.registry import adapter_of_base

_log = logging.getLogger(__name__)


def pack(model: Any) -> Any:
    """Return a model of the same class whose encoder runs on the packed kernels: without exits or a certificate.

    It answers as the model does, to rounding, with zeros in place of the states of padding, and shares its modules
    with it; the kernels have a copy of the weights, and a new one after these were trained or loaded. Calls
    that the kernels do not cover (hidden states or attentions asked for, there or by the configuration, embeddings in
    place of ids, positions of one's own, masks or types of another shape than the ids, rows not padded on the right,
    masks of other values than 0 and 1, training mode of any part of the encoder) go to the model's own encoder. The
    kernels have no gradients: `backward` through them is refused, where weights of the encoder require any.

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
        self._base = base
        self._pack()
        self._is_covered = True

    def _pack(self) -> None:
        """Pack the weights as they are now.

        Raises:
            ValueError: the kernels do not cover the model.
        """
        base = self._base
        # By their mode all go: of the base model itself the packed one is a copy, with a mode of its own.
        self._shared = tuple(base.modules())[1:]
        # Before the weights are packed: what another thread changes meanwhile is seen, too.
        self._watch, self._places = Watch((base, *self._shared), base.config), WeightPlaces(base)
        self._weights, self._trained_since = tuple(base.parameters()), False
        adapter, around = _in_its_place(base)
        check_genuine(around)
        architecture = adapter(around)
        if architecture.pooled_token != "first":
            raise ValueError(f"model must be an encoder (got {type(base).__name__})")
        if base.device.type != "cpu":
            raise ValueError(f"the packed kernels need a model on the CPU (got {base.device})")
        self._encoder: TransformerClassifier = architecture.encoder(base.dtype, classifier=False)
        self._pool = architecture.pool

    @not_traced
    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """Return the hidden states (rows, S, D), pooled where the model pools, as the base model does."""
        replaced = self._watch.sees_other_parts()
        parts = tuple(self._base.modules())[1:] if replaced else self._shared
        in_training = any(part.training for part in parts)
        self._trained_since |= in_training
        by_itself = in_training or self._asks_for_more(others)
        plain = input_ids is not None and _is_plain(input_ids, attention_mask, token_type_ids)
        if input_ids is None or by_itself or not plain or not self._covers_now(replaced):
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self._base(input_ids, attention_mask=attention_mask, **types, **others)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self._without_gradients(self._hidden(input_ids, attention_mask, token_type_ids))
        output = self._output(hidden)
        as_tuple = self._settings(others, "return_dict")["return_dict"] is False
        return output.to_tuple() if as_tuple else output

    def _covers_now(self, replaced: bool) -> bool:
        """Pack anew what was changed since; False where the kernels do not cover the model any more."""
        if replaced or self._trained_since or self._places.have_changed() or self._watch.sees_change():
            self._try_to_pack()
        return self._is_covered

    def _try_to_pack(self) -> None:
        try:
            self._pack()
            self._is_covered = True
        except ValueError as reason:
            _log.info("the model's own encoder runs from now on: %s", reason)
            self._is_covered = False

    @classmethod
    def again(cls, base: Any) -> _PackedForward:
        """Make that of a copy, of a model which the kernels may not cover any more."""
        forward = cls.__new__(cls)
        forward._base = base
        forward._try_to_pack()
        return forward

    def _asks_for_more(self, others: Mapping[str, Any]) -> bool:
        """Tell whether a call, or the configuration where the call does not say, asks for more than the last states."""
        asked = self._settings(others, "output_attentions", "output_hidden_states")
        return any(value is not None and value is not False for name, value in asked.items() if name != "return_dict")

    def _settings(self, others: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Return the arguments of a call that are not None, and of these names what the configuration says else."""
        given = {name: value for name, value in others.items() if value is not None}
        return {name: getattr(self._base.config, name, None) for name in names} | given

    def __reduce__(self) -> Any:
        """Copies and pickles pack the weights anew."""
        return _PackedForward.again, (self._base,)

    def _output(self, hidden: Tensor) -> Any:
        if not hasattr(self._base, "pooler"):
            return BaseModelOutput(last_hidden_state=hidden)
        pooled = None if self._base.pooler is None else self._pool(hidden)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)

    def _without_gradients(self, hidden: Tensor) -> Tensor:
        """Return hidden states that refuse `backward`, where that would have gone on to weights of the encoder."""
        if not torch.is_grad_enabled():
            return hidden
        trained = next((weight for weight in self._weights if weight.requires_grad), None)
        return hidden if trained is None else _WithoutGradients.apply(hidden, trained)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _hidden(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Hidden states (rows, S, D), zeros in the place of padding."""
        batch = PackedBatch(attention_mask)
        batch.take_ids(input_ids, token_type_ids)
        self._encoder.embed(batch)
        for layer in range(self._encoder.num_layers):
            self._encoder.attention(layer, batch)
            self._encoder.feed_forward(layer, batch)
        self._encoder.finish(batch)
        return torch.nn.functional.pad(batch.pad(), (0, 0, 0, input_ids.shape[1] - batch.max_seqlen))


class _WithoutGradients(torch.autograd.Function):
    """Hands hidden states on as they are, and refuses gradients: those of the encoder would be left out, silently."""

    @staticmethod
    def forward(_: Any, hidden: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG004
        """Return the hidden states, which require gradients because the weight does."""
        return hidden

    @staticmethod
    def backward(_: Any, *gradients: Any) -> Any:  # noqa: ARG004
        """Refuse the gradients."""
        raise RuntimeError(
            "a packed encoder must be in training mode, or frozen by requires_grad_(False), where gradients are asked "
            "for (got evaluation mode)"
        )


def _is_plain(ids: Tensor, mask: Tensor | None, types: Tensor | None) -> bool:
    """Tell whether a mask says by 1 and 0 of every row that it begins with its real tokens, and shapes are the ids'."""
    if ids.dim() != 2 or any(each is not None and each.shape != ids.shape for each in (mask, types)):
        return False
    if mask is None:
        return True
    if mask.is_floating_point():
        return False
    falls = not bool((mask[:, 1:] > mask[:, :-1]).any())
    return falls and bool((mask[:, 0] == 1).all()) and bool((mask[:, -1] >= 0).all())


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


def _in_its_place(base: Any) -> tuple[Callable[[Any], Architecture], Any]:
    """Return what drives the classifiers on a base model, and that model held as one holds it, pooler or no pooler.

    Raises:
        ValueError: its family is not covered.
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
    return adapter, around
