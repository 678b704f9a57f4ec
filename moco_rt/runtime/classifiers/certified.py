"""Prediction with a promise about these rows: some are drawn and run in full, and say what the others are run with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.certification.rows_certificate import RowsCertificate
from moco_rt.certification.these_rows import RowsWish, draw_rows, in_full
from moco_rt.runtime.classifiers.comparison import Comparison
from moco_rt.runtime.outputs import Prediction, concatenate, select
from moco_rt.runtime.prediction import join_parts

#: Labels inputs part by part, in their order, by an answer of the comparison.
Label = Callable[[Iterator[Any], Any], Iterator[Prediction]]


@dataclass(frozen=True, eq=False)
class CertifiedRun:
    """N rows of which the drawn ones are answered; the others wait for `parts`.

    Attributes:
        certificate: the promise about the answers, once all are given.
        drawn: (N,) bool, the rows that were drawn.
        answers: the given model's to those, in the order of the rows; None: none was drawn.
        answer: what the others are run with.
        label: labels inputs with an answer.
    """

    certificate: RowsCertificate
    drawn: NDArray[np.bool_]
    answers: Prediction | None
    answer: Any
    label: Label

    def parts(self, inputs: Iterable[Any], start: int = 0) -> Iterator[Prediction]:
        """Give the answers to all rows from place `start` on, part by part, in their order.

        Args:
            inputs: the rows from there on, those that were drawn among them.
            start: a place among the N.

        Raises:
            ValueError: there are fewer inputs than rows.
        """
        others = start + np.flatnonzero(~self.drawn[start:])
        place, done = start, 0
        for part in self.label(itertools.compress(inputs, ~self.drawn[start:]), self.answer):
            done += len(part)
            end = int(others[done - 1]) + 1 if done < len(others) else len(self.drawn)
            yield self._with_drawn(part, place, end)
            place = end
        if done < len(others):
            raise ValueError(f"inputs must be the {len(self.drawn):,} rows that were drawn from (got fewer)")
        if place < len(self.drawn):
            assert self.answers is not None
            yield select(self.answers, torch.arange(int(self.drawn[:place].sum()), len(self.answers), device="cpu"))

    def _with_drawn(self, others: Prediction, start: int, end: int) -> Prediction:
        """Put the drawn rows from `start` to `end` in their places between the others."""
        drawn = self.drawn[start:end]
        if self.answers is None or not drawn.any():
            return others
        before = int(self.drawn[:start].sum())
        mine = torch.arange(before, before + int(drawn.sum()), device="cpu")
        both = concatenate([select(self.answers, mine), others])
        places = np.argsort(np.concatenate([np.flatnonzero(drawn), np.flatnonzero(~drawn)]))
        return select(both, torch.from_numpy(places))


def certify(
    comparison: Comparison, rows: int, inputs: Callable[[], Iterable[Any]], label: Label, wish: RowsWish
) -> CertifiedRun:
    """Draw rows, run them in full, and find out with which policy the others are run.

    Args:
        comparison: of the policies, with the given model.
        rows: N, at least 1.
        inputs: opens the N rows from the first on.
        label: labels inputs with an answer of the comparison.
        wish: the promise.

    Raises:
        ValueError: there is no row, or there are fewer than N.
        Exception: whatever reading the rows raises.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1 to be certified (got {rows})")
    policies = comparison.policies
    count = 0 if policies is None else policies.rows_to_draw(rows, wish)
    if policies is None or count == 0:
        return CertifiedRun(in_full(rows, wish), np.zeros(rows, bool), None, comparison.in_full, label)
    drawn = draw_rows(rows, count, wish.seed)
    answers = join_parts(label(itertools.compress(inputs(), drawn), comparison.of_drawn))
    if len(answers) < count:
        raise ValueError(f"inputs must be the {rows:,} rows that were counted (got fewer)")
    certificate, taken = policies.certify(comparison.found, count, rows, wish)
    return CertifiedRun(certificate, drawn, answers, comparison.in_full if taken < 0 else comparison.by(taken), label)


def predict_certified(
    comparison: Comparison, rows: int, inputs: Callable[[], Iterable[Any]], label: Label, wish: RowsWish
) -> Prediction:
    """Label rows with a promise about their answers; for arguments and errors see `certify`."""
    run = certify(comparison, rows, inputs, label, wish)
    return replace(join_parts(run.parts(inputs())), certificate=run.certificate)
