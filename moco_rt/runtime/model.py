"""EarlyExitTextClassificationModel: a Hugging Face classifier whose settled rows leave early."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import architecture_of, check_single_label, find_tokenizer, load_model
from moco_rt.architectures.conversion import Dtype, describe, to_dtype
from moco_rt.architectures.pipelines import PipelineModel, announce_to_pipelines
from moco_rt.architectures.sites import all_sites
from moco_rt.inputs.texts import Texts
from moco_rt.inputs.tokenizer_identity import save_tokenizer
from moco_rt.policies.conditions import Condition, LinearCondition, OffRamp
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.fingerprints import check_made_for, loading_identity, model_identity
from moco_rt.policies.monitor import Alarm, Monitor, watch
from moco_rt.policies.policy import Exit, Policy
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime import checkpoints
from moco_rt.runtime.backends import BACKENDS, choose_backend
from moco_rt.runtime.checks import check_inputs
from moco_rt.runtime.exit_points import CompiledExitPoint, ExitPoint, compile_exits
from moco_rt.runtime.outputs import EarlyExitOutput, Prediction
from moco_rt.runtime.prediction import predict

announce_to_pipelines("moco_rt", "EarlyExitTextClassificationModel")


class EarlyExitTextClassificationModel(PipelineModel, torch.nn.Module):
    """A fine-tuned classifier with exits. Without rules it answers exactly as the model it was made from.

    Args:
        model: a Hugging Face `...ForSequenceClassification`; it is put in evaluation mode.
        backend: `packed` runs on the extension's own kernels, on a CPU: in float32 and bfloat16 from a packed copy of
            the weights as they are now, in int8 from the model's own; `reference` drives the model's own modules;
            `auto` takes `packed` where it covers the model, and says in the log why where it does not.
        dtype: computes in this dtype, on a to_dtype copy where the model has another; `"int8"`: see `int8_copy`;
            None: as it is. A rule's bound speaks of the dtype it was found in: capture from `.model` to find rules.

    Attributes:
        tokenizer: the model's, for `predict` and `save_pretrained`; `accelerate` and `from_pretrained` set it.

    Raises:
        TypeError: model is not a sequence classifier.
        ValueError: its family is not covered, or not by the backend that was asked for, or the backend is unknown.

    Example:
        >>> model = EarlyExitTextClassificationModel(hf_model)
        >>> model(**tokenizer("This is a test", return_tensors="pt")).logits
    """

    def __init__(self, model: Any, *, backend: str = "auto", dtype: Dtype | None = None):
        super().__init__()
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)} (got {backend!r})")
        architecture = architecture_of(model)
        if (other := to_dtype(model, dtype)) is not model:
            model, architecture = other, architecture_of(other)
        self.model = model.eval()
        self.config = model.config
        self._architecture = architecture
        self._asked_for = backend
        self._backend = choose_backend(backend, model, architecture)
        self.sites = all_sites(architecture.num_layers)
        self.max_seqlen = architecture.max_seqlen
        self.policy = Policy(self.sites, architecture.num_classes, architecture.hidden_size)
        self.tokenizer: Any = None
        self.search_report: SearchReport | None = None  # of the search for its policy
        self._monitor: Monitor | None = None
        #: The compiled exits, and of what state of the policy.
        self._compiled: tuple[Any, dict[str, CompiledExitPoint]] | None = None
        # Called whether this module is loaded, or one around it.
        self.register_load_state_dict_post_hook(_choose_backend_again)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> EarlyExitTextClassificationModel:  # noqa: ARG002
        """Stays in evaluation mode: it answers, it is not trained."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> EarlyExitTextClassificationModel:
        """Run by `.to`, `.half` and their like: where weights have moved, the backend is chosen anew."""
        places = self._places()
        try:
            super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            if self._places() != places:
                self._choose_backend()
        return self

    def _places(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.model.parameters()]

    def _choose_backend(self) -> None:
        self._backend = choose_backend(self._asked_for, self.model, self._architecture)

    def __getstate__(self) -> dict[str, Any]:
        """The state without what copies and pickles make anew: the compiled policy and the backend's weights."""
        return {**self.__dict__, "_compiled": None, "_backend": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._choose_backend()

    @property
    def backend(self) -> str:
        """`packed` or `reference`: what runs."""
        return self._backend.name

    @property
    def device(self) -> torch.device:
        """The device that inputs must be on."""
        return self._backend.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        return self._backend.dtype

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
        check_single_label(self.config)
        parts = (layer, encoder_layer, module)
        site = ".".join(str(part) for part in parts if part is not None)
        site = self._architecture.module_paths.get(site, site)
        own_feature, own_bound = "cls", 0.05
        if isinstance(condition, LinearCondition):
            own_feature, own_bound = condition.feature, condition.bound
        feature = own_feature if feature is None else feature
        bound = own_bound if bound is None else bound
        self.policy.add(Exit(site, operator.index(predicted_class), condition, feature, bound))

    def add_off_ramp(self, off_ramp: OffRamp, site: str) -> None:
        """Let rows leave at a site with the class that an off-ramp predicts where it is sure enough.

        Raises:
            ValueError: the model does not choose one label of at least two; site, classes or size do not fit it.
        """
        check_single_label(self.config)
        self.policy.add(Exit.of(off_ramp, self._architecture.module_paths.get(site, site)))

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
        check_inputs(input_ids, attention_mask, token_type_ids, self.max_seqlen, self.device)
        results = self.run(self._compiled_exits(), input_ids, attention_mask, token_type_ids)
        if self._monitor is not None:
            watch(self._monitor, results, partial(self.run, {}), (input_ids, attention_mask, token_type_ids))
        return EarlyExitOutput(results.logits, results.exit_site, results.exit_rule)

    @torch.no_grad()
    def run(
        self,
        exits: Mapping[str, ExitPoint],
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Results:
        """Whatever exits are given, on inputs that are as they must be."""
        return self._backend.run(exits, input_ids, attention_mask, token_type_ids)

    def predict(
        self,
        texts: Texts,
        *,
        tokenizer: Any = None,
        max_length: int | None = None,
        columns: str | Sequence[str] | None = None,
    ) -> Prediction:
        """Label texts: tokenised in the background while others are computed, a progress bar for long work.

        Args:
            texts: N texts, pairs, or rows with named columns, in whatever holds them, see `list_texts`. What has a
                length is checked before anything is computed.
            tokenizer: the model's, from Hugging Face; None: the one that it carries.
            max_length: texts are truncated to so many tokens; None: to what policy, model and tokenizer allow.
            columns: names the column of the text, or the two of a pair; None: `text`, with `text2` or `text_pair`.

        Raises:
            TypeError: texts is a single text, or holds something else.
            ValueError: there are none, one is not valid Unicode, max_length leaves no room for a text, or there is no
                tokenizer, or not the policy's.
            Exception: whatever reading the texts raises. What was finished before an error is its `prediction`.
        """
        return predict(self, texts, tokenizer, max_length, columns)

    def report(self) -> None:
        """Print what the policy promises, by exit and class, and which layers are in int8."""
        if is_int8(self.model):
            print(describe(self.model))
        print("no certificate" if self.policy.certificate is None else self.policy.certificate.table())

    def monitor(self, rate: float = 0.01, on_alarm: Callable[[Alarm], None] | None = None, *, seed: int = 0) -> Monitor:
        """From now on, run a random share of the rows that left through the full model too, and close exits that err.

        For what it takes see `Monitor`, which it returns: `processes` hold the evidence by exit; saved with the model.
        """
        self._monitor = Monitor(self.policy, rate, on_alarm, seed=seed)
        return self._monitor

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model, tokenizer, policy and what a monitor has seen, for `from_pretrained`.

        Raises:
            ValueError: a rule is a plain callable, which has no form on disk, or the policy is of other weights.
        """
        check_made_for(self.policy.made_for, model_identity(self.model), "the policy")
        self.policy.made_for |= model_identity(self.model)
        checkpoints.save(directory, self.policy, self._monitor, self.search_report)
        self.model.save_pretrained(directory)
        if self.tokenizer is not None:
            save_tokenizer(self.tokenizer, directory)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, backend: str = "auto", dtype: Dtype | None = None
    ) -> EarlyExitTextClassificationModel:
        """A model with its policy and its tokenizer, from a directory or by its name on the Hugging Face hub.

        Args:
            name: where `save_pretrained` wrote, or any classifier, which then has no exits.
            backend: see the class.
            dtype: see the class; a policy is of one dtype.

        Raises:
            ValueError: the policy is not of this model, or not of this dtype.
        """
        model = cls(load_model(str(name)), backend=backend, dtype=dtype)
        model.load_policy(name)
        model.tokenizer = find_tokenizer(name)
        return model

    def load_policy(self, name: str | Path) -> None:
        """Take a policy from a directory or by a name on the hub, if there is one; refuses one of another model."""
        found = checkpoints.load(name, self.policy.without_exits(loading_identity(self.model)))
        self.policy, self._monitor = found or (self.policy, self._monitor)

    def _compiled_exits(self) -> dict[str, CompiledExitPoint]:
        now = (tuple(self.policy.exits), frozenset(self.policy.closed), self.device)
        if self._compiled is None or self._compiled[0] != now:  # rules were added, or the model was moved
            self._compiled = (now, compile_exits(self.policy, self.device))
        return self._compiled[1]


def _choose_backend_again(model: EarlyExitTextClassificationModel, _: Any) -> None:
    model._choose_backend()
