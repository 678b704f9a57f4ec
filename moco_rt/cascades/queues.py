"""Rows of a cascade that wait for a tier until there are enough of them, or until they may wait no longer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.architectures import softmax
from moco_rt.cascades.monitor import CascadeMonitor
from moco_rt.cascades.tier import Tier, TierOutput
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.outputs import Prediction, RowNames

_log = logging.getLogger(__name__)


class TierError(RuntimeError):
    """A tier failed; its own error is the cause.

    Attributes:
        tier: its number.
        prediction: the answers that were finished before, by text, of those that had reached the tiers; rows that were
            not finished have label -1. None: there are none, or a stream has yielded them already.
    """

    def __init__(self, tier: int, error: Exception):
        super().__init__(tier, error)
        self.tier = tier
        self.prediction: Prediction | None = None

    def __str__(self) -> str:
        return f"tier {self.tier} failed: {type(self.args[1]).__name__}: {self.args[1]}"


@dataclass(frozen=True)
class QueuedText:
    """A text that waits for a tier.

    Attributes:
        place: index among the texts.
        text: the text or pair.
        row: the text as the tier takes it; None: it has not been encoded yet.
        deadline: time from which it must not wait any longer, on the clock of `run_due`.
    """

    place: int
    text: TextInput
    row: Any
    deadline: float = math.inf


#: Indices of texts, and the prediction for these texts.
Finished = tuple[list[int], Prediction]


class TierQueues:
    """A queue for each tier; rows that a tier does not settle go on into the next queue.

    Args:
        tiers: the tiers of a cascade.
        full_at: number of queued rows from which a run pays, by tier.
        num_classes: C.
        on_error: `raise`, or `skip` the rows of a batch that fails; see `Cascade.predict`.
        names: names of classes and sites that predictions carry.
        monitor: checks some of the rows that are answered early; None: nothing does.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        full_at: Sequence[int],
        num_classes: int,
        on_error: str,
        names: RowNames | None = None,
        monitor: CascadeMonitor | None = None,
    ):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be raise or skip (got {on_error!r})")
        self._tiers = tiers
        self._full_at = full_at
        self._num_classes = num_classes
        self._on_error = on_error
        self._names = names
        self._monitor = monitor
        self._waiting: list[list[QueuedText]] = [[] for _ in tiers]
        # What one tier has encoded serves the next, where that would do just the same.
        self._encoded = [False, *(after.tokenises_like(tier) for tier, after in pairwise(tiers))]

    def add(self, rows: Sequence[QueuedText]) -> None:
        """Queue rows for the first tier."""
        self._waiting[0] += rows

    def deadline(self) -> float:
        """Return the earliest deadline of all rows that wait; infinity where there is none."""
        return min((row.deadline for pool in self._waiting for row in pool), default=math.inf)

    def run_due(self, now: float = -math.inf) -> Iterator[Finished]:
        """Run full pools, and those with a row whose deadline has come, until there is none: the last tiers first.

        Raises:
            TierError: a tier failed, and `on_error` is `raise`.
        """
        while (tier := self._due(now)) is not None:
            yield from self._run(tier)

    def flush(self) -> Iterator[Finished]:
        """Run all that waits; raises as `run_due`."""
        for tier in range(len(self._tiers)):
            yield from self._run(tier)

    def _due(self, now: float) -> int | None:
        for tier in reversed(range(len(self._tiers))):
            pool = self._waiting[tier]
            if len(pool) >= self._full_at[tier] or any(row.deadline <= now for row in pool):
                return tier
        return None

    def _run(self, number: int) -> Iterator[Finished]:
        pool, self._waiting[number] = self._waiting[number], []
        tier = self._tiers[number]
        rows: Sequence[Any] = [row.row for row in pool]
        if None in rows:
            try:
                rows = tier.encode([row.text for row in pool])
            except Exception as error:
                if len(pool) == 1 or self._on_error == "raise":
                    yield self._failed(number, error, [row.place for row in pool])
                    return
                half = len(pool) // 2
                for part in (pool[:half], pool[half:]):  # perhaps only one text is broken
                    self._waiting[number] = part
                    yield from self._run(number)
                return
        for places in tier.batches(rows):
            try:
                answers = tier.answer([rows[i] for i in places])
                if self._monitor is not None:
                    self._monitor.watch(number, answers, self._run_full([pool[i].text for i in places]))
            except Exception as error:
                yield self._failed(number, error, [pool[i].place for i in places])
                continue
            stands = answers.settled.tolist()
            self._pass_on(number + 1, [(pool[i], rows[i]) for i, done in zip(places, stands, strict=True) if not done])
            if any(stands):
                done = [pool[i].place for i, settled in zip(places, stands, strict=True) if settled]
                yield done, self._prediction(answers, number)

    def _run_full(self, texts: Sequence[TextInput]) -> Callable[[NDArray[np.int64]], Tensor]:
        """Return what runs some of these texts, by their places, through the last tier as it was given."""
        last = self._tiers[-1]
        return lambda places: (
            last.model.given.run_packed({}, EncodedTexts.of(last.encode([texts[i] for i in places]))).logits
        )

    def _pass_on(self, number: int, rows: Sequence[tuple[QueuedText, Any]]) -> None:
        for waited, row in rows:
            kept = row if self._encoded[number] else None
            self._waiting[number].append(QueuedText(waited.place, waited.text, kept, waited.deadline))

    def _failed(self, tier: int, error: Exception, places: list[int]) -> Finished:
        """Return unanswered rows where failures are to be skipped, else raise the error with the tier's number."""
        if self._on_error == "raise":
            raise TierError(tier, error) from error
        _log.warning("tier %d failed on %d texts, which are left out: %s", tier, len(places), error)
        return places, unanswered(len(places), self._num_classes, self._names)

    def _prediction(self, answers: TierOutput, tier: int) -> Prediction:
        """Return the prediction of the rows that a tier settles."""
        mask = answers.settled
        probs = softmax(answers.logits[mask])
        where = torch.full((len(probs),), tier, device="cpu")
        return Prediction(
            probs.argmax(dim=1), probs, answers.exit_site[mask], answers.exit_rule[mask], where, names=self._names
        )


def unanswered(rows: int, classes: int, names: RowNames | None = None) -> Prediction:
    """Make the prediction of rows that no tier answered: label, tier and exits -1, probabilities NaN."""
    none = torch.full((rows,), -1, device="cpu")
    probs = torch.full((rows, classes), torch.nan, dtype=torch.float32, device="cpu")
    return Prediction(none, probs, none.clone(), none.clone(), none.clone(), names=names)


def gather(found: Sequence[Finished], rows: int, classes: int) -> Prediction:
    """Join finished rows into one prediction in the order of the texts; rows that are not among them have label -1.

    Args:
        found: places and predictions of finished rows.
        rows: N, the number of texts.
        classes: C.
    """
    whole = unanswered(rows, classes, found[0][1].names if found else None)
    for places, part in found:
        index = torch.tensor(places, device="cpu")
        for name in ("labels", "probs", "exit_site", "exit_rule", "tier"):
            getattr(whole, name)[index] = getattr(part, name)
    return whole
