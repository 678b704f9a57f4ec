"""The fastest policy that calibration rows certify, over whatever ways there are out of a model or a cascade."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.answers import Answers, certified, count_exits
from moco_rt.calibrate import allowed_errors, rows_needed
from moco_rt.certificate import Certificate
from moco_rt.findings import trace
from moco_rt.search import Timing, search

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaysOut:
    """E ways out in the order in which rows meet them, on the rows of two jobs.

    Attributes:
        sites: the name of each's site: at most one of those of a site is taken.
        costs: what it takes to leave by them.
        path: answers of the rows that order policies.
        path_lengths: of these, as `costs` wants them.
        calibration: answers of rows that nothing has looked at.
        calibration_lengths: of these.
        labels: (n,) true classes of the calibration rows, or None.
        num_classes: C.
    """

    sites: Sequence[str]
    costs: Timing
    path: Answers
    path_lengths: NDArray[np.int64]
    calibration: Answers
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
        traced: (policies, 2), see `trace`: the whole path, of which this is a point.
    """

    places: list[int]
    thresholds: NDArray[np.float32]
    certificate: Certificate
    traced: NDArray[np.float64]

    def bounds(self, site: str) -> NDArray[np.float32]:
        """By class: on the share of wrong labels among rows that leave at one of its sites."""
        classes = self.thresholds.shape[1]
        bounds = np.full(classes, 0.99 * (1 - 1 / classes), np.float32)
        for count in self.certificate.exits:
            if count.site == site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        return bounds


def select(ways: WaysOut, alpha: float, confidence: float, groups: Sequence[Sequence[int]] | None = None) -> Selection:
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
    chosen, path = search(ways.path, ways.sites, ways.costs, ways.path_lengths, aim, ways.num_classes, groups)
    answers = ways.calibration.at(chosen)
    traced = trace(map(answers.leaves, path), answers, ways.costs.of(ways.calibration_lengths, chosen))
    last = max(0, certified(map(answers.leaves, path), answers, alpha, confidence))
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
    ways: WaysOut, places: Sequence[int], thresholds: NDArray[np.float32], alpha: float, confidence: float
) -> Certificate:
    """What the calibration rows say of leaving by some ways out with thresholds (places, C)."""
    answers = ways.calibration.at(places)
    exits = answers.leaves(thresholds)
    row = np.arange(len(exits))
    predicted = np.vstack([answers.predicted, answers.label])[exits, row]
    truth = ways.labels
    return Certificate(
        alpha=alpha,
        delta=1 - confidence,
        rows=len(exits),
        disagreements=int(answers.wrong(exits).sum()),
        seconds_full=float(ways.costs.of(ways.calibration_lengths, []).mean()),
        seconds=float(ways.costs.of(ways.calibration_lengths, places)[row, exits].mean()),
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
