"""A classifier run by its own forward, whatever it does: for models whose parts cannot be driven one by one."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from moco_rt.architectures.registry import check_classifier
from moco_rt.storage.reasons import named_reason

#: What configurations call the number of positions.
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
#: Longer inputs are refused where a model says nothing of positions.
_LONGEST = 1 << 20
#: Errors of a forward that does not take what it is given.
_REFUSALS = (AttributeError, IndexError, TypeError)


class OwnForward:
    """A model of any family, as `transformers` calls it; a row is answered as it is alone, whatever its batch.

    Raises:
        TypeError: model is not a Hugging Face classifier of texts or images.
    """

    def __init__(self, model: Any):
        check_classifier(model)
        self._model = model
        self.num_classes: int = model.config.num_labels
        self.max_seqlen = _max_seqlen(model)
        # Padding changes what a model answers that looks for a row's last token by the id of padding, or that always
        # reads the last place, or whose parts mix tokens without a mask.
        self._pad_id: int | None = getattr(model.config, "pad_token_id", None)
        self._reads_padding = getattr(model.config, "summary_type", None) == "last"
        self._tried_width = 0  # up to which padding was seen to change nothing
        # Of BigBird: the outer ones hand on what they are set to only where they were set to something else before.
        self._block_sparse = [part for part in model.modules() if hasattr(part, "set_attention_type")]

    @property
    def device(self) -> torch.device:
        """The device that inputs must be on."""
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def logits(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Logits (rows, C) of padded inputs (rows, S).

        Raises:
            IndexError: a token or its type that the model does not have.
            ValueError: the model's own forward fails, or returns no such logits.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask.long()}
        if token_type_ids is not None and self._takes("token_type_ids"):
            inputs["token_type_ids"] = token_type_ids
        lengths = attention_mask.long().sum(dim=1)
        if self._pad_id is None:  # without which several rows are refused
            groups = list(torch.arange(len(lengths), device=lengths.device).split(1))
        elif bool((lengths == input_ids.shape[1]).all()):
            return self._called(inputs)
        elif self._answers_padded_rows(inputs, lengths):
            inputs["input_ids"] = input_ids.masked_fill(attention_mask == 0, self._pad_id)
            return self._called(inputs)
        else:
            groups = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
        cut = [{name: tensor[rows, : int(lengths[rows[0]])] for name, tensor in inputs.items()} for rows in groups]
        return torch.cat([self._called(rows) for rows in cut])[torch.cat(groups).argsort()]

    def logits_of_images(self, pixel_values: Tensor) -> Tensor:
        """Logits (rows, C) of images (rows, channels, height, width).

        Raises:
            ValueError: the model's own forward fails, or returns no such logits.
        """
        refusals = (*_REFUSALS, RuntimeError, ValueError)  # where it has no place for images of this size
        return self._called({"pixel_values": pixel_values.to(self._model.dtype)}, refusals)

    def _answers_padded_rows(self, inputs: dict[str, Tensor], lengths: Tensor) -> bool:
        """Tell whether padding changes nothing, as a row of this batch shows alone and padded to twice its width.

        That is tried at the first batch with padding, and again at one that is wider than what was tried.
        """
        width = inputs["input_ids"].shape[1]
        if not self._reads_padding and width > self._tried_width:
            row, wide = int(lengths.argmin()), min(2 * width, self.max_seqlen)
            alone = {name: tensor[row : row + 1, : int(lengths[row])] for name, tensor in inputs.items()}
            fill = {"input_ids": self._pad_id}
            padded = {name: pad(t, (0, wide - t.shape[1]), value=fill.get(name, 0)) for name, t in alone.items()}
            try:
                expected = self._seen(alone)
            except Exception:  # the batch fails, too, and says why
                return True
            try:
                found = self._seen(padded)
                self._reads_padding = not all(map(_are_same, expected, found))
            except Exception:  # models fail in ways of their own
                self._reads_padding = True
            self._tried_width = wide
        return not self._reads_padding

    def _seen(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Return what a row shows: (1, C) logits, and (S, D) hidden states where the model has a part that makes them.

        Logits may be alike whatever is read: of a head that was not trained.
        """
        hidden: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            states = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
            if isinstance(states, Tensor) and states.ndim == 3 and states.shape[:2] == inputs["input_ids"].shape:
                hidden[:] = [states[0]]

        before = [part.attention_type for part in self._block_sparse]
        try:
            return [self._called(inputs, model=_with_hook_on_base(self._model, keep)), *hidden]
        finally:
            for part, kind in zip(self._block_sparse, before, strict=True):
                part.set_attention_type(kind)

    def _takes(self, name: str) -> bool:
        """Tell whether the forward takes an argument; one that takes any may hand it on to those of base classes."""
        forwards = [self._model.forward]
        if any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(forwards[0]).parameters.values()
        ):
            forwards += [vars(kind)["forward"] for kind in type(self._model).__mro__ if "forward" in vars(kind)]
        return any(name in inspect.signature(forward).parameters for forward in forwards)

    def _called(
        self, inputs: dict[str, Tensor], refusals: tuple[type[Exception], ...] = _REFUSALS, model: Any = None
    ) -> Tensor:
        model = self._model if model is None else model
        for part in self._block_sparse:
            _set_attention_type(part, self._model.config, next(iter(inputs.values())).shape[1])
        try:
            output = model(**inputs)
            logits = output[0] if isinstance(output, tuple) else output.logits
        except refusals as error:
            if "out of range in self" in str(error):  # torch's words for a token that an embedding does not have
                raise
            raise ValueError(f"the model's own forward must answer (got {named_reason(error)})") from error
        expected = (len(next(iter(inputs.values()))), self.num_classes)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model's own forward must return logits of shape {expected} (got {got})")
        return logits


