"""Selection of the fastest policy that calibration rows certify, over all ways out of a model or a cascade."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import GIVEN, Certificate
from moco_rt.certification.exit_scores import ExitScores, count_exits, count_ways_out
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.certification.policy_search import ExitsToSearch, PathPolicy, Timing, search
from moco_rt.certification.promises import Outcomes, Promise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredRows:
    """Distinct rows of one job with the scores of all exits.

    Attributes:
        scores: of E exits on n rows.
        lengths: (n,) tokens, or whatever form the costs take them in.
    """

    scores: ExitScores
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class RowsInAll:
    """The M rows of a job with their copies, of which n are distinct; only those n are scored.

    Attributes:
        distinct: (M,) int64, the index of the distinct row that each row is a copy of.
        labels: (M,) int64 true classes, or None.
    """

    distinct: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None

    def share(self, flags: NDArray[np.bool_]) -> float:
        """Return the share of all rows whose distinct row has a flag; flags: (n,)."""
        return float(flags[self.distinct].mean())

    def drop(self, given: NDArray[np.int64] | None, fast: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Return by how much one model is right more often than another, the mean over the copies of each row: (n,).

        Args:
            given: (n,) labels of the one; true classes must be known.
            fast: (n,) labels of the other.
        """
        assert self.labels is not None
        assert given is not None
        assert fast is not None
        of_copies = (given[self.distinct] == self.labels).astype(int) - (fast[self.distinct] == self.labels)
        copies = np.bincount(self.distinct, minlength=len(given))
        return np.bincount(self.distinct, of_copies, minlength=len(given)) / np.maximum(1, copies)

    def accuracy(self, predicted: NDArray[np.int64] | None) -> float | None:
        """Return the share of all rows whose distinct row got the true class, (n,) predicted; None without labels."""
        if self.labels is None or predicted is None:
            return None
        return float((predicted[self.distinct] == self.labels).mean())


@dataclass(frozen=True)
class CalibrationRun:
    """The n calibration rows under a policy.

    Attributes:
        exits: (n,) int64, place among the policy's exits of the one by which each row leaves.
        differs: (n,) bool, whether its answer is another than from the model as it was given.
        labels: (n,) int64 labels; None: the task has none.
        seconds: (n,) float64.
    """

    exits: NDArray[np.int64]
    differs: NDArray[np.bool_]
    labels: NDArray[np.int64] | None
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class ExitCandidates:
    """E exits of one variant of a model, or of a cascade, in the order in which rows meet them, scored on two jobs.

    Attributes:
        sites: name of each exit's site; of the exits at one site at most one is chosen.
        costs: cost of leaving by them.
        ordering: rows that order policies.
        calibration: rows that nothing has looked at yet.
        calibration_in_all: the calibration rows with their copies and, where known, true classes.
        num_groups: G, thresholds of an exit: one for each class, or one.
        variant: name of the variant.
        answer: what must stay the same of each row, as certificates name it.
        groups: sets of exits where a search may start, see `ExitsToSearch`; None: one of them all.
    """

    sites: Sequence[str]
    costs: Timing
    ordering: ScoredRows
    calibration: ScoredRows
    calibration_in_all: RowsInAll
    num_groups: int
    variant: str = GIVEN
    groups: Sequence[Sequence[int]] | None = None
    answer: str = "label"

    def without_exits(self) -> ExitCandidates:
        """Return the same with no exits to choose from."""
        ordering, calibration = (replace(rows, scores=rows.scores.at([])) for rows in (self.ordering, self.calibration))
        return replace(self, sites=[], ordering=ordering, calibration=calibration, groups=None)

    def never_leaving(self, groups: Sequence[int]) -> ExitCandidates:
        """Return the same where no policy lets rows leave by the thresholds of some groups."""
        scores = self.ordering.scores
        held = np.isin(scores.group, groups)  # rows whose score is not finite have no part in the search
        ordering = replace(self.ordering, scores=replace(scores, score=np.where(held, -np.inf, scores.score)))
        return replace(self, ordering=ordering)

    def to_search(self, weights: NDArray[np.float64] | None) -> ExitsToSearch:
        """Return what a search may see: the rows that order policies; weights: (n,), see `Promise.weights`."""
        rows = self.ordering
        return ExitsToSearch(rows.scores, self.sites, self.costs, rows.lengths, self.num_groups, self.groups, weights)

    def point_without_exits(self) -> tuple[float, float]:
        """Return mean seconds of the calibration rows, all run to the end, and the share whose answer differs."""
        scores, rows = self.calibration.scores.at([]), self.calibration.lengths
        ends = np.zeros(len(rows), np.int64)
        return float(self.costs.seconds(rows, [])[:, 0].mean()), float(scores.disagrees(ends).mean())

    def run(self, policy: PathPolicy) -> CalibrationRun:
        """Return what the calibration rows do under a policy of this variant."""
        scores = self.calibration.scores.at(policy.places)
        exits = scores.exit_of_row(policy.thresholds)
        seconds = self.costs.seconds(self.calibration.lengths, policy.places)[np.arange(len(exits)), exits]
        return CalibrationRun(exits, scores.disagrees(exits), scores.label_of_row(exits), seconds)


@dataclass(frozen=True)
class Selection:
    """The chosen exits, k of them, and the path that the choice was certified along.

    Attributes:
        variant: index of the variant that is run.
        places: indices of the chosen exits among the variant's candidates.
        thresholds: (k, G) float32.
        certificate: the promise.
        path_places: indices of the variant's exits that the path is about, in the order of its thresholds; `places`
            are some of them.
        path: all policies that were tried, with their counts and times.
    """

    variant: int
    places: list[int]
    thresholds: NDArray[np.float32]
    certificate: Certificate
    path_places: list[int]
    path: PolicyPath

    def bounds(self, site: str) -> NDArray[np.float32]:
        """Return, by group, the bound on the share of wrong answers among rows that leave at a site: (G,) float32."""
        groups = self.thresholds.shape[1]
        bounds = np.full(groups, 0.99 * (1 - 1 / groups if groups > 1 else 1), np.float32)
        for count in self.certificate.exits:
            if count.site == site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        return bounds


