"""EarlyExitTextClassificationModel: a Hugging Face classifier whose settled rows leave early."""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from moco_rt import reference, runtime
from moco_rt._C import Encoder
from moco_rt.architectures import architecture_of, check_settles_one_label
from moco_rt.batches import Text
from moco_rt.exits import SiteExits, compile_exits
from moco_rt.policy import Exit, Policy
from moco_rt.prediction import Prediction, predict
from moco_rt.rules import Condition, LinearCondition
from moco_rt.sites import all_sites

_BACKENDS = ("auto", "packed", "reference")

_CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


@dataclass
class EarlyExitOutput(ModelOutput):
    """What the model returns.

    Attributes:
        logits: (B, C). A row that left early has log-probabilities: 1 - the exit's bound for its class, the rest
            shared by the other classes.
        exit_site: (B,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (B,) int64, place in `model.policy.exits`; -1 = ran to the end.
    """

    logits: Tensor | None = None
    exit_site: Tensor | None = None
    exit_rule: Tensor | None = None


class EarlyExitTextClassificationModel(torch.nn.Module):
    """A fine-tuned classifier with exits. Without rules it answers exactly as the model it was made from.

    Args:
        model: a Hugging Face `...ForSequenceClassification`; it is put in evaluation mode.
        backend: `packed` runs on the extension's own kernels, on a CPU, in float32 or bfloat16, from a packed copy of
            the weights as they are now; `reference` drives the model's own modules; `auto` takes `packed` where
            it covers the model, and says in the log why where it does not.
        dtype: computes in this dtype, on a converted copy where the model has another; None: as it is. A rule's bound
            speaks of the dtype it was found in: capture from `.model`, the copy, to find rules for it.

    Raises:
        TypeError: model is not a sequence classifier.
        ValueError: its family is not covered, or not by the backend that was asked for, or the backend is unknown.

    Example:
        >>> model = EarlyExitTextClassificationModel(hf_model)
        >>> model.add_rule(rule.condition, rule.metadata["class"], "encoder", 0, "attention")
        >>> model(**tokenizer("This is a test", return_tensors="pt")).logits
    """

    def __init__(self, model: Any, *, backend: str = "auto", dtype: torch.dtype | None = None):
        super().__init__()
        if backend not in _BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(_BACKENDS)} (got {backend!r})")
        architecture = architecture_of(model)
        if dtype is not None and dtype != model.dtype:
            model = copy.deepcopy(model).to(dtype)
            architecture = architecture_of(model)
        self.model = model.eval()
        self._parts = tuple(model.modules())  # walking the tree anew for every batch is a tenth of a small one's time
        self.config = model.config
        self._architecture = architecture
        self._asked_for = backend
        self._encoder = self._pack()
        self.sites = all_sites(architecture.num_layers)
        self.max_seqlen = architecture.max_seqlen
        self.policy = Policy(self.sites, architecture.num_classes, architecture.hidden_size)
        self._compiled: tuple[Any, dict[str, SiteExits]] | None = None  # the policy's exits, and what they were then

    def train(self, mode: bool = True) -> EarlyExitTextClassificationModel:  # noqa: ARG002
        """Stays in evaluation mode: it answers, it is not trained."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> EarlyExitTextClassificationModel:
        """What `.to`, `.half` and their like call: where weights have moved, they are packed anew."""
        packed, places = self._encoder, self._places()
        self._encoder = None  # of other weights, should what follows fail
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._encoder = packed if self._places() == places else self._pack()
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As torch's; the weights are packed anew."""
        keys = super().load_state_dict(*args, **kwargs)
        self._encoder = self._pack()
        return keys

    def _places(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.model.parameters()]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles compile the policy and pack the weights for themselves."""
        return {**self.__dict__, "_compiled": None, "_encoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._encoder = self._pack()

    def _pack(self) -> Encoder | None:
        """The model on the packed kernels; None: on its own modules."""
        if self._asked_for == "reference":
            return None
        try:
            if self._architecture.device != _CPU:
                raise ValueError(f"the packed kernels need a model on the CPU (got {self._architecture.device})")
            return self._architecture.encoder(self.model.dtype)
        except ValueError as reason:
            if self._asked_for == "packed":
                raise
            _log.warning("backend: reference, because %s", reason)
            return None

    @property
    def backend(self) -> str:
        """`packed` or `reference`: what runs."""
        return "reference" if self._encoder is None else "packed"

    @property
    def device(self) -> torch.device:
        """Where the weights are; asking the model itself costs 5 us, the packed ones are always in the same place."""
        return self._architecture.device if self._encoder is None else _CPU

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self.model.dtype if self._encoder is None else self._encoder.dtype
        return dtype

    def can_generate(self) -> bool:
        """False; `transformers.pipeline` asks."""
        return False

    def add_rule(
        self,
        condition: Condition,
        predicted_class: int,
        layer: str,
        encoder_layer: int | None = None,
        module: str | None = None,
        *,
        feature: str | None = None,
        bound: float | None = None,
    ) -> None:
        """Let rows leave at a site; of several rules there, the first added that fires wins.

        Args:
            condition: a `LinearCondition`, which knows its feature and bound, or any callable that is given that
                `feature` of the rows, a float32 tensor (rows, size), and returns a bool mask (rows,).
            predicted_class: the class the rows leave with.
            layer: `"embeddings"`, `"encoder"` with the two arguments that follow, or a whole site name such as
                `"encoder.0.attention"`; the model's own module paths are understood too.
            encoder_layer: the layer's number, from 0.
            module: `"attention"` or `"output"`.
            feature: for a plain callable `cls` (default) or `mean`; a `LinearCondition` has its own.
            bound: the share of wrong exits that you vouch for: rows that leave have probability 1 - bound for their
                class. By default a `LinearCondition`'s own, which holds for the first rule that meets the rows, and
                0.05 for a plain callable, of which nothing is known.

        Raises:
            TypeError: condition is not callable, or the class not an integer.
            ValueError: the model does not choose one label of at least two; site, class, weight, feature or bound do
                not fit it. It keeps the rules it had.
        """
        check_settles_one_label(self.config)
        parts = (layer, encoder_layer, module)
        site = ".".join(str(part) for part in parts if part is not None)
        site = self._architecture.module_paths.get(site, site)
        own_feature, own_bound = "cls", 0.05
        if isinstance(condition, LinearCondition):
            own_feature, own_bound = condition.feature, condition.bound
        feature = own_feature if feature is None else feature
        bound = own_bound if bound is None else bound
        self.policy.add(Exit(site, operator.index(predicted_class), condition, feature, bound))

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> EarlyExitOutput:
        """Classify a padded batch.

        Args:
            input_ids: (B, S) int64 or int32.
            attention_mask: (B, S), integer or bool, 1 on real tokens, padded on the right; None: all are real.
            token_type_ids: (B, S), segments of text pairs; None: all 0.

        Raises:
            TypeError: wrong dtype.
            ValueError: wrong shape or device, no row, a row without a real token, a mask that is not 0 and 1 or
                not right-padded.
            IndexError: a token or its type that the model does not have.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        self._check_inputs(input_ids, attention_mask, token_type_ids)
        inputs = (self._compiled_exits(), input_ids, attention_mask, token_type_ids)
        if self._encoder is None:
            if any(part.training for part in self._parts):  # whoever holds the model that was given may have done that
                self.model.eval()
            results = reference.forward(self._architecture, *inputs)
        else:
            results = runtime.forward(self._encoder, *inputs)
        return EarlyExitOutput(results.logits, results.exit_site, results.exit_rule)

    def predict(self, texts: Sequence[Text], *, tokenizer: Any, max_length: int | None = None) -> Prediction:
        """Label texts: tokenised in the background while others are computed, a progress bar for long work.

        Args:
            texts: N texts, or pairs of texts.
            tokenizer: the model's, from Hugging Face.
            max_length: texts are truncated to so many tokens; None: to what model and tokenizer allow.

        Raises:
            TypeError: texts is a single text.
            ValueError: there are none, max_length leaves no room for a text, or the model does not classify.
        """
        return predict(self, texts, tokenizer, max_length)

    def _compiled_exits(self) -> dict[str, SiteExits]:
        now = (tuple(self.policy.exits), self.device)
        if self._compiled is None or self._compiled[0] != now:  # rules were added, or the model was moved
            self._compiled = (now, compile_exits(self.policy, self.device))
        return self._compiled[1]

    def _check_inputs(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> None:
        for name, tensor in (("input_ids", input_ids), ("token_type_ids", token_type_ids)):
            if tensor is not None and tensor.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"{name} must be int64 or int32 (got {tensor.dtype})")
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise ValueError(
                f"input_ids must have shape (rows, tokens) with at least one of each (got {tuple(input_ids.shape)})"
            )
        if input_ids.shape[1] > self.max_seqlen:
            raise ValueError(f"input_ids must have at most {self.max_seqlen} tokens (got {input_ids.shape[1]})")
        for name, tensor in (
            ("input_ids", input_ids),
            ("attention_mask", attention_mask),
            ("token_type_ids", token_type_ids),
        ):
            if tensor is None:
                continue
            if tensor.shape != input_ids.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(input_ids.shape)} like input_ids (got {tuple(tensor.shape)})"
                )
            if tensor.device != self.device:
                raise ValueError(f"{name} must be on {self.device}, where the model is (got {tensor.device})")
