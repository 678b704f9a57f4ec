"""All ways out of a cascade together: what leaving costs, how sure tiers are made, and what is taken of a study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import softmax
from tier_samples import count_words, make_texts

from moco_rt.cascades.tier import Tier, align_classes
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.certification.selection import ExitCandidates, RowsInAll, ScoredRows, Selection
from moco_rt.policies.conditions import OffRamp
from moco_rt.statistics.calibration import fit_temperature
from moco_rt.studies.cascade_costs import CascadeCosts, WayOut
from moco_rt.studies.costs import Costs
from moco_rt.studies.splits import split_texts
from moco_rt.tuning.cascade_study import CascadeStudy, build_tiers, study_tiers


def flat(reach, ask=0.001, once=0.0):
    """Seconds to every off-ramp and to the end, the same for all lengths."""
    ramps = len(reach) - 1
    return Costs(
        np.array([1.0]), np.array([reach]), np.full((1, ramps), ask), np.append(np.full(ramps, once), 2 * once)
    )


NO_PATH = PolicyPath(
    ("as given",), np.zeros(1, int), np.full((1, 1, 2), np.inf, np.float32), np.zeros(1, int), np.ones(1), 50, 0, 0
)

# What leaving costs

WAYS = [
    WayOut(0, OffRamp.closed(((np.ones((2, 4)), np.zeros(2)),), feature="cls", site="embeddings")),
    WayOut(0, OffRamp.closed(((np.ones((2, 4)), np.zeros(2)),), feature="cls", site="encoder.0.attention")),
    WayOut(0, None),
    WayOut(1, None),
    WayOut(2, OffRamp.closed(((np.ones((2, 4)), np.zeros(2)),), feature="cls", site="embeddings")),
]


@pytest.mark.parametrize(
    ("chosen", "seconds"),
    [
        ([], [64]),
        ([2], [8, 72]),
        ([3], [16, 80]),
        ([0], [1.5, 72.5]),  # who does not leave by the exit has run to the end of its tier, and was asked
        ([0, 1], [1.5, 3.0, 73.0]),
        ([0, 2], [1.5, 8.5, 72.5]),
        ([2, 3], [8, 24, 88]),
        ([1, 2, 3, 4], [2.5, 8.5, 24.5, 56.75, 88.75]),
        ([4], [32.25, 64.25]),
        ([1, 4], [2.5, 40.75, 72.75]),
    ],
    ids=str,
)
def test_who_goes_on_has_paid_for_the_tiers_that_are_used(chosen, seconds):
    costs = CascadeCosts(
        WAYS, [flat([1, 2, 8], 0.5), flat([16]), flat([32, 64], 0.25)], [0.0] * 3, np.eye(3, dtype=bool)
    )
    np.testing.assert_allclose(costs.seconds(np.full((3, 4), 7), chosen), np.tile(seconds, (4, 1)))


def test_every_tier_has_its_own_lengths_and_what_a_batch_pays_once():
    by_length = Costs(np.array([0.0, 10.0]), np.array([[0.0], [10.0]]), np.empty((2, 0)), np.array([0.5]))
    costs = CascadeCosts(WAYS[2:4], [by_length] * 3, [0.0] * 3, np.eye(3, dtype=bool))
    lengths = np.array([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_allclose(costs.seconds(lengths, []), [[5.5], [6.5]])
    np.testing.assert_allclose(costs.seconds(lengths, [0]), [[1.5, 7.0], [2.5, 9.0]])
    np.testing.assert_allclose(costs.seconds(lengths, [0, 1]), [[1.5, 5.0, 10.5], [2.5, 7.0, 13.5]])


def test_tokenising_is_paid_for_by_the_tiers_that_are_used():
    """Tiers 0 and 1 share a tokenizer, tier 2 has its own."""
    shares_tokens = np.array([[True, True, False], [True, True, False], [False, False, True]])
    costs = CascadeCosts(WAYS, [flat([1, 2, 8]), flat([16]), flat([32, 64])], [0.1, 0.2, 0.4], shares_tokens)
    lengths = np.full((3, 1), 7)
    assert costs.seconds(lengths, [])[0, -1] == pytest.approx(64.4)
    assert costs.seconds(lengths, [2])[0, -1] == pytest.approx(72.5)
    assert costs.seconds(lengths, [3])[0, -1] == pytest.approx(80.6)
    assert costs.seconds(lengths, [2, 3])[0].tolist() == pytest.approx([8.1, 24.1, 88.5])


# What is taken of a study


def study_of_nobody(tiers, ways, temperatures, classes):
    """Of no row at all, by tiers of these temperatures."""
    none = np.empty((len(ways), 0), int)
    nobody = ExitScores.of_labels(none, none.astype(np.float32), np.empty(0, int))
    lengths = np.empty((len(temperatures), 0), int)
    costs = CascadeCosts(ways, [], [], np.empty((0, 0), bool))
    rows = ScoredRows(nobody, lengths)
    in_all = RowsInAll(np.empty(0, int))
    candidates = ExitCandidates([way.site for way in ways], costs, rows, rows, in_all, classes)
    return CascadeStudy(tiers, ways, candidates, temperatures)


def test_tiers_that_are_not_used_are_dropped_and_the_others_counted_anew(tiny_bert, word_tokenizer):
    names = {0: "sad", 1: "so so", 2: "glad"}
    own = {0: "glad", 1: "sad", 2: "so so"}
    tiers = [
        Tier.of((tiny_bert(2, labels=3, seed=seed, id2label=labels), word_tokenizer))
        for seed, labels in enumerate((names, own, names))
    ]
    tiers = align_classes(tiers)
    layers = ((np.ones((3, 64)), np.zeros(3)),)
    ramp = OffRamp.closed(layers, feature="cls+mean", site="embeddings")
    ways = [WayOut(0, ramp), WayOut(0, None), WayOut(1, ramp), WayOut(1, None), WayOut(2, ramp)]
    counts = (
        ExitCount("tier 1 embeddings", 0, 10, 1, 0.2),
        ExitCount("tier 1 embeddings", 2, 10, 1, 0.1),
        ExitCount("tier 1 end", 1, 10, 0, 0.3),
        ExitCount("tier 2 embeddings", 1, 5, 0, 0.4),
    )
    thresholds = np.array([[0.5, 0.6, 0.7], [0.8, np.inf, 0.9], [-np.inf, 0.1, 0.2]], np.float32)
    selection = Selection(0, [2, 3, 4], thresholds, Certificate(0.1, 0.05, 50, 2, 2.0, 1.0, counts), [2, 3, 4], NO_PATH)
    used, certificate = build_tiers(study_of_nobody(tiers, ways, [5.0, 3.0, 1.0], classes=3), selection, tiers[-1])
    assert [tier.model for tier in used] == [tier.model for tier in tiers[1:]]
    assert [(c.site, c.predicted_class) for c in certificate.exits] == [
        ("tier 0 embeddings", 0),
        ("tier 0 embeddings", 2),
        ("tier 0 end", 1),
        ("tier 1 embeddings", 1),
    ]
    assert [tier.temperature for tier in used] == [3.0, 1.0]
    np.testing.assert_array_equal(used[0].thresholds, thresholds[1])
    assert used[1].thresholds is None
    (inside,), (last,) = (tier.model.policy.exits for tier in used)
    # A tier's own exits speak of its own classes.
    np.testing.assert_array_equal(inside.condition.thresholds, np.float32([0.7, 0.5, 0.6]))
    np.testing.assert_allclose(inside.condition.bounds, [0.1, 0.2, 0.66])
    np.testing.assert_array_equal(last.condition.thresholds, thresholds[2])
    np.testing.assert_allclose(last.condition.bounds, [0.66, 0.4, 0.66])
    assert used[0].model.policy.made_for["max_length"] == 64
    assert not tiers[0].model.policy.exits


def test_a_tier_that_is_used_for_its_exits_alone_hands_over_all_others(tiny_bert, word_tokenizer):
    tiers = [Tier.of((tiny_bert(2, seed=seed), word_tokenizer)) for seed in (0, 1)]
    tiers = align_classes(tiers)
    ramp = OffRamp.closed(((np.ones((2, 64)), np.zeros(2)),), feature="cls+mean", site="embeddings")
    ways = [WayOut(0, ramp), WayOut(0, None)]
    certificate = Certificate(0.1, 0.05, 50, 2, 2.0, 1.0, ())
    selection = Selection(0, [0], np.full((1, 2), 0.9, np.float32), certificate, [0], NO_PATH)
    used, _ = build_tiers(study_of_nobody(tiers, ways, [1.0, 1.0], classes=2), selection, tiers[-1])
    assert [tier.model for tier in used] == [tier.model for tier in tiers]
    assert used[0].thresholds.isposinf().all()
    assert len(used[0].model.policy.exits) == 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 7.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_that_at_which_a_tier_says_what_the_last_says(temperature, classes):
    logits = np.random.default_rng(0).normal(0, 2, (2000, classes)).astype(np.float32)
    found = fit_temperature(np.float32(temperature) * logits, softmax(logits, axis=1))
    assert found == pytest.approx(temperature, rel=1e-3)


@dataclass
class WordCounter:
    """A function that cannot be a key."""

    def __call__(self, texts):
        return count_words(texts)


# What there is to choose from


def test_ways_out_stand_in_the_order_in_which_rows_meet_them(tiny_bert, word_tokenizer, quick_off_ramps):  # noqa: ARG001
    pair = (tiny_bert(2), word_tokenizer)
    tiers = [Tier.of(WordCounter()), Tier.of(pair), Tier.of(pair)]
    tiers = align_classes(tiers)
    (found,) = study_tiers({"as given": tiers}, split_texts(make_texts(600), tiers[-1].encode), seed=0)
    assert list(found.candidates.sites)[:2] == ["tier 0 end", "tier 1 tokens"]
    assert [way.tier for way in found.ways] == sorted(way.tier for way in found.ways)
    exits, ends, all_ways = found.candidates.groups
    assert {(found.ways[place].tier, found.ways[place].off_ramp is None) for place in exits} == {(2, False)}
    assert [found.candidates.sites[place] for place in ends] == ["tier 0 end", "tier 1 end"]
    assert all_ways == list(range(len(found.ways)))
    assert found.temperatures[-1] == 1.0
    assert found.temperatures[1] == pytest.approx(1.0, abs=1e-3)
