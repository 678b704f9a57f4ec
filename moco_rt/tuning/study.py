"""What has to be known of a model before a policy is chosen: off-ramps, what rows do there, what leaving costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moco_rt.architectures.sites import EMBEDDINGS, attention_site
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.conditions import OffRamp
from moco_rt.runtime.exit_points import compile_off_ramp
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.tuning.costs import Costs, measure_costs
from moco_rt.tuning.distillation import fit_off_ramp
from moco_rt.tuning.recording import Recordings, record
from moco_rt.tuning.splits import Split

#: Rows that speak for the lengths when costs are measured.
_COST_ROWS = 2000


@dataclass(frozen=True)
class Study:
    """Rows apart for three jobs, and what was found on them.

    Attributes:
        off_ramps: those to choose from, in the order of their sites; nobody leaves by them yet.
        baseline_off_ramps: of one layer on the first token, one after each attention: those of the published methods.
        ordering: rows that order policies.
        calibration: rows that nothing has looked at: the certificate's.
        labels: (n,) true classes of the calibration rows, or None.
        costs: of leaving by each of them, or of running to the end.
        logits: (N, C) the model's own, of the rows of all three jobs.
    """

    off_ramps: Sequence[OffRamp]
    baseline_off_ramps: Sequence[OffRamp]
    ordering: Recordings
    calibration: Recordings
    labels: NDArray[np.int64] | None
    costs: Costs
    logits: NDArray[np.float32]

    @property
    def sites(self) -> list[str]:
        """Where each of the off-ramps stands."""
        return [str(off_ramp.site) for off_ramp in self.off_ramps]


def study(
    model: EarlyExitTextClassificationModel,
    tokenizer: Any,
    split: Split,
    *,
    max_length: int,
    seed: int,
    teacher: NDArray[np.float32] | None = None,
) -> Study:
    """Record texts, teach off-ramps on some of them, time what leaving costs.

    Args:
        model: with whatever exits: they take no part.
        tokenizer: the model's.
        split: the texts.
        max_length: in tokens.
        seed: of the off-ramps.
        teacher: (N, C) logits whose labels count, and that off-ramps learn; None: the model's own.
    """
    rows = encode(tokenizer, split.texts, max_length)
    sites = candidate_sites(model)
    recorded = record(model, rows, sites)
    taught = recorded if teacher is None else replace(recorded, logits=teacher)
    fit_rows, ordering_rows = (
        taught.take(slice(0, split.ordering_start)),
        taught.take(slice(split.ordering_start, split.calibration_start)),
    )
    fitted = [
        fit_off_ramp(site, feature, fit_rows, ordering_rows, seed)
        for site in tqdm(sites, desc="off-ramps", delay=2, leave=False)
        for feature in _features(site)
    ]
    off_ramps = [better for better, _ in fitted]
    return Study(
        off_ramps,
        baseline_off_ramps=[one for _, one in fitted if one.feature == "cls"],
        ordering=ordering_rows,
        calibration=taught.take(slice(split.calibration_start, None)),
        labels=split.labels,
        costs=measure_costs(model, rows[: split.calibration_start][-_COST_ROWS:], off_ramps),
        logits=recorded.logits,
    )


def candidate_sites(model: EarlyExitTextClassificationModel) -> list[str]:
    """Where off-ramps are tried: the embeddings, and a peek over the attention of every layer but the last.

    A peek over the whole layer would have to run its feed-forward network too, which is most of a layer's weights.
    """
    layers = len(model.sites) // 2
    return [EMBEDDINGS, *(attention_site(layer) for layer in range(layers - 1))]


def score_exits(off_ramps: Sequence[OffRamp], rows: Recordings) -> ExitScores:
    """What off-ramps, each of a known site, say of recorded rows, scored by the code that will score them later."""
    cpu = torch.device("cpu")
    scores = np.empty((len(off_ramps), 2, len(rows.lengths)), np.float32)
    for both, off_ramp in zip(scores, off_ramps, strict=True):
        assert off_ramp.site is not None
        x = torch.from_numpy(rows.feature(off_ramp.site, off_ramp.feature))
        both[:] = compile_off_ramp(off_ramp, cpu).score(x).numpy()
    return ExitScores(scores[:, 1].astype(np.int64), scores[:, 0], rows.labels)


def _features(site: str) -> Sequence[str]:
    """What off-ramps look at. Before any attention the first token is the same in every row; the mean costs time."""
    return ("cls+mean",) if site == EMBEDDINGS else ("cls", "cls+mean")