def select(variants: Sequence[ExitCandidates], promise: Promise, class_names: Sequence[str] = ()) -> Selection:
    """Search a path on the ordering rows, certify a policy of it on the calibration rows, and count its exits.

    With too few rows for the promise `Promise.for_rows` says what becomes of it. Where nothing pays, or nothing can be
    certified, the model is left as it is, and the log says so.

    Args:
        variants: the exits to choose from, by variant; the first is the model that was given.
        promise: the statement to be shown.
        class_names: for the log.
    """
    first = variants[0]
    weights = promise.weights(first.ordering.scores.given)
    policies = search([candidates.to_search(weights) for candidates in variants])
    runs = [variants[policy.variant].run(policy) for policy in policies]
    given, in_all = first.calibration.scores.given, first.calibration_in_all
    drop = None if in_all.labels is None else np.array([in_all.drop(given, run.labels) for run in runs])
    outcomes = Outcomes(np.array([run.differs for run in runs]), given, drop)
    promise = promise.for_rows(outcomes, class_names)
    seconds = np.array([run.seconds.mean() for run in runs])
    certified = max(0, promise.last(outcomes))
    # The sequence was ordered on other rows and every test up to `certified` passed: with confidence 1 - delta all
    # policies of that prefix keep the guarantee at once. So any of them may be taken by whatever the same rows say of
    # its time: that choice adds no further test.
    taken = int(seconds[: certified + 1].argmin())
    policy = policies[taken]
    own = [other for other in policies if other.variant == policy.variant]
    path_places = sorted({place for other in own for place in other.places})
    counted = [_by_exit(path_places, other, run, policy.variant) for other, run in zip(policies, runs, strict=True)]
    path = PolicyPath(
        tuple(candidates.variant for candidates in variants),
        np.array([other.variant for other in policies]),
        np.array([_among(path_places, other, policy.variant, variants) for other in policies]),
        outcomes.differs.sum(axis=1),
        seconds,
        outcomes.differs.shape[1],
        certified,
        taken,
        fired=np.array([fired for fired, _ in counted]),
        wrong=np.array([wrong for _, wrong in counted]),
    )
    if taken == 0:
        _log.warning("the model is left as it is: nothing else kept the promise on the calibration rows and saved time")
    certificate = _certify(variants, policy, runs[taken], promise, promise.stated(outcomes, taken))
    return Selection(policy.variant, policy.places, policy.thresholds, certificate, path_places, path)


def _among(
    path_places: Sequence[int], policy: PathPolicy, variant: int, variants: Sequence[ExitCandidates]
) -> NDArray[np.float32]:
    """Return a policy's thresholds by the path's exits, (E, G); infinite throughout if it is of another variant."""
    thresholds = np.full((len(path_places), variants[variant].num_groups), np.inf, np.float32)
    if policy.variant == variant:
        for place, levels in zip(policy.places, policy.thresholds, strict=True):
            thresholds[path_places.index(place)] = levels
    return thresholds


def _by_exit(
    path_places: Sequence[int], policy: PathPolicy, run: CalibrationRun, variant: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count rows that left by each of the path's exits, and those that left wrongly: none if of another variant."""
    if policy.variant != variant:
        return np.zeros(len(path_places), np.int64), np.zeros(len(path_places), np.int64)
    return count_ways_out(
        run.exits, run.differs, [path_places.index(place) for place in policy.places], len(path_places)
    )


def trace(
    exits_of_policies: Iterable[NDArray[np.int64]], scores: ExitScores, seconds: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the rows that differ, and average their seconds, for every policy of a path.

    Args:
        exits_of_policies: for each of P policies the exit of each row, (n,).
        scores: those of the same rows.
        seconds: (n, E + 1), cost of each row by the exit where it leaves.

    Returns:
        (P,) int64 disagreements and (P,) float64 mean seconds of a row.
    """
    rows = np.arange(len(seconds))
    counted = [(scores.disagrees(exits).sum(), seconds[rows, exits].mean()) for exits in exits_of_policies]
    return np.array([errors for errors, _ in counted], np.int64), np.array([mean for _, mean in counted])


def _certify(
    variants: Sequence[ExitCandidates],
    policy: PathPolicy,
    run: CalibrationRun,
    promise: Promise,
    stated: Mapping[str, Any],
) -> Certificate:
    """Count what the calibration rows did under the policy that was taken; stated: what is promised of it."""
    candidates, given = variants[policy.variant], variants[0]
    scores, in_all = candidates.calibration.scores.at(policy.places), candidates.calibration_in_all
    sites = [candidates.sites[place] for place in policy.places]
    return Certificate(
        **stated,
        delta=promise.delta,
        rows=len(run.exits),
        disagreements=int(run.differs.sum()),
        seconds_full=float(given.costs.seconds(given.calibration.lengths, []).mean()),
        seconds=float(run.seconds.mean()),
        exits=count_exits(scores, policy.thresholds, sites, promise.delta),
        accuracy_full=in_all.accuracy(scores.given),
        accuracy=in_all.accuracy(run.labels),
        rows_in_all=len(in_all.distinct),
        disagreement_in_all=in_all.share(run.differs),
        variant=candidates.variant,
        promise=promise.name,
        answer=candidates.answer,
    )
