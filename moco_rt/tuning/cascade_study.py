"""The exits of a cascade studied together: the exits inside its tiers, and the ends of all tiers but the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from moco_rt.cascades.tier import Tier, top_class
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import ExitCandidates, ScoredRows, Selection
from moco_rt.inputs.batching import BATCH_TOKENS
from moco_rt.inputs.texts import TextInput
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.fingerprints import run_identity
from moco_rt.statistics.calibration import fit_temperature
from moco_rt.studies.cascade_costs import CascadeCosts, WayOut
from moco_rt.studies.costs import Costs
from moco_rt.studies.recording import Recordings
from moco_rt.studies.splits import Split
from moco_rt.studies.study import Study, score_exits, study_forms
from moco_rt.studies.timing import fastest, seconds_of

#: Texts that a function, or a tokenizer, is timed on, and the runs of which the fastest counts.
_TIMED, _RUNS = 512, 3


@dataclass(frozen=True)
class CascadeStudy:
    """Scores and costs of all ways out of some tiers in one form, before a policy over all of them is chosen.

    Attributes:
        tiers: the aligned tiers that were studied.
        ways: W ways out, in the order in which rows meet them.
        candidates: the same in the form that `select` takes.
        temperatures: temperature of each tier's logits.
    """

    tiers: Sequence[Tier]
    ways: Sequence[WayOut]
    candidates: ExitCandidates
    temperatures: Sequence[float]


class _Scored(NamedTuple):
    """The scores of one tier on n rows, in the last tier's classes.

    Attributes:
        score: (E + 1, n) float32, by exit inside the tier, and of its end.
        predicted: (E + 1, n) int64 likewise.
        lengths: (n,) tokens.
    """

    score: NDArray[np.float32]
    predicted: NDArray[np.int64]
    lengths: NDArray[np.int64]


class _Studied(NamedTuple):
    """The findings about one tier in one form.

    Attributes:
        off_ramps: E exits inside it.
        costs: of leaving by them.
        temperature: of its logits.
        ordering: the rows that order policies.
        calibration: those that certify.
    """

    off_ramps: Sequence[AnyOffRamp]
    costs: Costs
    temperature: float
    ordering: _Scored
    calibration: _Scored


def study_tiers(forms: Mapping[str, Sequence[Tier]], split: Split, seed: int) -> list[CascadeStudy]:
    """Record texts on all tiers, fit exits and temperatures to the last tier's answers, and time what leaving costs.

    Args:
        forms: aligned tiers by the name of their form, first those that were given: whatever form runs, the answers of
            the last of these are learnt and counted. A tier may stand in several forms; exits of models take no part.
        split: the texts, tokenised for the last tier.
        seed: of the off-ramps.

    Returns:
        A study of each form.
    """
    given = next(iter(forms.values()))
    *before, last = zip(*forms.values(), strict=True)  # each tier in all forms
    of_last, teacher = _study_last(last, split, seed)
    studied = [*(_study_tier(tiers, given[-1], split, seed, teacher) for tiers in before), of_last]
    timed = split.texts[: split.calibration_start][-_TIMED:]
    encode = [seconds_of_text(tier.encode, timed) for tier in given]
    shares_tokens = np.array([[one.tokenises_like(other) for other in given] for one in given])
    truth = of_last[0]
    found = []
    for place, (name, tiers) in enumerate(forms.items()):
        known = [in_form[place] for in_form in studied]
        ways = _ways(known)
        candidates = ExitCandidates(
            sites=[way.site for way in ways],
            costs=CascadeCosts(ways, [tier.costs for tier in known], encode, shares_tokens),
            ordering=_joined([tier.ordering for tier in known], truth.ordering),
            calibration=_joined([tier.calibration for tier in known], truth.calibration),
            calibration_in_all=split.calibration_in_all,
            num_groups=teacher.shape[1],
            variant=name,
            groups=_starts(ways),
        )
        found.append(CascadeStudy(tiers, ways, candidates, [tier.temperature for tier in known]))
    return found


def other_tokens(tiers: Sequence[Tier]) -> list[Tier]:
    """Return the tiers that may tell texts apart which the last takes for one: one of those that do it alike."""
    found: list[Tier] = []
    for tier in tiers[:-1]:
        if not any(tier.tokenises_like(known) for known in [*found, tiers[-1]]):
            found.append(tier)
    return found


def _ways(studied: Sequence[_Studied]) -> list[WayOut]:
    """Return all ways out of tiers, but the end of the last, which all rows reach that leave by no other."""
    ways = [WayOut(number, way) for number, tier in enumerate(studied) for way in [*tier.off_ramps, None]]
    return ways[:-1]


def _joined(tiers: Sequence[_Scored], truth: _Scored) -> ScoredRows:
    """Return the rows of one job scored by all ways out; truth: the last tier as it was given, whose end counts."""
    score, predicted = (np.concatenate([getattr(tier, name) for tier in tiers]) for name in ("score", "predicted"))
    nan = np.isnan([truth.score[-1], score[-1]])
    scores = ExitScores.of_labels(predicted[:-1], score[:-1], truth.predicted[-1], predicted[-1], nan)
    return ScoredRows(scores, np.array([tier.lengths for tier in tiers]))


def build_tiers(found: CascadeStudy, chosen: Selection, given: Tier) -> tuple[list[Tier], Certificate]:
    """Build the tiers that a selection uses, with exits, thresholds and temperatures, and name the certificate's exits.

    Args:
        found: the study of the form that was selected; models of the tiers that are used get their exits.
        chosen: the selected ways out.
        given: the last tier as it was given, whose answers the certificate is about.
    """
    tiers, last = found.tiers, len(found.tiers) - 1
    used = _used_tiers(found, chosen)
    # A tier that is used for its exits alone hands all other rows over.
    thresholds = {number: np.full(found.candidates.num_groups, np.inf, np.float32) for number in used if number < last}
    for number in used:
        tier = tiers[number]
        if tier.tokenizer is not None:
            made_for = run_identity(tier.model.model, tier.tokenizer, tier.max_length)
            tier.model.policy = tier.model.policy.without_exits(made_for)
    if given.model is not tiers[last].model:
        tiers[last].model.take_given(given.model)
    renamed = names_in_use(found, chosen)
    for place, levels in zip(chosen.places, chosen.thresholds, strict=True):
        way = found.ways[place]
        tier = tiers[way.tier]
        if way.off_ramp is None:
            thresholds[way.tier] = levels.copy()
        else:
            own = _class_permutation(tier)
            ramp = replace(way.off_ramp, thresholds=levels[own], bounds=chosen.bounds(way.site)[own])
            tier.model.add_off_ramp(ramp, str(ramp.site))
    exits = tuple(replace(count, site=renamed[count.site]) for count in chosen.certificate.exits)
    built = [
        replace(
            tiers[number],
            temperature=found.temperatures[number],
            thresholds=torch.from_numpy(thresholds[number]) if number < last else None,
        )
        for number in used
    ]
    return built, replace(chosen.certificate, exits=exits)


def names_in_use(found: CascadeStudy, chosen: Selection) -> dict[str, str]:
    """Return names of the chosen ways out, in their order, as tiers are numbered where those not used are left out."""
    used = _used_tiers(found, chosen)
    ways = [found.ways[place] for place in chosen.places]
    return {way.site: replace(way, tier=used.index(way.tier)).site for way in ways}


def _used_tiers(found: CascadeStudy, chosen: Selection) -> list[int]:
    """Return the numbers of the tiers that a selection uses, ascending."""
    return sorted({found.ways[place].tier for place in chosen.places} | {len(found.tiers) - 1})


def _starts(ways: Sequence[WayOut]) -> list[list[int]]:
    """Return where a search may start: the last tier's exits, all tiers' ends, all ways (indices of each)."""
    last = ways[-1].tier
    exits = [place for place, way in enumerate(ways) if way.tier == last]
    ends = [place for place, way in enumerate(ways) if way.off_ramp is None]
    return [exits, ends, [*range(len(ways))]]


def _study_last(tiers: Sequence[Tier], split: Split, seed: int) -> tuple[list[_Studied], NDArray[np.float32]]:
    """Study the last tier in all forms, of which some may be the same; gives also the logits (N, C) of the first."""
    models = _distinct(tiers)
    studies = study_forms(list(models.values()), split, seed=seed)
    known = {key: _scored(tiers[0], found, split, 1.0) for key, found in zip(models, studies, strict=True)}
    return [known[id(tier.model)] for tier in tiers], studies[0].logits


def _study_tier(
    tiers: Sequence[Tier], last: Tier, split: Split, seed: int, teacher: NDArray[np.float32]
) -> list[_Studied]:
    """Study a tier before the last in all forms, of which some may be the same.

    Args:
        tiers: the tier by form. A function has one form, and no exits.
        last: the last tier.
        split: the texts, tokenised for the last tier.
        seed: of the off-ramps.
        teacher: (N, C) the last tier's logits.
    """
    models = _distinct(tiers)
    first = tiers[0]
    if first.tokenizer is None:
        studies = [_study_function(first, split, teacher)]
    else:
        rows = split.rows if first.tokenises_like(last) else first.encode(split.texts)
        own = teacher[:, _class_permutation(first)]
        studies = study_forms(list(models.values()), split, seed=seed, rows=rows, teacher=own)
    targets = softmax(teacher[split.fit], axis=1)
    known = {}
    for key, found in zip(models, studies, strict=True):
        temperature = fit_temperature(_aligned(first, found)[split.fit], targets)
        known[key] = _scored(first, found, split, temperature)
    return [known[id(tier.model)] for tier in tiers]


def _distinct(tiers: Sequence[Tier]) -> dict[int, Any]:
    """Return the models, or the function, of a tier in several forms by who they are: functions need have no hash."""
    return {id(tier.model): tier.model for tier in tiers}


def _study_function(tier: Tier, split: Split, teacher: NDArray[np.float32]) -> Study:
    # Batches of a function keep the texts' order (`Tier.batches`): their answers, one after the other, are in it too.
    answers = [tier.answer([split.texts[i] for i in places]) for places in tier.batches(split.texts)]
    logits = torch.cat([answer.logits for answer in answers]).numpy()
    seconds = seconds_of_text(tier.answer, split.texts[: split.calibration_start][-_TIMED:])
    rows_seen = Recordings({}, logits, np.zeros(len(split.texts), np.int64), teacher)
    return Study(
        [],
        [],
        ordering=rows_seen.take(split.ordering),
        calibration=rows_seen.take(split.calibration),
        calibration_in_all=split.calibration_in_all,
        costs=Costs(np.zeros(1), np.full((1, 1), seconds), np.empty((1, 0)), np.zeros(1)),
        logits=logits,
    )


def _scored(tier: Tier, found: Study, split: Split, temperature: float) -> _Studied:
    """Score the rows of two jobs by a tier's exits and its end, and keep no more of its study than that."""
    score, predicted = top_class(torch.from_numpy(_aligned(tier, found)) / temperature)

    def of_job(rows: Recordings, places: slice) -> _Scored:
        inside = score_exits(found.off_ramps, rows)
        return _Scored(
            np.vstack([inside.score, score[places].numpy()]),
            np.vstack([_class_permutation(tier)[inside.group], predicted[places].numpy()]),
            rows.lengths,
        )

    costs = found.costs.at_batch_tokens(BATCH_TOKENS)
    ordering, calibration = of_job(found.ordering, split.ordering), of_job(found.calibration, split.calibration)
    return _Studied(found.off_ramps, costs, temperature, ordering, calibration)


def _aligned(tier: Tier, found: Study) -> NDArray[np.float32]:
    """Return a tier's logits in the last tier's order of classes: (N, C) float32."""
    assert tier.order is not None
    return np.ascontiguousarray(found.logits[:, tier.order.numpy()])


def _class_permutation(tier: Tier) -> NDArray[np.int64]:
    """Return (C,) int64, the last tier's number of each of a tier's own classes."""
    assert tier.order is not None
    order: NDArray[np.int64] = tier.order.argsort().numpy()
    return order


def seconds_of_text(work: Callable[[list[TextInput]], Any], texts: Sequence[TextInput]) -> float:
    """Return the seconds that some work on texts takes for one of them, by the fastest of several runs."""
    timer = partial(seconds_of, partial(work, list(texts)))
    return float(fastest([timer], fewest=_RUNS)[0]) / len(texts)
