"""Cascade: small models first, large ones for what they leave open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moco_rt.architectures.conversion import describe
from moco_rt.architectures.pipelines import PipelineModel, announce_to_pipelines, not_traced
from moco_rt.cascades import cascade_files
from moco_rt.cascades.comparison import CascadeComparison, answer_parts
from moco_rt.cascades.monitor import CascadeMonitor
from moco_rt.cascades.padded import answer_padded
from moco_rt.cascades.prediction import predict_parts, row_names
from moco_rt.cascades.promised import WithPromise
from moco_rt.cascades.queues import Finished, TierQueues
from moco_rt.cascades.streaming import stream_answers
from moco_rt.cascades.tier import Tier, TierLike, align_classes, read_thresholds
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.these_rows import RowsWish
from moco_rt.inputs.texts import Texts, iter_texts, list_texts
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.monitor import Alarm
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime.classifiers.certified import predict_certified
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import CascadeOutput, Prediction
from moco_rt.runtime.prediction import join_parts
from moco_rt.runtime.weights import WeightsBefore

#: Rows of a stream that are worth a run of a tier.
_FULL = 64

announce_to_pipelines("moco_rt_cascade", "Cascade")


class Cascade(WithPromise, PipelineModel, torch.nn.Module):
    """Classifiers one after the other: a row is answered by the first that is sure enough, at the latest by the last.

    A tier is sure of a row that leaves by one of its own exits, or whose highest probability, at the tier's
    temperature, exceeds the threshold for its class. `accelerate` finds thresholds, temperatures and exits with a
    certificate; given by hand they promise nothing. (Two tiers with one threshold: TangoBERT, arXiv:2204.06271.)

    Args:
        tiers: each a pair (model, tokenizer), the model a Hugging Face classifier or an
            `EarlyExitTextClassificationModel` with whatever dtype, backend and exits, or a function from a list of
            texts to logits (n, C), such as `pipeline.predict_log_proba` of scikit-learn (not probabilities). The last,
            whose labels count, is a pair; the others have the same classes by name (`id2label`), functions have them
            in the last one's order. A function's logits for a text must not depend on the other texts of the call.
        thresholds: for each tier but the last a probability, or one for each class in the last tier's order.
        max_length: texts are truncated to so many tokens; None: to what policies, models and tokenizers allow.

    Attributes:
        tiers: the tiers, see `Tier`.
        certificate: the promise about all of them together, see `is_certified`; None: nothing is promised.
        search_report: of the search for the certificate, for the page of `moco-rt report`; None: there was none.
        watched_by: the monitor that `monitor` has set; None: nothing watches it.
        config: the last tier's.

    Raises:
        TypeError: a tier is neither a pair nor a function, or a model is not a sequence classifier.
        ValueError: there is no tier, classes are not the same, the last is a function, thresholds are not as many as
            tiers but the last, or a model is refused, see `EarlyExitTextClassificationModel`.

    Example:
        >>> cascade = Cascade([(small, small_tokenizer), (large, large_tokenizer)], thresholds=[0.95])
        >>> cascade.predict(texts).labels
    """

    def __init__(
        self, tiers: Sequence[TierLike], *, thresholds: Sequence[float | Sequence[float]], max_length: int | None = None
    ):
        super().__init__()
        aligned = align_classes([Tier.of(tier, max_length) for tier in tiers])
        levels = read_thresholds(thresholds, len(aligned) - 1, len(aligned[-1].class_names or ()))
        self._set([*(replace(t, thresholds=level) for t, level in zip(aligned, levels, strict=False)), aligned[-1]])

    def _set(self, tiers: list[Tier], certificate: Certificate | None = None) -> None:
        self.tiers = align_classes(tiers)
        self.watched_by: CascadeMonitor | None = None
        self.certificate = certificate
        for tier in tiers:
            if certificate is not None and tier.tokenizer is not None:
                tier.model.certified_elsewhere = True  # it must stay what the certificate speaks of
        self.search_report: SearchReport | None = None
        self.models = torch.nn.ModuleList([tier.model for tier in tiers if isinstance(tier.model, torch.nn.Module)])
        self.config = tiers[-1].model.config

    @classmethod
    def of(cls, tiers: list[Tier], certificate: Certificate | None) -> Cascade:
        """Build a cascade from tiers that have thresholds, and the certificate of all of them together."""
        cascade = cls.__new__(cls)
        torch.nn.Module.__init__(cascade)
        cascade._set(tiers, certificate)
        return cascade

    @property
    def device(self) -> torch.device:
        """The device of the last tier."""
        device: torch.device = self.tiers[-1].model.device
        return device

    @property
    def given(self) -> EarlyExitTextClassificationModel:
        """The last tier's model as it was given, without exits, whose answers are promised.

        It cuts texts where the tier does.

        Raises:
            OSError: it runs in another form, was saved, and the folder is not there any more.
            ValueError: what lies there is another model.
        """
        last = self.tiers[-1]
        given: EarlyExitTextClassificationModel = last.model.given.cut_to(last.max_length)
        return given

    def train(self, mode: bool = True) -> Cascade:  # noqa: ARG002
        """Stays in evaluation mode: it answers, it is not trained."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> Cascade:
        """Run by `.to`, `.half` and their like: where a tier refuses, all stay as they were."""
        before = [(tier.model, WeightsBefore(tier.model.model)) for tier in self.tiers if tier.tokenizer is not None]
        try:
            super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        except BaseException:
            for model, weights in before:
                model.restore_weights(weights)
            raise
        return self

    def predict(
        self,
        texts: Texts,
        *,
        on_error: str = "raise",
        columns: str | Sequence[str] | None = None,
        certify: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Prediction:
        """Label texts: rows that go on are pooled into full batches of the next tier.

        Args:
            texts: N texts, pairs of texts, or rows with named columns, in whatever holds them; see the table of what is
                taken in the documentation. What has a length is checked before anything is computed.
            on_error: what becomes of a batch that a tier fails on, or of a text that it cannot encode. `raise`: the
                error names the tier; `skip`: its rows have label, tier and exits -1 and probabilities NaN, the log says
                so, and the others go on.
            columns: names the column that holds the text, or the two that hold a pair; None: `text`, and where there is
                one `text2` or `text_pair`.
            certify: the share of these very texts, inside (0, 1), whose labels are to be those of `given`. Some are
                drawn at random and also run by it, whose answers they keep; they say whether the cascade may answer the
                others, or whether these run in full, too. The `certificate` of the prediction says what holds. None:
                nothing is promised of these texts.
            confidence: with which that must hold, over the draw; with `certify` alone.
            seed: of the draw.

        Returns:
            N predictions in the order of the texts; `tier` is the tier that answered, `exit_site` and `exit_rule` are
            places in that tier's model.

        Raises:
            TierError: a tier failed. Like any error after the first part it has an attribute `prediction` with what was
                finished before; rows that were not have label -1.
            TypeError: texts is a single text, or holds something else.
            ValueError: there are none, a text is not valid Unicode, or a row has none; a share is not inside (0, 1),
                or what fails is to be skipped although all are to be certified.
            Exception: whatever reading the texts raises, after those before it have been answered.
        """
        if certify is None:
            return join_parts(predict_parts(self, texts, on_error, columns))
        wish = RowsWish(certify, confidence, seed)
        if on_error != "raise":
            raise ValueError(f"on_error must be raise where texts are certified (got {on_error!r})")
        listed = list_texts(texts, columns)
        return predict_certified(CascadeComparison(self, wish), len(listed), lambda: listed, answer_parts, wish)

    def stream(
        self,
        texts: Texts,
        *,
        max_wait_ms: float = 20.0,
        on_error: str = "raise",
        columns: str | Sequence[str] | None = None,
    ) -> Iterator[Finished]:
        """Label texts as they come, for callers that wait for each answer.

        A batch is run when it is full, or when one of its texts has waited max_wait_ms, at all tiers together, for
        others to come: an answer takes that and the time of the runs that are ahead of it.

        Args:
            texts: as for `predict`; an iterator may take its time: it is read in a thread of its own.
            max_wait_ms: milliseconds, not negative.
            on_error: see `predict`.
            columns: see `predict`.

        Yields:
            Places among the texts, and what was predicted for these, in the order in which they are done.

        Raises:
            TierError: a tier failed.
            TypeError: texts is a single text, or holds something else.
            ValueError: max_wait_ms is negative.
            Exception: whatever reading the texts raises, after those before it have been answered.
        """
        taken = iter_texts(texts, columns, allow_surrogates=on_error == "skip")
        if not max_wait_ms >= 0:
            raise ValueError(f"max_wait_ms must not be negative (got {max_wait_ms})")
        full_at = [_FULL] * len(self.tiers)
        pools = TierQueues(self.tiers, full_at, self.config.num_labels, on_error, row_names(self), self.watched_by)
        return stream_answers(pools, taken, min(max_wait_ms / 1e3, threading.TIMEOUT_MAX))

    @not_traced
    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> CascadeOutput:
        """Classify a padded batch, where all tiers take the tokens of one tokenizer: so `transformers.pipeline` works.

        For many texts `predict` is faster: it pools rows across batches.

        Args:
            input_ids: (B, S) int64 or int32.
            attention_mask: (B, S), 1 on real tokens, padded as all tiers take it, see
                `EarlyExitTextClassificationModel.forward`; None: all are real.
            token_type_ids: (B, S), segments of text pairs; None: all 0.

        Raises:
            ValueError: tiers have several tokenizers, or rows more tokens than their `max_length`; and as
                `EarlyExitTextClassificationModel.forward`.
        """
        return answer_padded(self, input_ids, attention_mask, token_type_ids)

    def monitor(
        self,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int | None = None,
    ) -> CascadeMonitor:
        """From now on, run a random share of the rows answered early through the last tier too; close what errs.

        For what it takes see `CascadeMonitor`, which it returns: `processes` hold the evidence; saved with the cascade.
        It goes on from what a monitor before it, such as one that was loaded, has seen.
        """
        before = self.watched_by
        known = self.is_certified
        self.watched_by = CascadeMonitor(
            self.tiers, self.certificate, rate, on_alarm, delta=delta, seed=seed, is_certified=known
        )
        if before is not None:
            self.watched_by.go_on_from(before)
        return self.watched_by

    def report(self) -> str:
        """Return the certificate as a table, with the share of rows that each tier answers and its layers in int8."""
        lines = [
            f"tier {number}, {describe(tier.model.model)}"
            for number, tier in enumerate(self.tiers)
            if tier.tokenizer is not None and is_int8(tier.model.model)
        ]
        lines.append(self.promised())
        if self.search_report is not None and self.search_report.remarks:
            lines.append(self.search_report.remarks)
        return "\n".join(lines)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write all tiers with their tokenizers, what a monitor has seen and the report, for `from_pretrained`.

        Raises:
            ValueError: a tier is a function, or a rule of one a plain callable: they have no form on disk.
        """
        cascade_files.save(
            directory, self.tiers, self.certificate, self.watched_by, self.search_report, lambda: self.is_certified
        )

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Cascade:
        """Read a cascade that `save_pretrained` wrote.

        Raises:
            ValueError: the directory holds none, or one of another version.
        """
        tiers, certificate, certified = cascade_files.load(directory)
        cascade = cls.of(tiers, certificate)
        cascade._certified = cascade._certified if certified else None
        cascade.search_report = cascade_files.load_report(directory)
        cascade.watched_by = cascade_files.load_monitor(directory, tiers, certificate, certified)
        return cascade
