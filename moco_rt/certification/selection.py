"""The fastest policy that calibration rows certify, over whatever ways there are out of a model or a cascade."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.bounds import allowed_errors, rows_needed
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.exit_scores import ExitScores, count_exits, last_certified
from moco_rt.certification.policy_search import Timing, search

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExitCandidates:
    """E ways out in the order in which rows meet them, on the rows of two jobs.

    Attributes:
        sites: the name of each's site: at most one of those of a site is taken.
        costs: what it takes to leave by them.
        ordering: answers of the rows that order policies.
        ordering_lengths: of these, as `costs` wants them.
        calibration: answers of rows that nothing has looked at.
        calibration_lengths: of these.
        labels: (n,) true classes of the calibration rows, or None.
        num_classes: C.
    """

    sites: Sequence[str]
    costs: Timing
    ordering: ExitScores
    ordering_lengths: NDArray[np.int64]
    calibration: ExitScores
    calibration_lengths: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    num_classes: int


@dataclass(frozen=True)
class Selection:
    """The ways out that are taken, k of them.

    Attributes:
        places: among all.
        thresholds: (k, C).
        certificate: what is promised.
        operating_points: (policies, 2), see the function of that name: the whole path, of which this is a point.
    """

    places: list[int]
    thresholds: NDArray[np.float32]
    certificate: Certificate
    operating_points: NDArray[np.float64]

    def bounds(self, site: str) -> NDArray[np.float32]:
        """By class: on the share of wrong labels among rows that leave at one of its sites."""
        classes = self.thresholds.shape[1]
        bounds = np.full(classes, 0.99 * (1 - 1 / classes), np.float32)
        for count in self.certificate.exits:
            if count.site == site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        return bounds


def select(
    ways: ExitCandidates, alpha: float, confidence: float, groups: Sequence[Sequence[int]] | None = None
) -> Selection:
    """Search, certify, count.

    With too few rows for alpha it promises what they can show, and says in the log how many are needed; where no way
    out pays, or none can be certified, none is taken, and the log says so.

    Args:
        ways: those to choose from.
        alpha: share of labels that may differ.
        confidence: with which this must hold.
        groups: see `search`.
    """
    rows = len(ways.calibration.label)
    alpha = what_can_be_certified(alpha, confidence, rows)
    aim = allowed_errors(rows, alpha, confidence) / rows
    chosen, path = search(ways.ordering, ways.sites, ways.costs, ways.ordering_lengths, aim, ways.num_classes, groups)
    answers = ways.calibration.at(chosen)
    traced = operating_points(
        map(answers.exit_of_row, path), answers, ways.costs.seconds(ways.calibration_lengths, chosen)
    )
    last = max(0, last_certified(map(answers.exit_of_row, path), answers, alpha, confidence))
    thresholds = path[int(traced[: last + 1, 0].argmin())]
    used = np.flatnonzero(~np.isposinf(thresholds).all(axis=1))  # nobody leaves by the others: they are not asked
    places, thresholds = [chosen[place] for place in used], thresholds[used]
    certificate = _certify(ways, places, thresholds, alpha, confidence)
    if places and certificate.seconds >= certificate.seconds_full:
        places, thresholds = [], thresholds[:0]
        certificate = _certify(ways, places, thresholds, alpha, confidence)
    if not places:
        _log.warning("no exits: none was certified for an agreement of %.2f%% and saved time", 100 * (1 - alpha))
    return Selection(places, thresholds, certificate, traced)


def _certify(
    ways: ExitCandidates, places: Sequence[int], thresholds: NDArray[np.float32], alpha: float, confidence: float
) -> Certificate:
    """What the calibration rows say of leaving by some ways out with thresholds (places, C)."""
    answers = ways.calibration.at(places)
    exits = answers.exit_of_row(thresholds)
    row = np.arange(len(exits))
    predicted = np.vstack([answers.predicted, answers.label])[exits, row]
    truth = ways.labels
    return Certificate(
        alpha=alpha,
        delta=1 - confidence,
        rows=len(exits),
        disagreements=int(answers.disagrees(exits).sum()),
        seconds_full=float(ways.costs.seconds(ways.calibration_lengths, []).mean()),
        seconds=float(ways.costs.seconds(ways.calibration_lengths, places)[row, exits].mean()),
        exits=count_exits(answers, thresholds, [ways.sites[place] for place in places], confidence),
        accuracy_full=None if truth is None else float((answers.label == truth).mean()),
        accuracy=None if truth is None else float((predicted == truth).mean()),
    )


def what_can_be_certified(alpha: float, confidence: float, rows: int) -> float:
    """Alpha, or the least that so many rows can show: 1 - (1 - confidence)^(1 / rows)."""
    needed = rows_needed(alpha, confidence)
    if rows >= needed:
        return alpha
    least = float((1 - (1 - confidence) ** (1 / rows)) * (1 + 1e-9))  # whatever rounding says
    _log.warning(
        "%d calibration rows cannot certify an agreement of %.2f%%: that needs %d at least; certifying %.2f%%",
        rows,
        100 * (1 - alpha),
        needed,
        100 * (1 - least),
    )
    return least


def operating_points(
    leaving: Iterable[NDArray[np.int64]], answers: ExitScores, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Expected seconds and disagreement of every policy along a path: (policies, 2).

    Args:
        leaving: where rows leave, (n,), by policy.
        answers: of these rows.
        seconds: (n, E + 1), what leaving costs them.
    """
    rows = np.arange(len(seconds))
    return np.array([(seconds[rows, exits].mean(), answers.disagrees(exits).mean()) for exits in leaving])
