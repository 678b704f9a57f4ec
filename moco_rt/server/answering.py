"""The model of a server: texts, pairs and queries with candidates to scores, with or without a shadow."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from moco_rt.cascades.cascade import Cascade
from moco_rt.inputs.batching import packed_batches
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import encode
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.ranking.candidates import Candidates
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import EarlyExitOutput, Prediction
from moco_rt.runtime.prediction import longest_of, predict_rows, tokeniser_of
from moco_rt.serving.loading import Answering, answer_at_once, answer_in_full
from moco_rt.serving.shadow_file import ShadowFile

if TYPE_CHECKING:
    from moco_rt.encoding import EncodedTexts
    from moco_rt.statistics.e_process import EProcess


@dataclass(frozen=True)
class Scores:
    """The answer about a text.

    Attributes:
        values: probabilities of each class; of a model that gives numbers these numbers.
        logits: of each class, where each has a probability of its own; None: they exclude each other, or are numbers.
        exit: the site where its row left, or would have left without a shadow, of a cascade the way out as its
            certificate calls it; None: it ran to the end.
        step: of the policy that it met; None: there is no path.
    """

    values: list[float]
    logits: list[float] | None
    exit: str | None
    step: int | None


@dataclass(frozen=True)
class Cut:
    """A text that is too long.

    Attributes:
        place: of the text in its request.
        tokens: that it is cut to.
    """

    place: int
    tokens: int


class Served:
    """A model behind a server; one thread asks it.

    Args:
        model: as `load_answering` returns it.
        max_length: in tokens; None: what policy, model and tokenizer allow, as it must be of cascades and of rerankers
            with a policy.
        shadow: a file to which a line is added for each text, of what the policy would have answered; answers are then
            the full model's. None: the policy answers.

    Attributes:
        disagreed: rows of which a shadow would have given another label.

    Raises:
        OSError: the shadow's file cannot be written.
        ValueError: max_length leaves no room for a text, or is given for a cascade or a reranker with a policy; or
            there is a shadow where there is nothing to compare.
    """

    def __init__(self, model: Answering, max_length: int | None = None, shadow: Path | None = None):
        self.model = model
        if self.ranks_early and max_length is not None:
            raise ValueError(
                f"max_length must be left to the policy of a reranker, which knows its own (got {max_length})"
            )
        self.disagreed = 0
        self._max_length = max_length
        several = model.config.problem_type == "multi_label_classification"
        self._answer = (_answer_with_logits if several else answer_at_once)(model, max_length)
        self._full: Callable[[Sequence[TextInput]], Prediction] | None = None
        self._shadow: ShadowFile | None = None
        if shadow is not None:
            kind = model.config.problem_type
            if model.config.num_labels == 1 or kind not in (None, "single_label_classification"):
                raise ValueError(f"shadow needs a model that chooses one label of several (got {kind or 'one label'})")
            self._full = answer_in_full(model, max_length)
            self._shadow = ShadowFile(shadow)

    @property
    def labels(self) -> list[str]:
        """Names of the C classes by their number."""
        return [str(self.model.config.id2label[number]) for number in range(self.model.config.num_labels)]

    @property
    def step(self) -> int | None:
        """The policy's place on its certified path; None: it has none."""
        return None if isinstance(self.model, Cascade) else self.model.policy.step

    @property
    def is_certified(self) -> bool:
        """True where a certificate is about the exits in use, and texts as they are cut here, whatever it promises."""
        if isinstance(self.model, Cascade | EarlyExitReranker):
            return self.model.is_certified
        return self.model.policy.is_certified and self.max_length == longest_of(self.model, None, None)

    @property
    def evidence(self) -> Sequence[EProcess]:
        """The monitor's evidence against each exit, of a reranker against all; empty: nothing watches the model."""
        if isinstance(self.model, EarlyExitReranker):
            return () if self.model.watched_by is None else (self.model.watched_by.process,)
        monitor = self.model.watched_by if isinstance(self.model, Cascade) else self.model._monitor
        return () if monitor is None else monitor.processes

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
    def truncation_sides(self) -> set[str]:
        """The sides, `left` or `right`, that tokenizers cut texts at."""
        return {tokenizer.truncation_side for tokenizer, _ in self._tokenizers}

    def first_cut(self, texts: Sequence[TextInput]) -> Cut | None:
        """Return the first text that any tokenizer cuts; None: all are whole. Any thread may ask."""
        for tokenizer, tokens in self._tokenizers:
            too_long = encode(tokenizer, texts, tokens + 1).lengths > tokens
            if too_long.any():
                return Cut(int(too_long.argmax()), tokens)
        return None

    @property
    def _tokenizers(self) -> list[tuple[Any, int]]:
        """The tokenizers that texts meet, and how many tokens each leaves of one."""
        if isinstance(self.model, Cascade):
            return [(tier.tokenizer, tier.max_length) for tier in self.model.tiers if tier.tokenizer is not None]
        return [(self.model.tokenizer, self.max_length)]

    @property
    def ranks_early(self) -> bool:
        """True where candidates of a query leave early."""
        return isinstance(self.model, EarlyExitReranker) and self.model.ranking is not None

    def warm_up(self) -> None:
        """Answer a few texts, of which no monitor and no record tells, so that the first caller need not wait."""
        with _unwatched(self.model):
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
        model = self.model
        assert isinstance(model, EarlyExitReranker)
        if candidates.retrieved is None and model.reads_scores:
            return model.in_order(model.rank_to_the_end(candidates))
        scores = None if candidates.retrieved is None else candidates.retrieved.tolist()
        return model.rank(candidates.query, candidates.documents, scores=scores)

    def _scores(self, texts: Sequence[TextInput]) -> list[Scores]:
        step, found = None, None
        while found is None or self.step != step:  # somebody has set another step meanwhile
            step, found = self.step, self._answer(texts)
        exits = [self._exit(row) for row in found]
        if self._full is not None:
            full = self._full(texts)
            assert self._shadow is not None
            self.disagreed += self._shadow.add(found, full, exits, step)
            found = full
        values = found.scores if found.probs is None else found.probs
        assert values is not None
        rows = values.reshape(len(texts), -1).tolist()
        own = None if found.probs is None else found.scores
        logits = [None] * len(texts) if own is None else own.reshape(len(texts), -1).tolist()
        return [Scores(row, of_row, site, step) for row, of_row, site in zip(rows, logits, exits, strict=True)]

    def _exit(self, row: Mapping[str, Any]) -> str | None:
        """Name where the row of a prediction left; None: at the end of the model, or of the last tier."""
        site: str | None = row["exit"]
        if not isinstance(self.model, Cascade) or (site is None and row["tier"] == len(self.model.tiers) - 1):
            return site
        return f"tier {row['tier']} {site or 'end'}"

    def close(self) -> None:
        """Close the shadow's file."""
        if self._shadow is not None:
            self._shadow.close()


