"""Drawn rows of a cascade: answers of the model as it was given, and how many the cascade gives otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from moco_rt.cascades.monitor import ways_out
from moco_rt.cascades.prediction import predict_parts, row_names
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
    """

    def __init__(self, cascade: Any, wish: RowsWish):
        self._cascade = cascade
        self.policies: PoliciesToCompare | None = None
        self.found = np.zeros(1, np.int64)
        known = cascade.certificate
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
        given, ours = (join_parts(answer(self._cascade, iter(drawn))) for answer in (parts_in_full, parts_unwatched))
        assert given.labels is not None
        assert ours.labels is not None
        self.found += int((given.labels != ours.labels).sum())
        yield given

    def by(self, place: int) -> Parts:  # noqa: ARG002
        """Return what answers texts by the one policy."""
        return partial(parts_unwatched, self._cascade)


def parts_in_full(cascade: Any, texts: Iterator[TextInput]) -> Iterator[Prediction]:
    """Label texts by the last tier's model as it was given, alone, part by part."""
    given, last, number = cascade.given, cascade.tiers[-1], len(cascade.tiers) - 1
    answer = partial(given.run_batch, {})
    for part in predict_parts_of_model(given, texts, last.tokenizer, last.max_length, answer=answer):
        yield replace(part, tier=torch.full_like(part.tier, number), names=row_names(cascade))


def parts_unwatched(cascade: Any, texts: Iterator[TextInput]) -> Iterator[Prediction]:
    """Label texts by a cascade, part by part; its monitor, which could close a way out meanwhile, takes no part."""
    return predict_parts(cascade, texts, watched=False)


def answer_parts(texts: Iterator[TextInput], answer: Parts) -> Iterator[Prediction]:
    """Label texts by an answer of the comparison."""
    return answer(texts)
