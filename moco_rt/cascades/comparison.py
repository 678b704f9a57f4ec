"""Drawn rows of a cascade: answers of the model as it was given, and how many the cascade gives otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from moco_rt.cascades.monitor import ways_out
from moco_rt.cascades.prediction import predict_parts, row_names
from moco_rt.cascades.tier import Tier
from moco_rt.certification.these_rows import PoliciesToCompare, RowsWish
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.outputs import Prediction
from moco_rt.runtime.prediction import join_parts
from moco_rt.runtime.prediction import predict_parts as predict_parts_of_model

#: Labels texts part by part, in their order.
Parts = Callable[[Iterator[TextInput]], Iterator[Prediction]]


class CascadeComparison:
    """A cascade as it is, one policy, and the last tier's model as it was given.

    Args:
        cascade: a `Cascade`.
        wish: the promise.

    Attributes:
        policies: what is known of the one policy; None: every row runs through the given model as it is.
        found: (1,) int64, drawn rows so far that differ.

    Raises:
        ValueError: the last tier's model was put into another dtype, and the one that was given is not kept.
    """

    def __init__(self, cascade: Any, wish: RowsWish):
        cascade.tiers[-1].model.check_keeps_given()
        self._cascade, self._ours = cascade, frozen(cascade)
        self.policies: PoliciesToCompare | None = None
        self.found = np.zeros(1, np.int64)
        known = cascade.certificate if cascade.is_certified else None
        if not ways_out(cascade.tiers) and cascade.tiers[-1].model.runs_as_given:
            return
        if known is None:
            self.policies = PoliciesToCompare.unknown(wish)
            return
        share = (known.disagreements + 1) / (known.rows + 1)
        drawn = known.seconds_full + known.seconds
        self.policies = PoliciesToCompare(np.array([share]), np.array([known.seconds]), known.seconds_full, drawn)

    def in_full(self, rows: Iterator[TextInput]) -> Iterator[Prediction]:
        """Answer texts by the given model alone."""
        return parts_in_full(self._cascade, rows)

    def of_drawn(self, rows: Iterator[TextInput]) -> Iterator[Prediction]:
        """Answer drawn texts by the given model, and count those that the cascade labels otherwise."""
        drawn = list(rows)
        given = join_parts(parts_in_full(self._cascade, iter(drawn)))
        ours = join_parts(predict_parts(self._ours, iter(drawn)))
        assert given.probs is not None
        assert ours.probs is not None
        nan = (given.probs.isnan() != ours.probs.isnan()).any(dim=1)  # NaN is no answer, though it has a label
        self.found += int((nan | (given.labels != ours.labels)).sum())
        yield given

    def by(self, place: int) -> Parts:  # noqa: ARG002
        """Return what answers texts by the one policy."""
        return partial(predict_parts, self._ours)


def parts_in_full(cascade: Any, texts: Iterator[TextInput]) -> Iterator[Prediction]:
    """Label texts by the last tier's model as it was given, alone, part by part."""
    given, last, number = cascade.given, cascade.tiers[-1], len(cascade.tiers) - 1
    answer = partial(given.run_batch, {})
    for part in predict_parts_of_model(given, texts, last.tokenizer, last.max_length, answer=answer):
        yield replace(part, tier=torch.full_like(part.tier, number), names=row_names(cascade))


def frozen(cascade: Any) -> Any:
    """Return a cascade that answers as another one does now, whatever monitors close or step back from meanwhile."""
    now = copy.copy(cascade)
    now.tiers, now.watched_by = [_frozen(tier) for tier in cascade.tiers], None
    return now


def _frozen(tier: Tier) -> Tier:
    levels = None if tier.thresholds is None else tier.thresholds.clone()
    if tier.tokenizer is None:
        return replace(tier, thresholds=levels)
    return replace(tier, model=tier.model.unwatched(), thresholds=levels)


def answer_parts(texts: Iterator[TextInput], answer: Parts) -> Iterator[Prediction]:
    """Label texts by an answer of the comparison."""
    return answer(texts)
