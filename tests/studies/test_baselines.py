"""The published methods' paths: what they look at, in which order they loosen, and what they promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from moco_rt.architectures.sites import EMBEDDINGS, attention_site
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.selection import RowsInAll
from moco_rt.policies.conditions import OffRamp
from moco_rt.statistics.bounds import rows_needed
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies import baselines
from moco_rt.studies.baselines import all_baselines, deebert, one_sided_rules, pabee, right_tool
from moco_rt.studies.costs import Costs
from moco_rt.studies.recording import Recordings
from moco_rt.studies.study import Study, score_exits

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN = 128
SITES = [EMBEDDINGS, *(attention_site(layer) for layer in range(6))]
NAMES = ["DeeBERT", "PABEE", "The Right Tool", "moco"]

#: By class, where its rows lie: spread over all numbers of the feature, so that few steps of training find it.
DIRECTIONS = np.random.default_rng(9).choice([-1, 1], (4, HIDDEN)).astype(np.float32) / np.float32(math.sqrt(HIDDEN))


def make_off_ramp(site=SITES[1], classes=2, **options):
    """Knows where the rows of each class lie."""
    layer = (DIRECTIONS[:classes], np.zeros(classes, np.float32))
    never, bounds = np.full(classes, np.inf), np.full(classes, 0.01)
    return OffRamp((layer,), never, bounds, **{"feature": "cls", "site": site, **options})


def make_recording(rows, classes=2, seed=0, sites=SITES):
    """Rows of which every site knows more than the one before it."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, rows)
    features = {}
    for depth, site in enumerate(sites):
        x = rng.normal(0, 1, (rows, 2 * HIDDEN)).astype(np.float32)
        x[:, :HIDDEN] += (0.6 * depth + 1) * DIRECTIONS[label]
        features[site] = x
    logits = rng.normal(0, 0.1, (rows, classes)).astype(np.float32)
    logits[np.arange(rows), label] += 3
    return Recordings(features, logits, rng.integers(5, 50, rows), given=logits)


def make_study(classes=2, sites=SITES):
    path, calibration = (make_recording(600, classes, seed, sites) for seed in (1, 2))
    ramps = [make_off_ramp(site, classes) for site in sites]
    reach = np.arange(1.0, len(sites) + 2)
    costs = Costs(np.array([1.0]), reach[None], np.zeros((1, len(sites))), np.zeros(len(sites) + 1))
    return Study(ramps, ramps[1:], path, calibration, RowsInAll(np.arange(600)), costs, np.empty((0, classes)))


@pytest.fixture(scope="module", params=[2, 4], ids=["two classes", "four classes"])
def study(request):
    return make_study(request.param)


@pytest.fixture(scope="module")
def found(study):
    return all_baselines(study)


# What all have in common


def test_all_methods_are_there(found):
    assert sorted(found) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_first_policy_lets_nobody_leave(study, found, name):
    preset = found[name]
    answers = score_exits(preset.off_ramps, study.ordering)
    assert (preset.exits_of_policies(answers)[0] == len(preset.off_ramps)).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_row_leaves_no_later_with_the_next_policy(study, found, name):
    preset = found[name]
    leaving = preset.exits_of_policies(score_exits(preset.off_ramps, study.ordering))
    assert len(leaving) == len(preset.thresholds) == len(preset.patience) > 5
    for before, after in pairwise(leaving):
        assert (after <= before).all()
    assert leaving[-1].mean() < 0.5 * leaving[0].mean()


@pytest.mark.parametrize("name", NAMES)
def test_off_ramps_are_of_one_layer_on_the_first_token_and_let_nobody_leave_yet(study, found, name):
    preset = found[name]
    classes = study.ordering.logits.shape[1]
    for off_ramp in preset.off_ramps:
        assert len(off_ramp.layers) == 1
        assert (off_ramp.feature, off_ramp.size, off_ramp.num_classes) == ("cls", HIDDEN, classes)
        assert np.isposinf(off_ramp.thresholds).all()
    assert all(thresholds.shape == (len(preset.off_ramps), classes) for thresholds in preset.thresholds)
    assert all(thresholds.dtype == np.float32 for thresholds in preset.thresholds)


@pytest.mark.parametrize("name", NAMES)
def test_off_ramps_know_what_they_were_taught(study, found, name):
    answers = score_exits(found[name].off_ramps, study.calibration)
    right = 1 - answers.wrong[:-1].mean(axis=1)
    assert right[-1] > max(right[0], 0.75)


def test_a_model_without_attention_to_peek_at_has_no_presets():
    assert all_baselines(make_study(sites=SITES[:1])) == {}


# What is each one's own


@pytest.mark.parametrize(
    ("name", "score"), [("DeeBERT", "entropy"), ("The Right Tool", "max_prob"), ("moco", "max_prob")]
)
def test_methods_are_scored_as_published(found, name, score):
    assert {off_ramp.score for off_ramp in found[name].off_ramps} == {score}
    assert set(found[name].patience) == {1}