def raw_scores(scores: Scores) -> list[float]:
    """Return logits; of classes that exclude each other up to a constant, which they share.

    Args:
        scores: of a model that gives probabilities.
    """
    if scores.logits is not None:
        return scores.logits
    tiny = 1e-38  # what underflowed was below
    return [math.log(max(each, tiny)) for each in scores.values]


def _answer_with_logits(model: Answering, max_length: int | None) -> Callable[[Sequence[TextInput]], Prediction]:
    """Return what labels a few texts as `answer_at_once` does, with logits (n, C) as `scores`.

    Where several labels may hold at once probabilities do not tell them: in float32 they are 1 from a logit of 17 on.
    """
    assert isinstance(model, EarlyExitTextClassificationModel)  # a cascade chooses one label
    tokenise = tokeniser_of(model, None, max_length)

    def answer(texts: Sequence[TextInput]) -> Prediction:
        rows, parts = tokenise(texts), []

        def keep(batch: EncodedTexts) -> EarlyExitOutput:
            output = model.forward_packed(batch)
            assert output.logits is not None
            parts.append(output.logits.float().cpu())
            return output

        found = predict_rows(model, rows, keep)
        order = np.concatenate([places for places, _ in packed_batches(rows)])
        return replace(found, scores=torch.cat(parts)[torch.from_numpy(np.argsort(order))])

    return answer


@contextlib.contextmanager
def _unwatched(model: Answering) -> Iterator[None]:
    """Let no monitor see what is answered meanwhile."""
    parts = [model, *(tier.model for tier in model.tiers)] if isinstance(model, Cascade) else [model]
    names = ("_monitor", "watched_by")
    monitors = [(part, name, getattr(part, name)) for part in parts for name in names if hasattr(part, name)]
    for part, name, _ in monitors:
        setattr(part, name, None)
    try:
        yield
    finally:
        for part, name, monitor in monitors:
            setattr(part, name, monitor)
