"""Costs: seconds of a row that leaves by an off-ramp, or runs to the end, timed on this machine by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.architectures.sites import EMBEDDINGS, layer_of_attention
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.policy import Exit
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.exit_points import ExitPoint, compile_exits
from moco_rt.studies.timing import fastest, seconds_of

#: Lengths are timed at these shares of the rows; costs in between are interpolated.
_SHARES = (0.02, 0.25, 0.5, 0.75, 0.98)
#: Sites after an attention of which the way there is timed, at most.
_TIMED_SITES = 4
#: Rows that share the fixed cost of a batch.
_BATCH_ROWS = 64
#: Tokens of a timed batch at most: of long rows fewer are timed.
_BATCH_TOKENS = 4096
#: A second batch, this many times smaller, separates per-row from per-batch cost.
_FEWER = 4
#: Runs of each forward at least and at most; between these, as many as fit into so many seconds.
_FEWEST_RUNS, _MOST_RUNS, _SECONDS = 3, 20, 0.3
#: Seconds that a row takes at least, wherever it leaves: beside other work, differences of timings may be nothing.
_LEAST_SECONDS = 1e-7


@dataclass(frozen=True)
class Costs:
    """Seconds of rows in batches of 64.

    A batch of few rows takes longer for each of them: weights are read whatever the rows. As rows leave, batches
    shrink, and only the time that grows with the rows is saved; the fixed rest is paid by the batch and here divided
    by all its rows.

    Attributes:
        lengths: (k,) ascending tokens at which times were taken.
        compute: (k, E + 1), seconds of a row up to an off-ramp's site, or to the end, without scoring.
        scoring: (k, E), seconds of a row for being scored by an off-ramp.
        fixed: (E + 1,), fixed seconds of a batch per off-ramp (last: of the model itself), divided by its rows.
    """

    lengths: NDArray[np.float64]
    compute: NDArray[np.float64]
    scoring: NDArray[np.float64]
    fixed: NDArray[np.float64]

    def at_batch_tokens(self, tokens: int) -> Costs:
        """Return the costs in batches of so many tokens, in which more rows share the fixed cost."""
        rows = max(_BATCH_ROWS, tokens / max(1.0, float(self.lengths.mean())))
        return replace(self, fixed=self.fixed * _BATCH_ROWS / rows)

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Return seconds (n, len(chosen) + 1) of rows that leave by a chosen off-ramp; last: that run to the end.

        Args:
            lengths: (n,) tokens of the rows.
            chosen: indices of the off-ramps that rows are scored by, in the order of their sites.
        """
        scored = [np.interp(lengths, self.lengths, self.scoring[:, place]) for place in chosen]
        paid = np.cumsum([*scored, np.zeros(len(lengths))], axis=0)
        reached = [np.interp(lengths, self.lengths, self.compute[:, place]) for place in [*chosen, -1]]
        seconds: NDArray[np.float64] = np.array(reached) + paid + self.fixed[[*chosen, -1]].sum()
        return seconds.T


class MakeExits(Protocol):
    """Makes exit points of a model: one that scores rows and lets none go, and one by which all leave."""

    def __call__(  # noqa: D102
        self, model: EarlyExitClassifier, *, scoring: AnyOffRamp | None = None, leaving: AnyOffRamp | None = None
    ) -> Mapping[str, ExitPoint]: ...


