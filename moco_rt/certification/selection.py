"""Selection of the fastest policy that calibration rows certify, over all ways out of a model or a cascade."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.bounds import fixed_sequence, least_disagreement, rows_needed
from moco_rt.certification.certificate import GIVEN, Certificate
from moco_rt.certification.exit_scores import ExitScores, count_exits
from moco_rt.certification.guarantee import Guarantee
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.certification.policy_search import ExitsToSearch, PathPolicy, Timing, search

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

    def accuracy(self, predicted: NDArray[np.int64] | None) -> float | None:
        """Return the share of all rows whose distinct row got the true class, (n,) predicted; None without labels."""
        if self.labels is None or predicted is None:
            return None
        return float((predicted[self.distinct] == self.labels).mean())


@dataclass(frozen=True)
class ExitCandidates:
    """E exits of one variant of a model, or of a cascade, in the order in which rows meet them, scored on two jobs.

    Attributes:
        sites: name of each exit's site; of the exits at one site at most one is chosen.
        costs: cost of leaving by them.
        ordering: rows that order policies.
        calibration: rows that nothing has looked at yet.
        calibration_in_all: the calibration rows with their copies and, where known, true classes.
        num_groups: G, thresholds of an exit: one for each class.
        variant: name of the variant.
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

    def without_exits(self) -> ExitCandidates:
        """Return the same with no exits to choose from."""
        ordering, calibration = (replace(rows, scores=rows.scores.at([])) for rows in (self.ordering, self.calibration))
        return replace(self, sites=[], ordering=ordering, calibration=calibration, groups=None)

    def to_search(self) -> ExitsToSearch:
        """Return what a search may see: the rows that order policies."""
        rows = self.ordering
        return ExitsToSearch(rows.scores, self.sites, self.costs, rows.lengths, self.num_groups, self.groups)

    def outcomes(self, policy: PathPolicy) -> tuple[NDArray[np.bool_], float]:
        """Return which calibration rows differ under a policy, (n,) bool, and the mean seconds of a row."""
        scores = self.calibration.scores.at(policy.places)
        exits = scores.exit_of_row(policy.thresholds)
        seconds = self.costs.seconds(self.calibration.lengths, policy.places)
        return scores.disagrees(exits), float(seconds[np.arange(len(exits)), exits].mean())


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
        """Return, by class, the bound on the share of wrong labels among rows that leave at a site: (C,) float32."""
        classes = self.thresholds.shape[1]
        bounds = np.full(classes, 0.99 * (1 - 1 / classes), np.float32)
        for count in self.certificate.exits:
            if count.site == site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        return bounds


def select(variants: Sequence[ExitCandidates], guarantee: Guarantee) -> Selection:
    """Search a path on the ordering rows, certify a policy of it on the calibration rows, and count its exits.

    With too few rows for the guarantee it promises what they can show, and says in the log how many are needed. Where
    nothing pays, or nothing can be certified, the model is left as it is, and the log says so.

    Args:
        variants: the exits to choose from, by variant; the first is the model that was given.
        guarantee: the statement to be shown.
    """
    rows = variants[0].calibration.scores.rows
    guarantee = what_can_be_certified(guarantee, rows)
    policies = search([candidates.to_search() for candidates in variants])
    outcomes = [variants[policy.variant].outcomes(policy) for policy in policies]
    disagreements = np.array([differs.sum() for differs, _ in outcomes], np.int64)
    seconds = np.array([mean for _, mean in outcomes])
    certified = max(0, fixed_sequence(disagreements, rows, guarantee))
    # The sequence was ordered on other rows and every test up to `certified` passed: with confidence 1 - delta all
    # policies of that prefix keep the guarantee at once. So any of them may be taken by whatever the same rows say of
    # its time: that choice adds no further test.
    taken = int(seconds[: certified + 1].argmin())
    policy = policies[taken]
    own = [other for other in policies if other.variant == policy.variant]
    path_places = sorted({place for other in own for place in other.places})
    path = PolicyPath(
        tuple(candidates.variant for candidates in variants),
        np.array([other.variant for other in policies]),
        np.array([_among(path_places, other, policy.variant, variants) for other in policies]),
        disagreements,
        seconds,
        rows,
        certified,
        taken,
    )
    if taken == 0:
        _log.warning(
            "the model is left as it is: nothing else was certified for an agreement of %.2f%% and saved time",
            100 * guarantee.agreement,
        )
    certificate = _certify(variants, policy, guarantee)
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


def what_can_be_certified(guarantee: Guarantee, rows: int) -> Guarantee:
    """Return the guarantee, or where so many distinct rows cannot show it the strictest one that they can."""
    needed = rows_needed(guarantee)
    if rows >= needed:
        return guarantee
    weaker = replace(guarantee, max_disagreement=least_disagreement(rows, guarantee.delta))
    _log.warning(
        "%d distinct calibration rows cannot certify an agreement of %.2f%%: that needs %d at least; certifying %.2f%%",
        rows,
        100 * guarantee.agreement,
        needed,
        100 * weaker.agreement,
    )
    return weaker


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


def _certify(variants: Sequence[ExitCandidates], policy: PathPolicy, guarantee: Guarantee) -> Certificate:
    """Count what happens to the calibration rows under a policy."""
    candidates, given = variants[policy.variant], variants[0]
    scores, in_all = candidates.calibration.scores.at(policy.places), candidates.calibration_in_all
    exits = scores.exit_of_row(policy.thresholds)
    wrong = scores.disagrees(exits)
    seconds = candidates.costs.seconds(candidates.calibration.lengths, policy.places)
    sites = [candidates.sites[place] for place in policy.places]
    return Certificate(
        alpha=guarantee.max_disagreement,
        delta=guarantee.delta,
        rows=len(exits),
        disagreements=int(wrong.sum()),
        seconds_full=float(given.costs.seconds(given.calibration.lengths, []).mean()),
        seconds=float(seconds[np.arange(len(exits)), exits].mean()),
        exits=count_exits(scores, policy.thresholds, sites, guarantee.delta),
        accuracy_full=in_all.accuracy(scores.given),
        accuracy=in_all.accuracy(scores.label_of_row(exits)),
        rows_in_all=len(in_all.distinct),
        disagreement_in_all=in_all.share(wrong),
        variant=candidates.variant,
    )