def _with_hook_on_base(model: Any, hook: Callable[..., None]) -> Any:
    """Return a model of the same parts, whose base model has a hook more; the one that is given has none more.

    Where other code looks at the model meanwhile, in another thread, it sees no hook. A model without a base model that
    can be replaced is returned as it is.
    """
    base = model._modules.get(model.base_model_prefix)
    if base is None:
        return model
    copied, copied_base = copy.copy(model), copy.copy(base)
    copied._modules = {**model._modules, model.base_model_prefix: copied_base}
    copied_base._forward_hooks = OrderedDict(base._forward_hooks)
    copied_base.register_forward_hook(hook)
    return copied


def _set_attention_type(part: Any, config: Any, width: int) -> None:
    """Set the configuration's attention again, which a part of BigBird's gives up for good at a row that is short."""
    if width > (5 + 2 * config.num_random_blocks) * config.block_size:  # where the configuration's is possible
        part.set_attention_type(config.attention_type)


def padded_on_the_right(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return inputs (rows, S) with the tokens of rows that are padded on the left moved to the left."""
    real = attention_mask != 0
    first = real.int().argmax(dim=1, keepdim=True)
    if not bool(first.any()):
        return input_ids, attention_mask, token_type_ids
    places = (torch.arange(input_ids.shape[1], device=input_ids.device) + first) % input_ids.shape[1]
    types = None if token_type_ids is None else token_type_ids.gather(1, places)
    return input_ids.gather(1, places), attention_mask.gather(1, places), types


def _are_same(expected: Tensor, found: Tensor) -> bool:
    """Tell whether the first vectors of `found` (any, D) are those expected (n, D), to rounding in their dtype."""
    error = (found[: len(expected)] - expected).float().norm(dim=1)
    return bool((error <= torch.finfo(expected.dtype).eps ** 0.5 * expected.float().norm(dim=1)).all())


def _max_seqlen(model: Any) -> int:
    """Return how many tokens a row may have, by configuration and by tables that count positions from padding's."""
    lengths = (getattr(model.config, name, None) for name in _LENGTHS)
    longest: int = next((length for length in lengths if isinstance(length, int) and length > 0), _LONGEST)
    for path, module in model.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            longest = min(longest, module.num_embeddings - before)
    return longest