def measure_costs(
    models: Sequence[EarlyExitClassifier],
    rows: Sequence[Any],
    off_ramps: Sequence[AnyOffRamp],
    make_exits: MakeExits | None = None,
) -> list[Costs]:
    """Time whole forwards with and without exits: the minimum over interleaved runs, on batches of near-equal length.

    Of many sites after an attention some are timed, and a straight line over the layers is drawn through them: layers
    are alike, and what several timings agree on is less noisy than each of them.

    Args:
        models: forms of one model, each on its own backend; they are timed in turns, and score alike.
        rows: tokenised texts, or images, some hundred at least to speak for the lengths.
        off_ramps: E off-ramps in the order in which a batch meets their sites; those that read the same feature are
            taken to cost alike.
        make_exits: makes exit points of them; None: those of a policy.

    Returns:
        The costs of each of the models.
    """
    make_exits = make_exits or _exits
    # Off-ramps are of one kind if scoring by them costs the same: they read one feature. Those at the embeddings are a
    # kind of their own, for there the feature is not read off a peek. So is a bag of tokens, which alone reads ids.
    looks = [(off_ramp.feature, off_ramp.site == EMBEDDINGS) for off_ramp in off_ramps]
    kinds = sorted(set(looks))
    kind = np.array([kinds.index(look) for look in looks], np.int64)
    # A kind is timed by its first off-ramp, which scores all rows and lets none go; all leave at the next site, for
    # beside a short forward a small part is seen best.
    first = [off_ramps[looks.index(look)] for look in kinds]
    after = [_next_site(scoring, off_ramps) for scoring in first]
    timed = _timed_places(off_ramps, after)
    # The runs of a model, and columns of its times:
    #   0              no exits
    #   1 .. T         all rows leave by the off-ramp timed[t - 1]: the way there, and being scored by it
    #   T + 1 .. T + K of the first model alone: all rows are scored by the first off-ramp of kind k, and leave at the
    #                  next site (or at the end)
    # The run of kind k does what the run that leaves at that next site does (or run 0, for the end), and one scoring
    # more: their difference is the cost of scoring. Taking it from runs 1 .. T leaves the cost of the way.
    runs = [[{}, *(make_exits(model, leaving=off_ramps[place]) for place in timed)] for model in models]
    runs[0] += [
        make_exits(models[0], scoring=scoring, leaving=None if place is None else off_ramps[place])
        for scoring, place in zip(first, after, strict=True)
    ]
    row_lengths = models[0].lengths_of(rows)
    by_length = np.argsort(row_lengths, kind="stable")
    alike = row_lengths.min() == row_lengths.max()  # as those of images are
    places = [_around(by_length, row_lengths, share) for share in ((0.5,) if alike else _SHARES)]
    lengths = np.array([np.mean(row_lengths[some]) for some in places])
    order = np.argsort(lengths)  # batches of few rows, and of fewer the longer they are, overlap
    by_batch = [_time(models, runs, [rows[place] for place in places[batch]]) for batch in order]
    each = [np.array([batch[number][0] for batch in by_batch]) for number in range(len(models))]
    once = [np.median([batch[number][1] for batch in by_batch], axis=0) for number in range(len(models))]

    leaving, scored = slice(1, 1 + len(timed)), slice(1 + len(timed), None)
    unscored = [0 if place is None else 1 + timed.index(place) for place in after]
    scoring_each = np.maximum(each[0][:, scored] - each[0][:, unscored], 0)
    scoring_once = np.maximum(once[0][scored] - once[0][unscored], 0)
    return [
        Costs(
            lengths[order],
            np.maximum(
                np.hstack(
                    [_ways(of_model[:, leaving] - scoring_each[:, kind[timed]], timed, off_ramps), of_model[:, :1]]
                ),
                _LEAST_SECONDS,
            ),
            scoring_each[:, kind],
            np.append(scoring_once[kind], max(fixed[0], 0)) / _BATCH_ROWS,
        )
        for of_model, fixed in zip(each, once, strict=True)
    ]


def _timed_places(off_ramps: Sequence[AnyOffRamp], after: Sequence[int | None]) -> list[int]:
    """Return places of the off-ramps by which rows leave in timed runs, ascending: the first of each timed site.

    Those are all sites, but of the ones after an attention no more than `_TIMED_SITES`, evenly spread, and `after`.
    """
    sites = [str(off_ramp.site) for off_ramp in off_ramps]
    first = sorted({sites.index(site) for site in sites})
    attention = [place for place in first if layer_of_attention(sites[place]) is not None]
    spread = {attention[i] for i in np.linspace(0, len(attention) - 1, min(_TIMED_SITES, len(attention)), dtype=int)}
    return sorted({*(set(first) - set(attention)), *spread, *(place for place in after if place is not None)})


