"""What it costs a row to leave by an off-ramp, or to run to the end: timed on this machine, for these lengths."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.architectures.sites import EMBEDDINGS
from moco_rt.inputs.batching import pad
from moco_rt.inputs.tokenization import Encoded
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.policy import Exit
from moco_rt.runtime.exit_points import ExitPoint, compile_exits
from moco_rt.runtime.model import EarlyExitTextClassificationModel

#: Lengths are timed at these shares of the rows; what lies between is interpolated.
_SHARES = (0.02, 0.25, 0.5, 0.75, 0.98)
#: Rows that share what a batch pays once.
_BATCH_ROWS = 64
#: Of long rows fewer are timed.
_BATCH_TOKENS = 4096
#: What grows with the rows is told from what does not by batches of so many times fewer.
_FEWER = 4
#: Of so many runs at least, and at most, the fastest counts; in between as many as so many seconds hold.
_FEWEST_RUNS, _MOST_RUNS, _SECONDS = 3, 20, 0.6


@dataclass(frozen=True)
class Costs:
    """Seconds of rows in batches of 64.

    A batch of few rows takes longer for each: weights are read whatever the rows. As rows leave, batches shrink, and
    what is saved is what grows with the rows; the rest is paid once by the batch, and here shared by all its rows.

    Attributes:
        lengths: (k,) ascending tokens at which times were taken.
        compute: (k, E + 1), seconds of a row up to an off-ramp's site, or to the end, without scoring.
        scoring: (k, E), seconds of a row for being scored by an off-ramp.
        fixed: (E + 1,), seconds that a batch costs whatever its rows, for an off-ramp (last: for the model itself),
            divided by the rows of a batch.
    """

    lengths: NDArray[np.float64]
    compute: NDArray[np.float64]
    scoring: NDArray[np.float64]
    fixed: NDArray[np.float64]

    def at_batch_tokens(self, tokens: int) -> Costs:
        """The same in batches of so many tokens, of which more rows share what a batch pays once."""
        rows = max(_BATCH_ROWS, tokens / max(1.0, float(self.lengths.mean())))
        return replace(self, fixed=self.fixed * _BATCH_ROWS / rows)

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """(n, len(chosen) + 1): rows of these lengths that leave by one of the chosen off-ramps, or run to the end."""
        asked = [np.interp(lengths, self.lengths, self.scoring[:, place]) for place in chosen]
        paid = np.cumsum([*asked, np.zeros(len(lengths))], axis=0)
        reached = [np.interp(lengths, self.lengths, self.compute[:, place]) for place in [*chosen, -1]]
        seconds: NDArray[np.float64] = np.array(reached) + paid + self.fixed[[*chosen, -1]].sum()
        return seconds.T


def measure_costs(
    model: EarlyExitTextClassificationModel, rows: Sequence[Encoded], off_ramps: Sequence[OffRamp]
) -> Costs:
    """Time whole forwards: without exits, with all rows leaving by one off-ramp, and with all asked by one before that.

    The fastest of interleaved runs, whom nobody else's work held up, on batches of rows of nearly one length.

    Args:
        model: on its own backend and threads.
        rows: tokenised, some hundred at least to speak for the lengths.
        off_ramps: E of them, in the order of their sites; those that look at the same are taken to cost alike.
    """
    # Nothing is peeked at the embeddings.
    looks = [(off_ramp.feature, off_ramp.site == EMBEDDINGS) for off_ramp in off_ramps]
    kinds = sorted(set(looks))
    kind = [kinds.index(look) for look in looks]
    # Asked by the first of its kind, all leave at the next site: of a short forward a small part is seen best.
    first = [off_ramps[looks.index(look)] for look in kinds]
    after = [_next_site(asking, off_ramps) for asking in first]
    variants = [{}, *(_exits(model, leaving=off_ramp) for off_ramp in off_ramps)]
    variants += [
        _exits(model, asking=asking, leaving=None if place is None else off_ramps[place])
        for asking, place in zip(first, after, strict=True)
    ]
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    batches = [_around(by_length, share) for share in _SHARES]
    lengths = np.array([np.mean([len(row["input_ids"]) for row in batch]) for batch in batches])
    each, once = (np.array(part) for part in zip(*(_time(model, variants, batch) for batch in batches), strict=True))
    order = np.argsort(lengths)  # batches of few rows, and of fewer the longer they are, overlap
    each, once = each[order], np.median(once, axis=0)

    unasked = [0 if place is None else 1 + place for place in after]
    asked = slice(1 + len(off_ramps), None)
    ask = np.maximum(each[:, asked] - each[:, unasked], 0)[:, kind]
    ask_once = np.maximum(once[asked] - once[unasked], 0)[kind]
    leave, full = each[:, 1 : 1 + len(off_ramps)], each[:, :1]
    return Costs(
        lengths[order],
        np.hstack([np.maximum(leave - ask, 0), full]),
        ask,
        np.append(ask_once, max(once[0], 0)) / _BATCH_ROWS,
    )


def _next_site(off_ramp: OffRamp, off_ramps: Sequence[OffRamp]) -> int | None:
    """The place of the first off-ramp at a later site than that of one of them."""
    sites = [other.site for other in off_ramps]
    place = len(sites) - sites[::-1].index(off_ramp.site)
    return place if place < len(sites) else None


def _exits(
    model: EarlyExitTextClassificationModel, *, asking: OffRamp | None = None, leaving: OffRamp | None = None
) -> Mapping[str, ExitPoint]:
    """An off-ramp by which nobody leaves, and one by which everybody does."""
    policy = model.policy.without_exits()
    for off_ramp, threshold in ((asking, np.inf), (leaving, -np.inf)):
        if off_ramp is not None:
            thresholds = np.full_like(off_ramp.thresholds, threshold)
            policy.add(Exit.of(replace(off_ramp, thresholds=thresholds), str(off_ramp.site)))
    return compile_exits(policy, model.device)


def _around(by_length: Sequence[Encoded], share: float) -> Sequence[Encoded]:
    """Rows about a place in the order of lengths: as many as a batch usually has."""
    middle = int(share * (len(by_length) - 1))
    count = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // len(by_length[middle]["input_ids"])))
    first = max(0, min(middle - count // 2, len(by_length) - count))
    return by_length[first : first + count]


def _time(
    model: EarlyExitTextClassificationModel, variants: Sequence[Mapping[str, ExitPoint]], batch: Sequence[Encoded]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds by variant: of each row, and of the batch whatever its rows. Of a single row all are its own."""
    few = batch[::_FEWER]
    many_seconds, few_seconds = _fastest(model, variants, [batch, few])
    if len(few) == len(batch):
        return many_seconds, np.zeros_like(many_seconds)
    each = np.maximum(many_seconds - few_seconds, 0) / (len(batch) - len(few))
    return each, many_seconds - len(batch) * each


def _fastest(
    model: EarlyExitTextClassificationModel,
    variants: Sequence[Mapping[str, ExitPoint]],
    batches: Sequence[Sequence[Encoded]],
) -> NDArray[np.float64]:
    """Seconds of a forward by batch and variant; what warms up is not the fastest."""
    inputs = [pad(batch, model.device) for batch in batches]
    fastest = np.full((len(batches), len(variants)), np.inf)
    spent = np.zeros_like(fastest)
    turns = np.random.default_rng(0)  # who comes after whom matters where forwards are short
    for run in range(_MOST_RUNS):
        for turn in turns.permutation(np.flatnonzero((spent < _SECONDS) | (run < _FEWEST_RUNS))):
            batch, variant = divmod(int(turn), len(variants))
            start = time.perf_counter()
            model.run(variants[variant], **inputs[batch])
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            spent[batch, variant] += seconds
            fastest[batch, variant] = min(fastest[batch, variant], seconds)
    return fastest
