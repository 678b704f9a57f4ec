"""What is found out about a model before a policy is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moco_rt import BagOfTokens, EarlyExitTextClassificationModel
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.conditions import OffRamp
from moco_rt.studies import distillation, study
from moco_rt.studies.recording import Recordings, record
from moco_rt.studies.splits import split_texts
from moco_rt.studies.study import candidate_sites, score_exits, study_forms, study_model

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
SITES = ["embeddings", "encoder.0.attention", "encoder.1.attention"]

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def make_texts(count, seed=0):
    """Random texts of 4 to 20 words, all different: seeds share no text, as they begin with another word."""
    rng, texts = np.random.default_rng(seed), {}
    while len(texts) < count:
        words = rng.choice(WORDS, size=rng.integers(3, 20))
        texts[" ".join([WORDS[seed % len(WORDS)], *words])] = None
    return list(texts)


@pytest.fixture(scope="module")
def fast(tiny_bert):
    return EarlyExitTextClassificationModel(tiny_bert(3, labels=3))


@pytest.fixture
def run(fast, word_tokenizer):
    """`run(texts, seed=0, ...)`: a study of the model."""

    def run(texts, **options):
        split = split_texts(texts, lambda some: encode(word_tokenizer, some, 32), **options)
        return study_model(fast, split, seed=options.get("seed", 0))

    return run


def assert_recorded(recording, fast, tokenizer, texts):
    """The recording is of these texts, in this order."""
    expected = record(fast, encode(tokenizer, texts, 32), SITES)
    assert list(recording.features) == SITES
    np.testing.assert_array_equal(recording.logits, expected.logits)
    np.testing.assert_array_equal(recording.lengths, expected.lengths)
    for site in SITES:
        np.testing.assert_array_equal(recording.features[site], expected.features[site])


# Which rows do which job


@pytest.mark.parametrize("seed", [0, 5])
def test_texts_are_shared_out_at_random_and_labels_go_with_them(fast, word_tokenizer, run, seed):
    texts = make_texts(400)
    found = run(texts, seed=seed, labels=np.arange(400))
    order = np.random.default_rng(seed).permutation(400)
    assert_recorded(found.ordering, fast, word_tokenizer, [texts[i] for i in order[200:260]])
    assert_recorded(found.calibration, fast, word_tokenizer, [texts[i] for i in order[260:]])
    in_all = found.calibration_in_all
    np.testing.assert_array_equal(in_all.labels, np.sort(order[260:]))  # in the order of the texts
    np.testing.assert_array_equal(order[260:][in_all.distinct], in_all.labels)


def test_calibration_texts_do_that_job_alone_and_as_they_are(fast, word_tokenizer, run):
    texts, calibration = make_texts(300), make_texts(70, seed=1)
    found = run(texts, calibration=calibration, labels=np.arange(70))
    order = np.random.default_rng(0).permutation(300)
    assert_recorded(found.ordering, fast, word_tokenizer, [texts[i] for i in order[240:]])
    assert_recorded(found.calibration, fast, word_tokenizer, calibration)
    np.testing.assert_array_equal(found.calibration_in_all.labels, np.arange(70))


def test_without_labels_there_are_none(run):
    assert run(make_texts(400)).calibration_in_all.labels is None


def test_the_texts_are_left_alone(run):
    texts, calibration = make_texts(300), make_texts(70, seed=1)
    run(texts, calibration=calibration)
    assert (texts, calibration) == (make_texts(300), make_texts(70, seed=1))


def test_pairs_are_studied(fast, word_tokenizer, run):
    pairs = list(zip(make_texts(340), make_texts(340, seed=1), strict=True))
    order = np.random.default_rng(0).permutation(340)
    assert_recorded(run(pairs).calibration, fast, word_tokenizer, [pairs[i] for i in order[221:]])


@pytest.mark.parametrize(
    ("texts", "calibration", "words"),
    [
        (0, None, "(got 0, 0 and 0)"),
        (99, None, "(got 49, 15 and 35)"),
        (333, None, "(got 166, 50 and 117)"),
        (240, 70, "(got 192, 48 and 70)"),
        (300, 49, "(got 240, 60 and 49)"),
    ],
)
def test_too_few_texts_are_refused(run, one_line_error, texts, calibration, words):
    if "50 and" in words:  # just enough
        run(make_texts(texts + 7))
        return
    with one_line_error(
        ValueError, f"texts must leave at least 50 distinct rows to fit, to search and to certify on {words}"
    ):
        run(make_texts(texts), calibration=None if calibration is None else make_texts(calibration, seed=1))


@pytest.mark.parametrize("calibration", [None, 70])
@pytest.mark.parametrize("wrong_by", [-1, 1])
def test_labels_of_another_number_are_refused(run, one_line_error, calibration, wrong_by):
    expected = calibration or 400
    with one_line_error(ValueError, f"labels must be one for each of the {expected} texts (got {expected + wrong_by})"):
        run(
            make_texts(400),
            calibration=None if calibration is None else make_texts(calibration),
            labels=[0] * (expected + wrong_by),
        )


# Off-ramps


@pytest.mark.parametrize(("layers", "expected"), [(1, 2), (2, 3), (3, 4), (6, 7)])
def test_off_ramps_are_tried_before_and_at_the_embeddings_and_at_peeks_over_all_layers_but_the_last(
    tiny_bert, layers, expected
):
    sites = candidate_sites(EarlyExitTextClassificationModel(tiny_bert(layers)))
    assert sites == ["tokens", "embeddings", *(f"encoder.{i}.attention" for i in range(layers - 1))]
    assert len(sites) == expected


def test_nobody_leaves_by_an_off_ramp_yet(run):
    bag, *off_ramps = run(make_texts(400)).off_ramps
    assert isinstance(bag, BagOfTokens)
    assert np.isposinf(bag.thresholds).all()
    assert [(off_ramp.site, off_ramp.feature) for off_ramp in off_ramps] == [
        ("embeddings", "cls+mean"),
        *((site, feature) for site in SITES[1:] for feature in ("cls", "cls+mean")),
    ]
    for off_ramp in off_ramps:
        assert off_ramp.num_classes == 3
        assert off_ramp.size == {"cls": 32, "cls+mean": 64}[off_ramp.feature]
        assert np.isposinf(off_ramp.thresholds).all()


def weights(off_ramps):
    bag, *others = off_ramps
    return [bag.table, bag.bias, *(array for off_ramp in others for layer in off_ramp.layers for array in layer)]


def test_a_seed_gives_the_same_off_ramps_and_another_seed_others(run):
    texts = make_texts(400)
    first, again, other = (weights(run(texts, seed=seed).off_ramps) for seed in (3, 3, 4))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first[0], other[0])


def test_off_ramps_do_not_see_the_rows_that_certify_them(run):
    texts, calibration = make_texts(300), make_texts(60, seed=1)
    one, other = (weights(run(texts, calibration=rows).off_ramps) for rows in (calibration, make_texts(80, seed=2)))
    for array, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(array, same)


def test_features_of_rows_that_trained_off_ramps_are_not_kept(run):
    found = run(make_texts(400))
    assert all(values.base is None for job in (found.ordering, found.calibration) for values in job.features.values())


def test_off_ramps_learn_the_full_models_labels(run, monkeypatch):
    monkeypatch.setattr(distillation, "_FEWEST_STEPS", 600)
    found = run(make_texts(2000))  # with half of them the last off-ramp is at the bound
    rows = found.calibration
    answers = score_exits(found.off_ramps, rows)
    right = 1 - answers.wrong[:-1].mean(axis=1)
    most = np.bincount(rows.labels).max() / len(rows.labels)
    assert right[-1] > most + 0.1


def test_a_bag_is_scored_as_the_model_will_score_it(fast, word_tokenizer, run):
    texts = make_texts(400)
    found = run(texts)
    bag, rows = found.off_ramps[0], found.calibration
    scores = score_exits([bag], rows)
    order = np.random.default_rng(0).permutation(400)
    again = EarlyExitTextClassificationModel(fast.model)
    again.add_off_ramp(replace(bag, thresholds=np.full(3, -np.inf)), "tokens")
    output = again.predict([texts[i] for i in order[260:]], tokenizer=word_tokenizer, max_length=32)
    assert (output.exit_site == again.sites.index("tokens")).all()
    np.testing.assert_array_equal(output.labels, scores.group[0])
    np.testing.assert_allclose(output.probs.max(1).values, scores.score[0], rtol=1e-5)


def test_off_ramps_learn_what_the_teacher_says(fast, word_tokenizer):
    """A teacher that says the same of all rows has off-ramps that do."""
    split = split_texts(make_texts(400), lambda some: encode(word_tokenizer, some, 32))
    found = study_model(fast, split, seed=0, teacher=np.tile(np.float32([0, 4, 0]), (400, 1)))
    assert set(found.ordering.labels.tolist()) == {1}
    assert set(found.ordering.logits.argmax(1).tolist()) > {1}
    scores = score_exits(found.off_ramps, found.calibration)
    assert not scores.wrong[:-1].any()
    np.testing.assert_array_equal(scores.wrong[-1], found.calibration.logits.argmax(1) != 1)


# Another form of the model


def test_another_form_has_off_ramps_of_its_own_that_learn_the_given_models_answers(fast, tiny_bert, word_tokenizer):
    texts = make_texts(400)
    split = split_texts(texts, lambda some: encode(word_tokenizer, some, 32))
    other = EarlyExitTextClassificationModel(tiny_bert(3, labels=3, seed=1))  # far from it, so that it shows
    given, found = study_forms([fast, other], split, seed=0)
    alone = study_model(other, split, seed=0, teacher=given.logits)
    assert found.off_ramps[0] is given.off_ramps[0]
    own_weights, same_weights, given_weights = (weights(each.off_ramps) for each in (found, alone, given))
    for own, same in zip(own_weights, same_weights, strict=True):
        np.testing.assert_array_equal(own, same)
    for own, other_ones in zip(own_weights[2:], given_weights[2:], strict=True):  # behind the bag
        assert own.shape != other_ones.shape or (own != other_ones).any()
    assert found.calibration_in_all is given.calibration_in_all
    order = np.random.default_rng(0).permutation(400)
    for job, places in ((found.ordering, order[200:260]), (found.calibration, order[260:])):
        assert_recorded(job, other, word_tokenizer, [texts[i] for i in places])
    for job, expected in ((found.ordering, given.ordering), (found.calibration, given.calibration)):
        np.testing.assert_array_equal(job.given, expected.logits)
        scores = score_exits(found.off_ramps, job)
        np.testing.assert_array_equal(scores.wrong[-1], job.logits.argmax(1) != expected.labels)
        assert scores.wrong[-1].any()
    assert found.costs is not given.costs
    assert found.candidates("other").variant == "other"


def test_forms_share_one_bag_which_says_the_same_in_all_of_them(fast, tiny_bert, word_tokenizer, monkeypatch):
    """It reads ids, which no form changes."""
    fitted = []
    fit_bag = distillation.fit_bag
    monkeypatch.setattr(study, "fit_bag", lambda *options: fitted.append(fit_bag(*options)) or fitted[-1])
    split = split_texts(make_texts(400), lambda some: encode(word_tokenizer, some, 32))
    other = EarlyExitTextClassificationModel(tiny_bert(3, labels=3, seed=1))
    studies = study_forms([fast, other], split, seed=0)
    (bag,) = fitted
    given, found = (each.candidates().calibration.scores for each in studies)
    assert all(each.off_ramps[0] is bag and each.sites.count("tokens") == 1 for each in studies)
    np.testing.assert_array_equal(given.score[0], found.score[0])
    np.testing.assert_array_equal(given.group[0], found.group[0])


# What they cost


def test_the_costs_are_of_all_off_ramps(run):
    found = run(make_texts(400))
    assert found.costs.compute.shape[1] == len(found.off_ramps) + 1
    assert found.costs.scoring.shape[1] == len(found.off_ramps)


def test_costs_are_timed_on_rows_that_certify_nothing(run):
    costs = run(
        make_texts(300), calibration=[" ".join([*(3 * WORDS), *words.split()]) for words in make_texts(60, seed=1)]
    ).costs
    assert costs.lengths.max() <= 20 + 3  # words, and what the tokenizer adds


# What off-ramps say


def test_off_ramps_are_asked_one_by_one_as_numpy_would():
    rng = np.random.default_rng(0)
    features = {site: rng.normal(size=(40, 12)).astype(np.float32) for site in SITES[:2]}
    logits, given = rng.normal(size=(2, 40, 3)).astype(np.float32)
    recording = Recordings(features, logits, np.full(40, 9), given)
    layers = [((rng.normal(size=(3, size)), rng.normal(size=3)),) for size in (6, 12)]
    never = [np.inf] * 3, [0.1] * 3
    off_ramps = [
        OffRamp(layers[0], *never, feature="cls", site=SITES[1]),
        OffRamp(layers[1], *never, score="entropy", temperature=2.0, site=SITES[0]),
    ]
    answers = score_exits(off_ramps, recording)
    assert (answers.group.shape, answers.score.shape, answers.wrong.shape) == ((2, 40), (2, 40), (3, 40))
    assert (answers.group.dtype, answers.score.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(answers.given, given.argmax(1))
    np.testing.assert_array_equal(answers.labels, [*answers.group, logits.argmax(1)])
    np.testing.assert_array_equal(answers.wrong, answers.labels != given.argmax(1))
    for place, (x, temperature) in enumerate(((features[SITES[1]][:, :6], 1.0), (features[SITES[0]], 2.0))):
        ((weight, bias),) = layers[place]
        probs = torch.from_numpy((x @ weight.T + bias) / temperature).softmax(1)
        highest, negative_entropy = probs.max(1).values, (probs * probs.log()).sum(1)
        np.testing.assert_array_equal(answers.group[place], probs.argmax(1).numpy())
        np.testing.assert_allclose(answers.score[place], (highest, negative_entropy)[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bent", "layers"), [(False, 1), (True, 2)], ids=["a plane parts them", "no plane does"])
def test_an_off_ramp_has_two_layers_where_one_is_not_enough(bent, layers, monkeypatch):
    monkeypatch.setattr(distillation, "_FEWEST_STEPS", 600)
    rng = np.random.default_rng(0)

    def recording(rows):
        x = rng.normal(size=(rows, 8)).astype(np.float32)
        sure = (x[:, 0] * x[:, 1] if bent else x[:, 0]) + rng.normal(size=rows)  # what the feature does not tell
        logits = np.column_stack([np.zeros(rows), 2 * sure]).astype(np.float32)
        return Recordings({SITES[1]: x}, logits, np.full(rows, 9), given=logits)

    better, one = distillation.fit_off_ramp(SITES[1], "cls+mean", recording(2000), recording(500), seed=0)
    assert (len(better.layers), len(one.layers)) == (layers, 1)
    assert all(np.isposinf(off_ramp.thresholds).all() for off_ramp in (better, one))
