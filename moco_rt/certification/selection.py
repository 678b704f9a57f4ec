"""Selection of the fastest policy that calibration rows certify, over all ways out of a model or a cascade."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.bounds import allowed_errors, least_disagreement, rows_needed
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.exit_scores import ExitScores, count_exits, last_certified
from moco_rt.certification.guarantee import Guarantee
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.certification.policy_search import Timing, search

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

    def accuracy(self, predicted: NDArray[np.int64]) -> float | None:
        """Return the share of all rows whose distinct row got the true class, (n,) predicted; None without labels."""
        return None if self.labels is None else float((predicted[self.distinct] == self.labels).mean())


@dataclass(frozen=True)
class ExitCandidates:
    """E exits to choose from, in the order in which rows meet them, scored on the rows of two jobs.

    Attributes:
        sites: name of each exit's site; of the exits at one site at most one is chosen.
        costs: cost of leaving by them.
        ordering: rows that order policies.
        calibration: rows that nothing has looked at yet.
        calibration_in_all: the calibration rows with their copies and, where known, true classes.
        num_classes: C.
    """

    sites: Sequence[str]
    costs: Timing
    ordering: ScoredRows
    calibration: ScoredRows
    calibration_in_all: RowsInAll
    num_classes: int


@dataclass(frozen=True)
class Selection:
    """The chosen exits, k of them, and the path that the choice was certified along.

    Attributes:
        places: indices of the chosen exits among the candidates.
        thresholds: (k, C) float32.
        certificate: the promise.
        path_places: indices of the exits that the path is about; `places` are some of them, those that rows leave by.
        path: all policies that were tried, with their counts and times.
    """

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


def select(
    candidates: ExitCandidates, guarantee: Guarantee, groups: Sequence[Sequence[int]] | None = None
) -> Selection:
    """Search a path on the ordering rows, certify a policy of it on the calibration rows, and count its exits.

    With too few rows for the guarantee it promises what they can show, and says in the log how many are needed. Where
    no exit pays, or none can be certified, none is chosen, and the log says so.

    Args:
        candidates: the exits to choose from.
        guarantee: the statement to be shown.
        groups: see `search`.
    """
    rows = len(candidates.calibration.scores.label)
    guarantee = what_can_be_certified(guarantee, rows)
    aim = allowed_errors(rows, guarantee) / rows
    chosen, thresholds_of_path = search(
        candidates.ordering.scores,
        candidates.sites,
        candidates.costs,
        candidates.ordering.lengths,
        aim,
        candidates.num_classes,
        groups,
    )
    scores = candidates.calibration.scores.at(chosen)
    seconds = candidates.costs.seconds(candidates.calibration.lengths, chosen)
    disagreements, mean_seconds = trace(map(scores.exit_of_row, thresholds_of_path), scores, seconds)
    certified = max(0, last_certified(map(scores.exit_of_row, thresholds_of_path), scores, guarantee))
    # The sequence was ordered on other rows and every test up to `certified` passed: with confidence 1 - delta all
    # policies of that prefix keep the guarantee at once. So any of them may be taken by whatever the same rows say of
    # its time: that choice adds no further test.
    taken = int(mean_seconds[: certified + 1].argmin())
    path = PolicyPath.of(thresholds_of_path, disagreements, mean_seconds, rows, certified, taken)
    thresholds = thresholds_of_path[taken]
    used = np.flatnonzero(~np.isposinf(thresholds).all(axis=1))  # no row leaves by the others: they are not asked
    places, thresholds = [chosen[place] for place in used], thresholds[used]
    certificate = _certify(candidates, places, thresholds, guarantee)
    if places and certificate.seconds >= certificate.seconds_full:
        places, thresholds, path = [], thresholds[:0], replace(path, chosen=0)
        certificate = _certify(candidates, places, thresholds, guarantee)
    if not places:
        agreement = 100 * guarantee.agreement
        _log.warning("no exits: none was certified for an agreement of %.2f%% and saved time", agreement)
    return Selection(places, thresholds, certificate, chosen, path)


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


def _certify(
    candidates: ExitCandidates, places: Sequence[int], thresholds: NDArray[np.float32], guarantee: Guarantee
) -> Certificate:
    """Count what happens to the calibration rows when they leave by some exits with thresholds (places, C)."""
    scores, in_all = candidates.calibration.scores.at(places), candidates.calibration_in_all
    exits = scores.exit_of_row(thresholds)
    wrong = scores.disagrees(exits)
    seconds = candidates.costs.seconds(candidates.calibration.lengths, places)
    return Certificate(
        alpha=guarantee.max_disagreement,
        delta=guarantee.delta,
        rows=len(exits),
        disagreements=int(wrong.sum()),
        seconds_full=float(candidates.costs.seconds(candidates.calibration.lengths, []).mean()),
        seconds=float(seconds[np.arange(len(exits)), exits].mean()),
        exits=count_exits(scores, thresholds, [candidates.sites[place] for place in places], guarantee.delta),
        accuracy_full=in_all.accuracy(scores.label),
        accuracy=in_all.accuracy(scores.label_of_row(exits)),
        rows_in_all=len(in_all.distinct),
        disagreement_in_all=in_all.share(wrong),
    )
