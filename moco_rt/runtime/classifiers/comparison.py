"""Drawn rows: the given model's answers to them, and how many of them each policy would have answered otherwise."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures.device_batch import AnyBatch
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.these_rows import PoliciesToCompare, RowsWish
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.policy import CertifiedPath, PolicyState
from moco_rt.runtime.exit_points import compare_answers, compile_exits, compile_scorer
from moco_rt.runtime.outputs import Answer
from moco_rt.statistics.finite_rows import ever_differing


class Comparison(Protocol):
    """The policies that drawn rows choose among.

    Attributes:
        policies: what is known of them before the draw, P of them; None: there is none, and all rows run in full.
        found: (P,) int64, rows so far that differ under each policy or one before it.
    """

    policies: PoliciesToCompare | None
    found: NDArray[np.int64]

    def in_full(self, rows: Any) -> Any:
        """Answer rows, in the form that labels are made with, by the given model alone."""
        ...

    def of_drawn(self, rows: Any) -> Any:
        """Answer drawn rows by the given model, and count those that differ."""
        ...

    def by(self, place: int) -> Any:
        """Return what answers rows by a policy, by its place among the P."""
        ...


class _WithGiven:
    """A model and the given one. They are the same here, without exits, so that there is nothing to compare."""

    policies: PoliciesToCompare | None = None
    found = np.zeros(0, np.int64)

    def __init__(self, model: Any):
        self._model = model

    def in_full(self, rows: Any) -> Results:
        results: Results = self._model.given.run_batch({}, rows)
        return results

    def of_drawn(self, rows: Any) -> Results:
        return self.in_full(rows)

    def by(self, place: int) -> Answer:  # noqa: ARG002
        return self.in_full


def comparison_of(model: Any, wish: RowsWish) -> Comparison:
    """Return the comparison of a model's policies with the model as it was given.

    Args:
        model: an `EarlyExitClassifier`. The policies are those of its certified path that run its variant; where it has
            none, or exits were added by hand since, there is one, its own. Its monitor takes no part.
        wish: the promise.

    Raises:
        ValueError: its policy's task, what "the same answer" means, is another than the model's, as a reranker's is; or
            it was put into another dtype, and the model as it was given is not kept.
    """
    model.check_keeps_given()
    state, path = model.policy.state, model.policy.path
    along = path is not None and state.step is not None
    if not along and len(state.exits) == len(state.closed) and model.runs_as_given:
        return _WithGiven(model)
    model.policy.task.for_model(model.config)
    return _AlongPath(model, path) if path is not None and along else _OwnPolicy(model, wish)


class _AlongPath(_WithGiven):
    """The policies of a certified path: one run of the model, in which all its off-ramps score, compares them all."""

    def __init__(self, model: Any, path: CertifiedPath):
        super().__init__(model)
        self._path = path
        self._steps = path.possible_steps()
        self._thresholds = path.policies.thresholds[self._steps]
        known, seconds = path.policies, path.policies.seconds[self._steps]
        full = float(known.seconds[0])  # the path begins with the given model without exits
        # Where that is the model that runs, its answers are those of the run in which the off-ramps score. Elsewhere
        # that run comes on top; the path knows of none that is longer than that of its slowest policy.
        scored = 0.0 if model.runs_as_given else float(seconds.max())
        shares = (known.disagreements[self._steps] + 1) / (known.rows + 1)
        self.policies = PoliciesToCompare(shares, seconds, full, full + scored, np.array(self._steps))
        self.found = np.zeros(len(self._steps), np.int64)
        self._scorer = PathScorer(model, path)

    def of_drawn(self, rows: Any) -> Results:
        given, scores = self._scorer.score(rows)
        self.found += ever_differing(
            scores.disagrees(scores.exit_of_row(thresholds)) for thresholds in self._thresholds
        )
        return given

    def by(self, place: int) -> Answer:
        policy = self._model.policy.without_exits()
        policy.state = PolicyState(self._path.exits(self._steps[place]))
        return partial(self._model.run_batch, compile_exits(policy))


class PathScorer:
    """Scores rows by all off-ramps of a certified path, in one run of the model that lets none leave.

    Args:
        model: an `EarlyExitClassifier`; its exits take no part.
        path: its path.
    """

    def __init__(self, model: Any, path: CertifiedPath):
        self._model = model
        sites = dict.fromkeys(str(ramp.site) for ramp in path.off_ramps)
        self._scorers = {site: _Scorer([ramp for ramp in path.off_ramps if ramp.site == site]) for site in sites}

    def score(self, batch: Any) -> tuple[Results, ExitScores]:
        """Return the given model's results on a batch, and what the off-ramps say of its rows."""
        results: Results = self._model.run_batch(self._scorers, batch)
        given: Results = results
        if not self._model.runs_as_given:
            given = self._model.given.run_batch({}, batch)
        answers = (answer for scorer in self._scorers.values() for answer in scorer.seen)
        task, dtype = self._model.policy.task, results.logits.dtype
        return given, compare_answers(task, answers, _logits(given), _logits(results), dtype)


class _OwnPolicy(_WithGiven):
    """The exits that a model has, of which nothing is known: it is taken to be fast, and to use half of what it may."""

    def __init__(self, model: Any, wish: RowsWish):
        super().__init__(model)
        self._exits = compile_exits(model.policy)
        self.policies = PoliciesToCompare.unknown(wish)
        self.found = np.zeros(1, np.int64)

    def of_drawn(self, rows: Any) -> Results:
        given, ours = self.in_full(rows), self._model.run_batch(self._exits, rows)
        self.found += (~self._model.policy.task.same(_logits(given), _logits(ours))).sum()
        return given

    def by(self, place: int) -> Answer:  # noqa: ARG002
        return partial(self._model.run_batch, self._exits)


class _Scorer:
    """A stand-in for the exits of a site: it keeps what all off-ramps there say of the rows, and lets none leave.

    Attributes:
        can_peek: see `ExitPoint`.
        needs_mean: see `ExitPoint`.
        seen: of the batch before: by off-ramp what `compile_scorer` returns.
    """

    def __init__(self, off_ramps: list[AnyOffRamp]):
        features = {ramp.feature for ramp in off_ramps}
        self.can_peek = features <= {"cls", "cls+mean"}
        self.needs_mean = "cls+mean" in features
        self._scorers = [compile_scorer(ramp) for ramp in off_ramps]
        self.seen: list[tuple[Tensor, Tensor]] = []

    def apply(self, batch: AnyBatch, results: Results) -> int:  # noqa: ARG002
        self.seen = [score(batch) for score in self._scorers]
        return 0


def _logits(results: Results) -> NDArray[np.float32]:
    """Return the logits of a batch: (rows, C) float32."""
    logits: NDArray[np.float32] = results.logits.to("cpu", torch.float32).numpy()
    return logits
