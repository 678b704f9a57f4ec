"""What it costs a row to leave at a site, or to run to the end: timed on this machine, for these lengths."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.batches import Encoded, pad
from moco_rt.exits import ExitPoint, compile_exits
from moco_rt.policy import Exit, Policy
from moco_rt.rules import OffRamp
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

#: Lengths are timed at these shares of the rows; what lies between is interpolated.
_SHARES = (0.02, 0.25, 0.5, 0.75, 0.98)
_BATCH_ROWS = 64
_BATCH_TOKENS = 4096
_REPETITIONS = 3


@dataclass(frozen=True)
class Costs:
    """Seconds for a row, by its length.

    Attributes:
        lengths: (k,) ascending tokens at which times were taken.
        seconds: (k, E + 1), of a row that leaves at a site, the only one with an exit, or runs to the end.
        exit_point: (k,), of meeting an off-ramp without leaving.
    """

    lengths: NDArray[np.float64]
    seconds: NDArray[np.float64]
    exit_point: NDArray[np.float64]

    def of(self, lengths: NDArray[np.int64], sites: Sequence[int]) -> NDArray[np.float64]:
        """(n, len(sites) + 1): rows of these lengths where only some sites have exits."""
        met = np.interp(lengths, self.lengths, self.exit_point)
        columns = [
            np.interp(lengths, self.lengths, self.seconds[:, site]) + before * met
            for before, site in enumerate([*sites, self.seconds.shape[1] - 1])
        ]
        return np.column_stack(columns)


def measure_costs(
    model: EarlyExitTextClassificationModel,
    rows: Sequence[Encoded],
    sites: Sequence[str],
    off_ramp: OffRamp,
) -> Costs:
    """Time whole forwards in which all rows leave at one site, none leaves though all sites ask, and none is asked.

    The fastest of interleaved runs, whom nobody else's work held up, on batches of rows of nearly one length.

    Args:
        model: on its own backend and threads.
        rows: tokenised, some hundred at least to speak for the lengths.
        sites: E names.
        off_ramp: one like those that will stand there.
    """
    always = replace(off_ramp, thresholds=np.full_like(off_ramp.thresholds, -np.inf), site=None)
    never = replace(off_ramp, thresholds=np.full_like(off_ramp.thresholds, np.inf), site=None)
    variants = [_exits(model, {site: always}) for site in sites]
    variants += [{}, _exits(model, dict.fromkeys(sites, never))]
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    lengths, seconds = [], []
    for share in _SHARES:
        batch = _around(by_length, share)
        inputs = pad(batch, model.device)
        times = np.empty((_REPETITIONS + 1, len(variants)))
        for repetition in range(len(times)):
            for place, exits in enumerate(variants):
                start = time.perf_counter()
                model.run(exits, **inputs)
                if model.device.type == "cuda":
                    torch.cuda.synchronize()
                times[repetition, place] = time.perf_counter() - start
        lengths.append(np.mean([len(row["input_ids"]) for row in batch]))
        seconds.append(times[1:].min(axis=0) / len(batch))
    order = np.argsort(lengths)
    of_length = np.array(seconds)[order]
    none, all_ask = of_length[:, -2], of_length[:, -1]
    return Costs(np.array(lengths)[order], of_length[:, :-1], np.maximum(all_ask - none, 0) / len(sites))


def _exits(model: EarlyExitTextClassificationModel, off_ramps: Mapping[str, OffRamp]) -> Mapping[str, ExitPoint]:
    policy = Policy(model.sites, model.policy.num_classes, model.policy.hidden_size)
    for site, off_ramp in off_ramps.items():
        policy.add(Exit.of(off_ramp, site))
    return compile_exits(policy, model.device)


def _around(by_length: Sequence[Encoded], share: float) -> Sequence[Encoded]:
    """Rows about a place in the order of lengths: as many as a batch usually has."""
    middle = int(share * (len(by_length) - 1))
    count = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // len(by_length[middle]["input_ids"])))
    first = max(0, min(middle - count // 2, len(by_length) - count))
    return by_length[first : first + count]