def _ways(seconds: NDArray[np.float64], timed: Sequence[int], off_ramps: Sequence[AnyOffRamp]) -> NDArray[np.float64]:
    """Return the seconds of the way to every off-ramp, (k, E), from those to some of them, (k, T)."""
    sites = [str(off_ramp.site) for off_ramp in off_ramps]
    layers = [
        (column, layer) for column, place in enumerate(timed) if (layer := layer_of_attention(sites[place])) is not None
    ]
    line = None
    if len(layers) > 1:
        numbers = np.array([layer for _, layer in layers])
        line = np.polynomial.polynomial.polyfit(numbers, seconds[:, [column for column, _ in layers]].T, 1)
    columns = []
    for site in sites:
        if line is not None and (layer := layer_of_attention(site)) is not None:
            columns.append(line[0] + line[1] * layer)
        else:
            columns.append(seconds[:, [sites[place] for place in timed].index(site)])
    return np.array(columns).T.reshape(len(seconds), len(sites))


def _next_site(off_ramp: AnyOffRamp, off_ramps: Sequence[AnyOffRamp]) -> int | None:
    """Return the index of the first off-ramp at a later site than that of `off_ramp`; None: there is none."""
    sites = [other.site for other in off_ramps]
    place = len(sites) - sites[::-1].index(off_ramp.site)
    return place if place < len(sites) else None


def _exits(
    model: EarlyExitClassifier, *, scoring: AnyOffRamp | None = None, leaving: AnyOffRamp | None = None
) -> Mapping[str, ExitPoint]:
    """Compile an off-ramp that scores rows and lets none go, and one by which all leave."""
    policy = model.policy.without_exits()
    for off_ramp, threshold in ((scoring, np.inf), (leaving, -np.inf)):
        if off_ramp is not None:
            thresholds = np.full_like(off_ramp.thresholds, threshold)
            policy.add(Exit.of(replace(off_ramp, thresholds=thresholds), str(off_ramp.site)))
    return compile_exits(policy)


def _around(by_length: NDArray[np.int64], lengths: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return places of as many rows as a batch usually has, around a share of rows whose places stand by length."""
    middle = int(share * (len(by_length) - 1))
    count = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // int(lengths[by_length[middle]])))
    first = max(0, min(middle - count // 2, len(by_length) - count))
    return by_length[first : first + count]


def _time(
    models: Sequence[EarlyExitClassifier], runs: Sequence[Sequence[Mapping[str, ExitPoint]]], batch: Sequence[Any]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return, of each model, seconds by run, (runs,) each: those of one row, and the fixed ones of the batch.

    A batch of a single row has no smaller one: all its time counts as that row's.
    """
    few = batch[::_FEWER]
    timers = [
        partial(seconds_of, partial(_forward, model, exits, model.batch_of(together)))
        for model, of_model in zip(models, runs, strict=True)
        for together in (batch, few)
        for exits in of_model
    ]
    times = fastest(timers, fewest=_FEWEST_RUNS, most=_MOST_RUNS, budget=_SECONDS)
    ends = np.cumsum([2 * len(of_model) for of_model in runs])
    found = []
    for many_seconds, few_seconds in (part.reshape(2, -1) for part in np.split(times, ends[:-1])):
        if len(few) == len(batch):
            found.append((many_seconds, np.zeros_like(many_seconds)))
            continue
        each = np.maximum(many_seconds - few_seconds, 0) / (len(batch) - len(few))
        found.append((each, many_seconds - len(batch) * each))
    return found


def _forward(model: EarlyExitClassifier, exits: Mapping[str, ExitPoint], batch: Any) -> None:
    """Run a batch to its end, its results on the CPU."""
    model.run_batch(exits, batch)
