"""The model of a server: texts, pairs and queries with candidates to scores, with or without a shadow."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.monitor import CascadeMonitor
from moco_rt.inputs.texts import TextInput
from moco_rt.policies.monitor import Monitor
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.ranking.candidates import Candidates
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.runtime.outputs import Prediction
from moco_rt.runtime.prediction import longest_of
from moco_rt.serving.label_rows import plain
from moco_rt.serving.loading import Answering, answer_at_once, answer_in_full

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """The answer about a text.

    Attributes:
        values: probabilities of each class; of a model that gives numbers these numbers.
        logit: of a model with one label; None: it has more.
        exit: the site where its row left, or would have left without a shadow; None: it ran to the end.
        step: of the policy that it met; None: there is no path.
    """

    values: list[float]
    logit: float | None
    exit: str | None
    step: int | None


class Served:
    """A model behind a server; one thread asks it.

    Args:
        model: as `load_answering` returns it.
        max_length: in tokens; None: what policy, model and tokenizer allow.
        shadow: a file to which a line is added for each text, of what the policy would have answered; answers are then
            the full model's. None: the policy answers.

    Attributes:
        disagreed: rows of which a shadow would have given another label.

    Raises:
        OSError: the shadow's file cannot be written.
        ValueError: max_length leaves no room for a text, or there is a shadow where there is nothing to compare.
    """

    def __init__(self, model: Answering, max_length: int | None = None, shadow: Path | None = None):
        self.model = model
        self.disagreed = 0
        self._max_length = max_length
        self._answer = answer_at_once(model, max_length)
        self._full: Callable[[Sequence[TextInput]], Prediction] | None = None
        self._record: BinaryIO | None = None
        if shadow is not None:
            kind = model.config.problem_type
            if model.config.num_labels == 1 or kind not in (None, "single_label_classification"):
                raise ValueError(f"shadow needs a model that chooses one label of several (got {kind or 'one label'})")
            self._full = answer_in_full(model, max_length)
            self._record = shadow.open("ab", buffering=0)

    @property
    def labels(self) -> list[str]:
        """Names of the C classes by their number."""
        return [str(self.model.config.id2label[number]) for number in range(self.model.config.num_labels)]

    @property
    def step(self) -> int | None:
        """The policy's place on its certified path; None: it has none."""
        return None if isinstance(self.model, Cascade) else self.model.policy.step

    @property
    def monitor(self) -> Monitor | CascadeMonitor | None:
        """The monitor of the model; None: nothing watches it."""
        return self.model.watched_by if isinstance(self.model, Cascade) else self.model._monitor

    @property
    def shadowed(self) -> bool:
        """True where answers are the full model's, and the policy's are only recorded."""
        return self._full is not None

    @property
    def dtype(self) -> str:
        """The dtype that the model computes in, of a cascade its last tier."""
        model = self.model.tiers[-1].model if isinstance(self.model, Cascade) else self.model
        return "int8" if is_int8(model.model) else str(model.dtype).removeprefix("torch.")

    @property
    def max_length(self) -> int:
        """Tokens that a text is cut to."""
        if isinstance(self.model, Cascade):
            return max(tier.max_length for tier in self.model.tiers)
        return longest_of(self.model, None, self._max_length)

    @property
    def ranks_early(self) -> bool:
        """True where candidates of a query leave early."""
        return isinstance(self.model, EarlyExitReranker) and self.model.ranking is not None

    def warm_up(self) -> None:
        """Answer a few texts, so that the first caller does not wait for what is made once."""
        for rows in (1, 8):
            self._answer(["warm up"] * rows)
            if self._full is not None:
                self._full(["warm up"] * rows)

    @torch.no_grad()
    def answer(self, inputs: Sequence[TextInput | Candidates]) -> list[Scores | list[dict[str, Any]]]:
        """Answer texts and pairs by `Scores`, and queries with candidates as `EarlyExitReranker.rank` does."""
        texts = [each for each in inputs if not isinstance(each, Candidates)]
        scores = iter(self._scores(texts) if texts else ())
        return [self._rank(each) if isinstance(each, Candidates) else next(scores) for each in inputs]

    def _rank(self, candidates: Candidates) -> list[dict[str, Any]]:
        assert isinstance(self.model, EarlyExitReranker)
        return self.model.rank(candidates.query, candidates.documents)

    def _scores(self, texts: Sequence[TextInput]) -> list[Scores]:
        step, found = None, None
        while found is None or self.step != step:  # somebody has set another step meanwhile
            step, found = self.step, self._answer(texts)
        exits = [row["exit"] for row in found]
        if self._full is not None:
            full = self._full(texts)
            self._compare(found, full, step)
            found = full
        values = found.scores if found.probs is None else found.probs
        assert values is not None
        rows = values.reshape(len(texts), -1).tolist()
        alone = found.probs is not None and found.scores is not None
        logits = found.scores.tolist() if alone and found.scores is not None else [None] * len(texts)
        return [Scores(row, logit, site, step) for row, logit, site in zip(rows, logits, exits, strict=True)]

    def _compare(self, found: Prediction, full: Prediction, step: int | None) -> None:
        """Record what the policy would have said."""
        assert self._record is not None
        lines, disagreed = [], 0
        for early, answered in zip(found, full, strict=True):
            same = early["label"] == answered["label"]
            disagreed += not same
            line = {
                "label": answered["label"],
                "prob": plain(answered["prob"]),
                "policy_label": early["label"],
                "policy_prob": plain(early["prob"]),
                "exit": early["exit"],
                "same": same,
                "step": step,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        try:
            self._record.write("".join(lines).encode())  # at once: workers add to one file
            self.disagreed += disagreed
        except OSError as error:  # answers are the full model's, and do not wait for a disk
            _log.warning("%s: %s", self._record.name, error)

    def close(self) -> None:
        """Close the shadow's file."""
        if self._record is not None:
            self._record.close()


def raw_scores(scores: Scores, several: bool) -> list[float]:
    """Return logits; of classes that exclude each other up to a constant, which they share.

    Args:
        scores: of a model that gives probabilities.
        several: each class has a probability of its own, by a sigmoid.
    """
    if scores.logit is not None:
        return [scores.logit]
    tiny = 1e-38  # what underflowed was below
    logs = [math.log(max(each, tiny)) for each in scores.values]
    if not several:
        return logs
    return [log - math.log(max(1 - each, tiny)) for log, each in zip(logs, scores.values, strict=True)]
