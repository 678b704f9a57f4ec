"""The exits of a cascade studied together: the exits inside its tiers, and the ends of all tiers but the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
from moco_rt.studies.costs import Costs
from moco_rt.studies.recording import Recordings
from moco_rt.studies.splits import Split
from moco_rt.studies.study import Study, score_exits, study_model
from moco_rt.studies.timing import fastest, seconds_of

#: Texts that a function, or a tokenizer, is timed on, and the runs of which the fastest counts.
_TIMED, _RUNS = 512, 3


@dataclass(frozen=True)
class WayOut:
    """One way out of a cascade.

    Attributes:
        tier: number of the tier that it belongs to.
        off_ramp: an exit inside the tier; None: the tier's end.
    """

    tier: int
    off_ramp: AnyOffRamp | None

    @property
    def site(self) -> str:
        """Name of its place, unique in the cascade."""
        return f"tier {self.tier} {'end' if self.off_ramp is None else self.off_ramp.site}"


@dataclass(frozen=True)
class CascadeCosts:
    """Seconds of rows that leave a cascade, in full batches everywhere: rows that go on are pooled.

    Attributes:
        ways: W ways out, sorted by tier; within a tier the exits in the order of their sites, then its end.
        tiers: costs of each tier by itself, by its off-ramps in their order.
        encode: seconds by tier to tokenise a text.
        shares_tokens: (tiers, tiers) bool; [i, j]: tier i can reuse the tokens of tier j.
    """

    ways: Sequence[WayOut]
    tiers: Sequence[Costs]
    encode: Sequence[float]
    shares_tokens: NDArray[np.bool_]

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Return seconds (n, len(chosen) + 1), see `Costs.seconds`. A tier without a chosen way out is not run.

        Args:
            lengths: (tiers, n) tokens of the rows, by tier.
            chosen: ascending indices of the ways out that are used.
        """
        # Invariant: columns come out in the order of `chosen`, because `ways` are sorted by tier, and within a tier its
        # exits stand before its end, which is just how the loop below appends them. The last tier's end, which is not
        # among the ways, comes last.
        columns = []
        before = np.zeros(lengths.shape[1])
        previous: int | None = None
        for tier, costs in enumerate(self.tiers):
            last = tier == len(self.tiers) - 1
            own = [place for place, way in enumerate(self.ways) if way.tier == tier and way.off_ramp is not None]
            exits = [own.index(place) for place in chosen if place in own]
            handed_over = any(self.ways[place].tier == tier and self.ways[place].off_ramp is None for place in chosen)
            if not (exits or handed_over or last):
                continue
            encoded = previous is not None and self.shares_tokens[tier, previous]
            seconds = before[:, None] + costs.seconds(lengths[tier], exits) + (0.0 if encoded else self.encode[tier])
            previous = tier
            columns += [seconds[:, place] for place in range(len(exits))]
            before = seconds[:, -1]
            if handed_over or last:
                columns.append(before)
        return np.column_stack(columns)


@dataclass(frozen=True)
class CascadeStudy:
    """Scores and costs of all ways out of some tiers, before a policy over all of them is chosen.

    Attributes:
        ways: W ways out, in the order in which rows meet them.
        candidates: the same in the form that `select` takes.
        temperatures: temperature of each tier's logits.
    """

    ways: Sequence[WayOut]
    candidates: ExitCandidates
    temperatures: Sequence[float]


def study_tiers(tiers: Sequence[Tier], split: Split, seed: int) -> CascadeStudy:
    """Record texts on all tiers, fit exits and temperatures to the last tier's answers, and time what leaving costs.

    Args:
        tiers: aligned tiers; their exits take no part.
        split: the texts, tokenised for the last tier.
        seed: of the off-ramps.
    """
    last = study_model(tiers[-1].model, split, seed=seed)
    teacher = last.logits
    studies = [*(_study_tier(tier, tiers[-1], split, seed, teacher) for tier in tiers[:-1]), last]
    temperatures = [
        fit_temperature(_aligned(tier, found)[split.fit], softmax(teacher[split.fit], axis=1))
        for tier, found in zip(tiers[:-1], studies, strict=False)
    ]
    temperatures.append(1.0)
    ways = [
        WayOut(place, off_ramp)
        for place, found in enumerate(studies)
        for off_ramp in [*found.off_ramps, *([None] if place < len(tiers) - 1 else [])]
    ]
    ends = []
    for tier, found, temperature in zip(tiers, studies, temperatures, strict=True):
        score, predicted = top_class(torch.from_numpy(_aligned(tier, found)) / temperature)
        ends.append((score.numpy(), predicted.numpy()))

    def scored(recordings: Sequence[Recordings], places: slice) -> ScoredRows:
        scores = _score_ways(tiers, recordings, ways, [(score[places], label[places]) for score, label in ends])
        return ScoredRows(scores, np.array([rows.lengths for rows in recordings]))

    candidates = ExitCandidates(
        sites=[way.site for way in ways],
        costs=_cascade_costs(tiers, studies, ways, split),
        ordering=scored([found.ordering for found in studies], split.ordering),
        calibration=scored([found.calibration for found in studies], split.calibration),
        calibration_in_all=split.calibration_in_all,
        num_groups=teacher.shape[1],
        groups=_starts(ways),
    )
    return CascadeStudy(ways, candidates, temperatures)


