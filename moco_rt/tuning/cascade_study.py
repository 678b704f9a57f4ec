"""All ways out of a cascade together: the exits inside its tiers, and the ends of all tiers but the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from moco_rt.cascades.tier import Tier, top_class
from moco_rt.certification.calibration import fit_temperature
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import ExitCandidates, Selection
from moco_rt.inputs.batching import BATCH_TOKENS
from moco_rt.inputs.texts import TextInput
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.fingerprints import run_identity
from moco_rt.tuning.costs import Costs
from moco_rt.tuning.recording import Recordings
from moco_rt.tuning.splits import Split
from moco_rt.tuning.study import Study, score_exits, study

#: Texts by which a function, or a tokenizer, is timed, and how often: the fastest counts.
_TIMED, _RUNS = 512, 3


@dataclass(frozen=True)
class WayOut:
    """One way out of a cascade.

    Attributes:
        tier: which it belongs to.
        off_ramp: an exit inside; None: the tier's end.
    """

    tier: int
    off_ramp: OffRamp | None

    @property
    def site(self) -> str:
        """Unique in the cascade."""
        return f"tier {self.tier} {'end' if self.off_ramp is None else self.off_ramp.site}"


@dataclass(frozen=True)
class CascadeCosts:
    """Seconds of rows that leave a cascade, full packs everywhere: rows that go on are pooled.

    Attributes:
        ways: all ways out.
        tiers: of each tier by itself, by its off-ramps in their order.
        encode: seconds by tier to encode a text.
        shares_tokens: (tiers, tiers) [i, j]: whether tier i can reuse the tokens of tier j.
    """

    ways: Sequence[WayOut]
    tiers: Sequence[Costs]
    encode: Sequence[float]
    shares_tokens: NDArray[np.bool_]

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """(n, len(chosen) + 1): see `Costs.seconds`; lengths (tiers, n). A tier none of whose ways is chosen is not run."""
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
    """What is found out about tiers before a policy over all of them is chosen.

    Attributes:
        ways: all ways out, in the order in which rows meet them.
        candidates: these exits in the form that `select` takes.
        temperatures: by tier.
    """

    ways: Sequence[WayOut]
    candidates: ExitCandidates
    temperatures: Sequence[float]

    def groups(self) -> list[list[int]]:
        """Places of the last tier's exits, of all tiers' ends, and of all ways: exits, a cascade, or both."""
        last = self.ways[-1].tier
        exits = [place for place, way in enumerate(self.ways) if way.tier == last]
        ends = [place for place, way in enumerate(self.ways) if way.off_ramp is None]
        return [exits, ends, [*range(len(self.ways))]]


def study_tiers(tiers: Sequence[Tier], split: Split, seed: int) -> CascadeStudy:
    """Record texts on all tiers, teach exits and temperatures what the last tier says, time what leaving costs.

    Args:
        tiers: aligned; their exits take no part.
        split: the texts.
        seed: of the off-ramps.
    """
    last = tiers[-1]
    studies = [study(last.model, last.tokenizer, split, max_length=last.max_length, seed=seed)]
    teacher = studies[0].logits
    studies = [*(_study(tier, split, seed, teacher) for tier in tiers[:-1]), *studies]
    timed = split.texts[: split.calibration_start][-_TIMED:]
    # Rows that go on are pooled: packs are full.
    costs = [found.costs.at_batch_tokens(BATCH_TOKENS) for found in studies]
    encode = [fastest(tier.encode, timed) for tier in tiers]
    shares_tokens = np.array([[one.tokenises_like(other) for other in tiers] for one in tiers])
    temperatures = [
        fit_temperature(_aligned(tier, found)[: split.ordering_start], softmax(teacher[: split.ordering_start], axis=1))
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
    path, calibration = (
        _answers(tiers, recordings, ways, [(score[rows], predicted[rows]) for score, predicted in ends])
        for recordings, rows in (
            ([found.ordering for found in studies], slice(split.ordering_start, split.calibration_start)),
            ([found.calibration for found in studies], slice(split.calibration_start, None)),
        )
    )
    candidates = ExitCandidates(
        sites=[way.site for way in ways],
        costs=CascadeCosts(ways, costs, encode, shares_tokens),
        ordering=path,
        ordering_lengths=np.array([found.ordering.lengths for found in studies]),
        calibration=calibration,
        calibration_lengths=np.array([found.calibration.lengths for found in studies]),
        labels=split.labels,
        num_classes=teacher.shape[1],
    )
    return CascadeStudy(ways, candidates, temperatures)


def build_tiers(tiers: Sequence[Tier], found: CascadeStudy, chosen: Selection) -> tuple[list[Tier], Certificate]:
    """The tiers that a selection uses, with their exits, thresholds and temperatures, and what is promised of them."""
    last = len(tiers) - 1
    used = sorted({found.ways[place].tier for place in chosen.places} | {last})
    for number in used:
        tier = tiers[number]
        tier.temperature = found.temperatures[number]
        tier.thresholds = None if number == last else torch.full((found.candidates.num_classes,), torch.inf)
        if tier.tokenizer is not None:
            made_for = run_identity(tier.model.model, tier.tokenizer, tier.max_length)
            tier.model.policy = tier.model.policy.without_exits(made_for)
    renamed = {}
    for place, levels in zip(chosen.places, chosen.thresholds, strict=True):
        way = found.ways[place]
        tier = tiers[way.tier]
        renamed[way.site] = replace(way, tier=used.index(way.tier)).site
        if way.off_ramp is None:
            tier.thresholds = torch.from_numpy(levels.copy())
        else:
            own = _class_permutation(tier)
            ramp = replace(way.off_ramp, thresholds=levels[own], bounds=chosen.bounds(way.site)[own])
            tier.model.add_off_ramp(ramp, str(ramp.site))
    exits = tuple(replace(count, site=renamed[count.site]) for count in chosen.certificate.exits)
    return [tiers[number] for number in used], replace(chosen.certificate, exits=exits)


def _class_permutation(tier: Tier) -> NDArray[np.int64]:
    """(C,) the last tier's number of each of a tier's own classes."""
    assert tier.order is not None
    order: NDArray[np.int64] = tier.order.argsort().numpy()
    return order


def _aligned(tier: Tier, found: Study) -> NDArray[np.float32]:
    """A tier's own logits in the last tier's order of classes."""
    assert tier.order is not None
    return np.ascontiguousarray(found.logits[:, tier.order.numpy()])


def _study(tier: Tier, split: Split, seed: int, teacher: NDArray[np.float32]) -> Study:
    """Of one tier but the last, whose logits are the teacher's; a function has no exits."""
    if tier.tokenizer is not None:
        own = teacher[:, _class_permutation(tier)]
        return study(tier.model, tier.tokenizer, split, max_length=tier.max_length, seed=seed, teacher=own)
    pieces = [tier.answer([split.texts[i] for i in places]) for places in tier.batches(split.texts)]
    logits = torch.cat([piece.logits for piece in pieces]).numpy()
    seconds = fastest(tier.answer, split.texts[: split.calibration_start][-_TIMED:])
    rows = Recordings({}, teacher, np.zeros(len(split.texts), np.int64))
    return Study(
        [],
        [],
        ordering=rows.take(slice(split.ordering_start, split.calibration_start)),
        calibration=rows.take(slice(split.calibration_start, None)),
        labels=split.labels,
        costs=Costs(np.zeros(1), np.full((1, 1), seconds), np.empty((1, 0)), np.zeros(1)),
        logits=logits,
    )


def fastest(work: Callable[[list[TextInput]], Any], texts: Sequence[TextInput]) -> float:
    """Seconds that some work on texts takes for one of them."""
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        work(list(texts))
        seconds.append(time.perf_counter() - start)
    return min(seconds) / len(texts)


def _answers(
    tiers: Sequence[Tier],
    recordings: Sequence[Recordings],
    ways: Sequence[WayOut],
    ends: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> ExitScores:
    """What all ways out say of the rows of one job, in the last tier's classes.

    Args:
        tiers: all of them.
        recordings: of these rows, by tier.
        ways: all ways out.
        ends: how sure each tier's end is, and of what.
    """
    scores, predicted = [], []
    for way in ways:
        if way.off_ramp is None:
            score, label = ends[way.tier]
        else:
            asked = score_exits([way.off_ramp], recordings[way.tier])
            score, label = asked.score[0], _class_permutation(tiers[way.tier])[asked.predicted[0]]
        scores.append(score)
        predicted.append(label)
    return ExitScores(np.array(predicted), np.array(scores), ends[-1][1])