@pytest.mark.parametrize("name", ["DeeBERT", "PABEE", "moco"])
def test_most_methods_stand_after_the_attention_of_every_layer(found, name):
    assert [off_ramp.site for off_ramp in found[name].off_ramps] == SITES[1:]


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_the_right_tool_stands_at_three_layers_at_most_each_with_a_temperature_of_its_own(layers):
    off_ramps = all_baselines(make_study(sites=SITES[: layers + 1]))["The Right Tool"].off_ramps
    places = [SITES.index(off_ramp.site) for off_ramp in off_ramps]
    assert len(places) == min(layers, 3)
    assert places == sorted(set(places))
    temperatures = {off_ramp.temperature for off_ramp in off_ramps}
    assert len(temperatures) == len(off_ramps)
    assert 1.0 not in temperatures


@pytest.mark.parametrize("method", [deebert, right_tool])
def test_one_threshold_serves_all_sites_and_classes(method):
    recording = make_recording(500)
    off_ramps = [make_off_ramp(site) for site in SITES]
    answers = score_exits(off_ramps, recording)
    preset = method(off_ramps, answers)
    assert all(len(np.unique(thresholds)) == 1 for thresholds in preset.thresholds)
    levels = [thresholds[0, 0] for thresholds in preset.thresholds]
    assert levels == sorted(levels, reverse=True)
    # From the surest answer to the least sure.
    assert levels[0] == np.inf
    assert levels[1] == answers.score.max()
    assert levels[-1] == answers.score.min()


def test_pabee_goes_from_more_layers_than_there_are_to_the_first():
    recording = make_recording(500)
    off_ramps = [make_off_ramp(site) for site in SITES[1:]]
    answers = score_exits(off_ramps, recording)
    preset = pabee(off_ramps, answers)
    assert list(preset.patience) == [7, 6, 5, 4, 3, 2, 1]
    assert all(np.isneginf(thresholds).all() for thresholds in preset.thresholds)
    leaving = preset.exits_of_policies(answers)
    assert (leaving[-1] == 0).all()
    agree = (answers.group == answers.group[0]).all(axis=0)
    assert ((leaving[1] == 5) == agree).all()  # who needs all six layers to agree leaves at the last
    assert ((leaving[1] == 6) == ~agree).all()


def test_thresholds_of_moco_fall_at_every_site_for_every_class():
    recording = make_recording(2000, classes=3)
    off_ramps = [make_off_ramp(site, 3) for site in SITES]
    preset = one_sided_rules(off_ramps, score_exits(off_ramps, recording))
    assert len(preset.thresholds) > 20
    for before, after in pairwise(preset.thresholds):
        assert (after <= before).all()
    assert (preset.thresholds[1] < np.inf).all()


@pytest.mark.parametrize("rows", [10, 60, 600, 20_000])
def test_moco_has_as_many_policies_as_its_rows_can_bear(rows):
    label = np.arange(rows) % 2
    score = np.random.default_rng(0).random((1, rows)).astype(np.float32)
    preset = one_sided_rules([make_off_ramp()], ExitScores.of_labels(label[None], score, label))
    errors = np.geomspace(1e-4, 0.2, 200)
    bearable = [error for error in errors if rows_needed(Guarantee(error, 1 - 0.95)) <= rows // 2]
    assert len(preset.thresholds) == 1 + len(bearable)
    assert (len(bearable) == 0) == (rows == 10)


def make_answers(rng, rows, sites=2):
    """Two classes of which one is rarer and harder; wrong answers may be sure."""
    label = (rng.random(rows) < 0.3).astype(np.int64)
    evidence = rng.normal(0, 1, (sites, rows)) + np.where(label == 1, 0.6, -1.2)
    return ExitScores.of_labels((evidence > 0).astype(np.int64), np.abs(evidence).astype(np.float32), label)


def test_rules_of_moco_keep_their_error_on_rows_of_other_classes(monkeypatch):
    monkeypatch.setattr(baselines, "_POLICIES", 3)
    errors = np.geomspace(1e-4, 0.2, 3)[1:]  # the first asks for more rows than there are
    rng, draws = np.random.default_rng(0), 300
    everyone = make_answers(rng, 100_000)
    broken = np.zeros((2, 2, 2))
    for _ in range(draws):
        preset = one_sided_rules([make_off_ramp()] * 2, make_answers(rng, 2500))
        assert len(preset.thresholds) == 3
        for i, error in enumerate(errors):
            for site in range(2):
                for c in range(2):
                    fires = (everyone.group[site] == c) & (everyone.score[site] > preset.thresholds[i + 1][site, c])
                    broken[i, site, c] += fires[everyone.given != c].mean() > error
    assert (broken / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)).all()
    # At the lower error not more careful than it must be.
    assert (broken[0] > 0).all()