def build_tiers(tiers: Sequence[Tier], found: CascadeStudy, chosen: Selection) -> tuple[list[Tier], Certificate]:
    """Build the tiers that a selection uses, with exits, thresholds and temperatures, and name the certificate's exits.

    Args:
        tiers: the aligned tiers that were studied; models of those that are used get their exits.
        found: the study.
        chosen: the selected ways out.
    """
    last = len(tiers) - 1
    used = _used_tiers(tiers, found, chosen)
    # A tier that is used for its exits alone hands all other rows over.
    thresholds = {number: np.full(found.candidates.num_groups, np.inf, np.float32) for number in used if number < last}
    for number in used:
        tier = tiers[number]
        if tier.tokenizer is not None:
            made_for = run_identity(tier.model.model, tier.tokenizer, tier.max_length)
            tier.model.policy = tier.model.policy.without_exits(made_for)
    renamed = names_in_use(tiers, found, chosen)
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


def names_in_use(tiers: Sequence[Tier], found: CascadeStudy, chosen: Selection) -> dict[str, str]:
    """Return names of the chosen ways out, in their order, as tiers are numbered where those not used are left out."""
    used = _used_tiers(tiers, found, chosen)
    ways = [found.ways[place] for place in chosen.places]
    return {way.site: replace(way, tier=used.index(way.tier)).site for way in ways}


def _used_tiers(tiers: Sequence[Tier], found: CascadeStudy, chosen: Selection) -> list[int]:
    """Return the numbers of the tiers that a selection uses, ascending."""
    return sorted({found.ways[place].tier for place in chosen.places} | {len(tiers) - 1})


def _starts(ways: Sequence[WayOut]) -> list[list[int]]:
    """Return where a search may start: the last tier's exits, all tiers' ends, all ways (indices of each)."""
    last = ways[-1].tier
    exits = [place for place, way in enumerate(ways) if way.tier == last]
    ends = [place for place, way in enumerate(ways) if way.off_ramp is None]
    return [exits, ends, [*range(len(ways))]]


def seconds_of_text(work: Callable[[list[TextInput]], Any], texts: Sequence[TextInput]) -> float:
    """Return the seconds that some work on texts takes for one of them, by the fastest of several runs."""
    timer = partial(seconds_of, partial(work, list(texts)))
    return float(fastest([timer], fewest=_RUNS)[0]) / len(texts)


def _class_permutation(tier: Tier) -> NDArray[np.int64]:
    """Return (C,) int64, the last tier's number of each of a tier's own classes."""
    assert tier.order is not None
    order: NDArray[np.int64] = tier.order.argsort().numpy()
    return order


def _aligned(tier: Tier, found: Study) -> NDArray[np.float32]:
    """Return a tier's logits in the last tier's order of classes: (N, C) float32."""
    assert tier.order is not None
    return np.ascontiguousarray(found.logits[:, tier.order.numpy()])


def _study_tier(tier: Tier, last: Tier, split: Split, seed: int, teacher: NDArray[np.float32]) -> Study:
    """Study a tier before the last, whose logits the teacher's are. A function has no exits."""
    if tier.tokenizer is not None:
        own = teacher[:, _class_permutation(tier)]
        rows = split.rows if tier.tokenises_like(last) else tier.encode(split.texts)
        return study_model(tier.model, split, seed=seed, rows=rows, teacher=own)
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


def _cascade_costs(
    tiers: Sequence[Tier], studies: Sequence[Study], ways: Sequence[WayOut], split: Split
) -> CascadeCosts:
    """Put the costs of the tiers together, with the time that tokenising takes."""
    timed = split.texts[: split.calibration_start][-_TIMED:]
    return CascadeCosts(
        ways,
        [found.costs.at_batch_tokens(BATCH_TOKENS) for found in studies],
        [seconds_of_text(tier.encode, timed) for tier in tiers],
        np.array([[one.tokenises_like(other) for other in tiers] for one in tiers]),
    )


def _score_ways(
    tiers: Sequence[Tier],
    recordings: Sequence[Recordings],
    ways: Sequence[WayOut],
    ends: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> ExitScores:
    """Score the rows of one job by all ways out, in the last tier's classes.

    Args:
        tiers: all tiers.
        recordings: of these n rows, by tier.
        ways: W ways out.
        ends: by tier, highest probability (n,) and its class (n,) of the tier's own answer.
    """
    scores, predicted = [], []
    for way in ways:
        if way.off_ramp is None:
            score, label = ends[way.tier]
        else:
            inside = score_exits([way.off_ramp], recordings[way.tier])
            score, label = inside.score[0], _class_permutation(tiers[way.tier])[inside.group[0]]
        scores.append(score)
        predicted.append(label)
    return ExitScores.of_labels(np.array(predicted), np.array(scores), ends[-1][1])
