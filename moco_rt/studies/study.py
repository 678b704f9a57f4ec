"""Study: what must be known of a model before a policy is chosen: off-ramps, recorded rows, and costs of leaving."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures import SINGLE_LABEL, Task
from moco_rt.architectures.sites import EMBEDDINGS, TOKENS
from moco_rt.certification.certificate import GIVEN
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import ExitCandidates, RowsInAll, ScoredRows
from moco_rt.policies.bag_of_tokens import AnyOffRamp, BagOfTokens
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.exit_points import compare_answers, compile_bag, compile_off_ramp
from moco_rt.studies.costs import Costs, measure_costs
from moco_rt.studies.distillation import fit_bag, fit_off_ramp, unfitted_bag, unfitted_off_ramp
from moco_rt.studies.duration import in_words, seconds_to_fit, seconds_to_record
from moco_rt.studies.recording import Recordings, record
from moco_rt.studies.splits import Split

#: Rows whose lengths costs are measured at.
_COST_ROWS = 2000
#: Seconds of recording that nobody needs to be told of.
_BRIEF = 5.0


@dataclass(frozen=True)
class Study:
    """Off-ramps of one model, the rows of two jobs recorded on it, and the costs of leaving.

    Attributes:
        off_ramps: E off-ramps to choose from, in the order in which a batch meets their sites, of models that take
            texts a bag of tokens first; no row leaves by them yet.
        baseline_off_ramps: those of one layer on the first token, one after each attention, as published methods use.
        ordering: recordings of the rows that order policies.
        calibration: recordings of the rows that certify.
        calibration_in_all: the calibration rows with their copies and, where known, true classes.
        costs: cost of leaving by each of the off-ramps, or of running to the end.
        logits: (N, C) float32 logits of the model on the rows of all three jobs.
        task: what "the same answer" means.
    """

    off_ramps: Sequence[AnyOffRamp]
    baseline_off_ramps: Sequence[OffRamp]
    ordering: Recordings
    calibration: Recordings
    calibration_in_all: RowsInAll
    costs: Costs
    logits: NDArray[np.float32]
    task: Task = SINGLE_LABEL

    @property
    def sites(self) -> list[str]:
        """Site of each of the off-ramps."""
        return [str(off_ramp.site) for off_ramp in self.off_ramps]

    def candidates(self, variant: str = GIVEN) -> ExitCandidates:
        """Score all rows by all off-ramps: the form that `select` takes. variant: its name."""
        ordering, calibration = (
            ScoredRows(score_exits(self.off_ramps, rows, self.task), rows.lengths)
            for rows in (self.ordering, self.calibration)
        )
        return ExitCandidates(
            self.sites,
            self.costs,
            ordering,
            calibration,
            self.calibration_in_all,
            self.task.groups(self.calibration.logits.shape[1]),
            variant,
            answer=self.task.answer,
        )


def study_model(
    model: EarlyExitClassifier, split: Split, *, seed: int, teacher: NDArray[np.float32] | None = None
) -> Study:
    """Study one model, see `study_forms`."""
    return study_forms([model], split, seed=seed, teacher=teacher)[0]


def study_forms(
    models: Sequence[EarlyExitClassifier],
    split: Split,
    *,
    seed: int,
    rows: Sequence[Any] | None = None,
    teacher: NDArray[np.float32] | None = None,
) -> list[Study]:
    """Record rows on each form, distil off-ramps from some of them, and time what leaving costs.

    Every form has off-ramps of its own, which read its own features: in int8 those differ enough that off-ramps of the
    model as it was given would err much more often. All learn the answers of the first model. A bag of tokens reads ids
    alone: all forms have the same.

    Args:
        models: forms of one model, the first as it was given; their exits take no part, but the task of their policies
            says what the answers are.
        split: the rows of the three jobs.
        seed: of the off-ramps.
        rows: the split's N texts as the models' tokenizer tokenises them; None: `split.rows`.
        teacher: (N, C) logits that off-ramps learn and whose labels count; None: the first model's own.

    Returns:
        A study of each of the models.
    """
    rows = split.rows if rows is None else rows
    sites = candidate_sites(models[0])
    unfitted = _unfitted(models[0], sites)
    costs = measure_costs(models, rows[: split.calibration_start][-_COST_ROWS:], unfitted)
    _announce(models[0], costs, unfitted, split, rows)
    studies: list[Study] = []
    bags: list[BagOfTokens] = []
    for model, of_model in zip(models, costs, strict=True):
        recorded = record(model, rows, sites, desc=f"record {numeric_form(model.model)}")
        teacher = recorded.logits if teacher is None else teacher
        recorded = replace(recorded, given=teacher)
        bags = bags if studies else _fit_bags(recorded, split, seed, model.policy.task)
        studies.append(_study_recorded(recorded, split, of_model, seed, bags, model.policy.task))
        del recorded  # features take much memory: of all rows only those of one form are held at a time
    return studies


def _announce(
    model: EarlyExitClassifier,
    costs: Sequence[Costs],
    off_ramps: Sequence[AnyOffRamp],
    split: Split,
    rows: Sequence[Any],
) -> None:
    """Say what the study will take, where that is long enough to be worth a line above the progress bars."""
    to_record = seconds_to_record(costs, model.lengths_of(rows), off_ramps)
    if to_record < _BRIEF:
        return
    fitted = len(rows[split.fit])
    to_fit = len(costs) * seconds_to_fit(off_ramps, fitted, model.policy.num_classes, model.policy.task)
    forms = "1 numeric form" if len(costs) == 1 else f"{len(costs)} numeric forms"
    tqdm.write(
        f"{in_words(to_record + to_fit)}: {in_words(to_record)} to record {len(rows):,} rows in {forms}, "
        f"{in_words(to_fit)} to fit off-ramps",
        file=sys.stderr,
    )


def _fit_bags(recorded: Recordings, split: Split, seed: int, task: Task) -> list[BagOfTokens]:
    """Fit the bag of tokens that all forms share, for it reads nothing that they compute; none where no ids are."""
    if recorded.tokens is None:
        return []
    return [fit_bag(recorded.take(split.fit).finite(), recorded.take(split.ordering).finite(), seed, task)]


def _study_recorded(
    recorded: Recordings, split: Split, costs: Costs, seed: int, bags: Sequence[BagOfTokens], task: Task
) -> Study:
    """Distil off-ramps from the rows that train them, and keep the rows of the other two jobs."""
    fit_rows, held_out = recorded.take(split.fit).finite(), recorded.take(split.ordering).finite()
    fitted = [
        fit_off_ramp(site, feature, fit_rows, held_out, seed, task)
        for site in tqdm(recorded.features, desc="off-ramps", delay=2, leave=False)
        for feature in _features(site)
    ]
    return Study(
        off_ramps=[*bags, *(better for better, _ in fitted)],
        baseline_off_ramps=[simple for _, simple in fitted if simple.feature == "cls"],
        ordering=recorded.take(split.ordering).copy(),
        calibration=recorded.take(split.calibration).copy(),
        calibration_in_all=split.calibration_in_all,
        costs=costs,
        logits=recorded.logits,
        task=task,
    )


def _unfitted(model: EarlyExitClassifier, sites: Sequence[str]) -> list[AnyOffRamp]:
    """Return off-ramps like those that will be fitted, to time what leaving by them costs."""
    size, classes, task = model.policy.hidden_size, model.policy.num_classes, model.policy.task
    bags = [unfitted_bag(classes, task)] if TOKENS in sites else []
    return [
        *bags,
        *(unfitted_off_ramp(site, feature, size, classes, task) for site in sites for feature in _features(site)),
    ]


def candidate_sites(model: EarlyExitClassifier) -> list[str]:
    """Return the sites where off-ramps are tried, in the order in which a batch meets them.

    Of texts `tokens`, then the embeddings, and a peek after the attention of all layers but one: after the last nothing
    is left to save. A peek after a whole layer would have to run its feed-forward network too, which holds most of a
    layer's weights.
    """
    attentions = [site for site in model.sites if site.endswith(".attention")]
    return [*([TOKENS] if TOKENS in model.sites else []), EMBEDDINGS, *attentions[:-1]]


def score_exits(off_ramps: Sequence[AnyOffRamp], rows: Recordings, task: Task = SINGLE_LABEL) -> ExitScores:
    """Score recorded rows by off-ramps, each with its site, with the code that will score them in the model.

    Args:
        off_ramps: E off-ramps of the task.
        rows: n recorded rows.
        task: what the answers are.
    """
    answers = (_answer(off_ramp, rows) for off_ramp in off_ramps)
    return compare_answers(task, answers, rows.given, rows.logits, rows.dtype)


def _feature(off_ramp: OffRamp, rows: Recordings) -> Tensor:
    """Return what an off-ramp reads of recorded rows: (N, size) float32."""
    assert off_ramp.site is not None
    return torch.from_numpy(rows.feature(off_ramp.site, off_ramp.feature))


def _answer(off_ramp: AnyOffRamp, rows: Recordings) -> tuple[Tensor, Tensor]:
    """Return scores and predicted classes of recorded rows, (2, N), and what they would leave with, (N, C)."""
    if isinstance(off_ramp, BagOfTokens):
        return compile_bag(off_ramp).answer(rows.batch())
    return compile_off_ramp(off_ramp).answer(_feature(off_ramp, rows))


def _features(site: str) -> Sequence[str]:
    """Return the features to try at a site. The mean costs time, but before attention all first tokens are equal."""
    if site == TOKENS:
        return ()  # nothing is embedded yet: a bag of tokens reads the ids
    return ("cls+mean",) if site == EMBEDDINGS else ("cls", "cls+mean")
