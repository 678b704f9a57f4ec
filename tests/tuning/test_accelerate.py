"""From a model and texts to a policy with a certificate: what it says must be what the model then does."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from certificate_checks import assert_certificate_is_what_it_does
from split_samples import calibration_places, first_of_each

from moco_rt import BagOfTokens, EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier
from moco_rt.certification.promises import Confident
from moco_rt.certification.selection import RowsInAll
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.conditions import OffRamp
from moco_rt.statistics.bounds import fixed_sequence, rows_needed
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.costs import Costs
from moco_rt.studies.recording import Recordings
from moco_rt.studies.splits import split_texts
from moco_rt.studies.study import Study, study_forms, study_model
from moco_rt.tuning import accelerate as accelerate_module
from moco_rt.tuning import variants
from moco_rt.tuning.accelerate import choose

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def accelerate(model, inputs, **options):
    """In the model's own dtype: which other one is fastest is this machine's affair; see test_accelerate_forms."""
    return accelerate_module.accelerate(model, inputs, **{"dtype": None, **options})


def confident(agreement, confidence=0.95):
    return Confident(Guarantee.of_agreement(agreement, confidence))


@pytest.fixture(scope="module")
def found(trained, texts):
    """A study whose costs are made by hand: what is chosen does not depend on this machine's mood."""
    fast = EarlyExitTextClassificationModel(trained[0])
    split = split_texts(texts, lambda some: encode(trained[1], some, 64))
    made = study_model(fast, split, seed=0)
    sites = list(dict.fromkeys(made.sites))
    return replace(made, costs=costs_of([0.45 + sites.index(site) for site in made.sites], 5.0))


def costs_of(reach, end, ask=0.05):
    """Seconds to get to each off-ramp and to the end, the same for all lengths."""
    seconds = np.tile(np.array([*reach, end]), (2, 1))
    return Costs(np.array([1.0, 100.0]), seconds, np.full((2, len(reach)), ask), np.zeros(len(reach) + 1))


@pytest.fixture
def choose_for(trained, found):
    """`choose_for(agreement, ...)`: the model with the policy that a study, or a changed one, leads to."""

    def make(agreement, confidence=0.95, **changes):
        fast = EarlyExitTextClassificationModel(trained[0])
        choose(fast, replace(found, **changes), confident(agreement, confidence))
        return fast

    return make


# The certificate is what the model does


@pytest.mark.parametrize(("agreement", "seed"), [(0.95, 0), (0.98, 0), (0.95, 3)])
def test_the_counts_of_the_certificate_are_those_of_the_model(trained, reviews, texts, agreement, seed):
    model, tokenizer = trained
    truth = np.array([row.label for row in reviews])
    fast = accelerate(model, texts, tokenizer=tokenizer, agreement=agreement, seed=seed, labels=truth.tolist())
    places = calibration_places(tokenizer, texts, seed)
    assert_certificate_is_what_it_does(fast, model, tokenizer, [texts[i] for i in places], truth[places])
    certificate = fast.policy.certificate
    assert (certificate.alpha, certificate.delta) == (pytest.approx(1 - agreement), pytest.approx(0.05))
    assert certificate.disagreements <= (1 - agreement) * len(places)
    assert fast.policy.exits


def test_texts_for_the_certificate_alone_are_used_for_it(trained, reviews, texts):
    model, tokenizer = trained
    truth = np.array([row.label for row in reviews[600:]])
    fast = accelerate(
        model, texts[:600], tokenizer=tokenizer, agreement=0.95, calibration=texts[600:], labels=truth.tolist()
    )
    assert_certificate_is_what_it_does(fast, model, tokenizer, texts[600:], truth)


def test_pairs_of_texts_are_certified(trained, texts):
    model, tokenizer = trained
    pairs = list(zip(texts, reversed(texts), strict=True))
    fast = accelerate(model, pairs, tokenizer=tokenizer, agreement=0.9, max_length=48)
    rows = [pairs[i] for i in calibration_places(tokenizer, pairs, max_length=48)]
    assert_certificate_is_what_it_does(fast, model, tokenizer, rows)


def test_rows_of_a_data_set_are_certified_as_their_texts(trained, texts, tmp_path):
    model, tokenizer = trained
    rows = [{"review": text, "label": 0} for text in texts]
    fast = accelerate(
        model, iter(rows[:600]), tokenizer=tokenizer, agreement=0.95, calibration=rows[600:], columns="review"
    )
    assert_certificate_is_what_it_does(fast, model, tokenizer, texts[600:])
    assert fast.tokenizer is tokenizer
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict(rows, columns="review").probs, fast.predict(texts).probs)


@pytest.mark.parametrize("calibration", [False, True])
def test_one_bad_text_is_refused_before_anything_is_computed(trained, texts, one_line_error, calibration):
    bad = [*texts[:900], "\ud83d"]
    given, extra = (texts, bad) if calibration else (bad, None)
    with one_line_error(ValueError, "(got a lone surrogate U+D83D as character 0 of the text at place 900)"):
        accelerate(trained[0], given, tokenizer=trained[1], calibration=extra)


# Texts that stand there several times


@pytest.mark.parametrize("copies", [4, 1])
def test_copies_of_texts_count_once_and_add_nothing(trained, texts, reviews, copies):
    model, tokenizer = trained
    some, truth = texts[:400] * copies, [row.label for row in reviews[:400]] * copies
    fast = accelerate(model, some, tokenizer=tokenizer, agreement=0.9, labels=truth)
    certificate = fast.policy.certificate
    assert (certificate.rows, certificate.rows_in_all) == (140, 140 * copies)
    assert certificate.disagreement_in_all == pytest.approx(certificate.disagreements / 140)
    places = calibration_places(tokenizer, some)
    truth = np.array(truth)[places]
    assert_certificate_is_what_it_does(fast, model, tokenizer, [some[i] for i in places], truth)


def test_rows_that_truncation_makes_equal_never_stand_on_both_sides(trained, texts, monkeypatch):
    model, tokenizer = trained
    seen = []

    def study_and_keep(models, split, **options):
        seen.append(split)
        return study_forms(models, split, **options)

    monkeypatch.setattr(variants, "study_forms", study_and_keep)
    alike = [f"{text} {number}" for text in texts for number in ("one", "two", "three")]
    certificate = accelerate(model, alike, tokenizer=tokenizer, agreement=0.9, max_length=16).policy.certificate
    (split,) = seen
    rows = [str(row) for row in split.rows]
    assert len(rows) == len(set(rows)) == len(first_of_each(tokenizer, alike, max_length=16))
    assert certificate.rows == len(split.rows[split.calibration])
    assert certificate.rows_in_all >= 2 * certificate.rows


def test_a_text_that_stands_in_calibration_too_is_not_learnt_from(trained, texts, caplog):
    model, tokenizer = trained
    fast = accelerate(model, texts[:500], tokenizer=tokenizer, agreement=0.9, calibration=texts[400:500] * 2)
    certificate = fast.policy.certificate
    assert (certificate.rows, certificate.rows_in_all) == (100, 200)
    assert "100 texts also stand in calibration: they certify, and are left out of the fitting" in caplog.text


# Labels


def test_labels_may_be_names_of_classes(trained, texts, reviews):
    model, tokenizer = trained
    names = [model.config.id2label[row.label] for row in reviews[400:500]]
    options = {"tokenizer": tokenizer, "agreement": 0.9, "calibration": texts[400:500]}
    found = accelerate(model, texts[:400], labels=names, **options).policy.certificate
    expected = np.array([row.label for row in reviews[400:500]])
    own = EarlyExitTextClassificationModel(model).predict(texts[400:500], tokenizer=tokenizer).labels.numpy()
    assert found.accuracy_full == pytest.approx((own == expected).mean())


def test_labels_that_are_no_class_are_refused_before_any_work(trained, texts, one_line_error):
    words = "labels must be class numbers from 0 to 1, or names of the model's classes (NEGATIVE, POSITIVE) "
    with one_line_error(ValueError, words + "(got 2 at place 0)"):
        accelerate(trained[0], texts[:400], tokenizer=trained[1], labels=[2] * 400)


def test_a_model_with_exits_may_be_given_and_keeps_its_backend(trained, texts):
    model, tokenizer = trained
    given = EarlyExitTextClassificationModel(model, backend="reference")
    given.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings")
    fast = accelerate(given, texts[:400], tokenizer=tokenizer, agreement=0.9)
    assert fast is not given
    assert (fast.model, fast.backend, len(given.policy.exits)) == (model, "reference", 1)


def test_a_backend_that_was_asked_for_is_kept_whatever_forms_are_tried(trained, texts):
    model, tokenizer = trained
    given = EarlyExitTextClassificationModel(model, backend="reference")
    fast = accelerate(given, texts[:400], tokenizer=tokenizer, agreement=0.9, dtype="auto")
    assert (fast.model, fast.backend, fast.policy.certificate.variant) == (model, "reference", "as given")


def test_without_labels_there_are_no_accuracies(choose_for):
    certificate = choose_for(0.95).policy.certificate
    assert (certificate.accuracy, certificate.accuracy_full) == (None, None)


def test_the_model_is_not_changed(trained, texts):
    model, tokenizer = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = accelerate(model, texts[:400], tokenizer=tokenizer, agreement=0.9)
    assert fast.model is model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_texts_are_truncated_alike_when_the_policy_is_found_and_used(trained, texts):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, agreement=0.9, max_length=14)
    assert fast.policy.made_for["max_length"] == 14
    rows = [texts[i] for i in calibration_places(tokenizer, texts, max_length=14)]
    assert_certificate_is_what_it_does(fast, model, tokenizer, rows)


# What is chosen


def numbers_of(off_ramp):
    return off_ramp.table if isinstance(off_ramp, BagOfTokens) else off_ramp.layers[0][0]


def test_exits_stand_at_studied_sites_in_their_order_with_bounds_below_a_tie(choose_for, found):
    fast = choose_for(0.97)
    met = list(dict.fromkeys(found.sites))
    places = [met.index(exit.site) for exit in fast.policy.exits]
    assert places
    assert places == sorted(set(places))
    for exit in fast.policy.exits:
        assert (exit.condition.bounds < 0.5).all()
        assert not np.isposinf(exit.condition.thresholds).all()
        assert any(numbers_of(exit.condition) is numbers_of(off_ramp) for off_ramp in found.off_ramps)


def test_bounds_are_those_of_the_certificate(choose_for):
    fast = choose_for(0.97)
    bounds = {exit.site: exit.condition.bounds for exit in fast.policy.exits}
    for count in fast.policy.certificate.exits:
        assert bounds[count.site][count.predicted_class] == pytest.approx(min(count.upper_bound, 0.495))
        assert count.wrong / count.fired <= count.upper_bound


def test_less_agreement_makes_it_no_slower(choose_for):
    certificates = [choose_for(agreement).policy.certificate for agreement in (0.99, 0.97, 0.9, 0.8)]
    seconds = [certificate.seconds for certificate in certificates]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < seconds[0] < certificates[0].seconds_full


def test_the_same_study_leads_to_the_same_policy(choose_for):
    one, other = choose_for(0.97).policy, choose_for(0.97).policy
    assert one.certificate == other.certificate
    for exit, same in zip(one.exits, other.exits, strict=True):
        assert exit.site == same.site
        np.testing.assert_array_equal(exit.condition.thresholds, same.condition.thresholds)


def test_expected_seconds_are_what_the_rows_that_leave_and_stay_cost(choose_for):
    certificate = choose_for(0.97).policy.certificate
    assert certificate.seconds_full == pytest.approx(5.0)
    assert 0.5 <= certificate.seconds < 5.0
    assert certificate.speedup == pytest.approx(5.0 / certificate.seconds)


def test_what_the_model_had_is_replaced(trained, found):
    fast = EarlyExitTextClassificationModel(trained[0])
    fast.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings")
    choose(fast, found, confident(0.9))
    assert all(isinstance(exit.condition, AnyOffRamp) for exit in fast.policy.exits)


def test_the_policy_that_was_chosen_lies_on_the_stored_path(choose_for):
    fast = choose_for(0.97)
    path, certificate = fast.policy.path, fast.policy.certificate
    policies = path.policies
    assert policies.rows == certificate.rows
    assert 0 < policies.chosen <= policies.certified < len(policies.seconds)
    assert policies.disagreements[policies.chosen] == certificate.disagreements
    assert fixed_sequence(policies.disagreements, policies.rows, Guarantee(0.03, 0.05)) == policies.certified
    own = {(exit.site, exit.feature): exit.condition.thresholds for exit in fast.policy.exits}
    for ramp, levels in zip(path.off_ramps, policies.thresholds[policies.chosen], strict=True):
        np.testing.assert_array_equal(own.get((ramp.site, ramp.feature), np.full(2, np.inf)), levels)


def test_exits_that_do_not_pay_are_not_chosen(choose_for, caplog):
    fast = choose_for(0.95, costs=costs_of([5.0] * 8, 1.0))
    assert not fast.policy.exits
    assert "the model is left as it is" in caplog.text


def test_where_none_can_be_certified_there_are_no_exits_and_the_log_says_so(choose_for, found, caplog):
    """The calibration rows contradict all that the others showed."""
    rows = found.calibration
    contrary = rows.logits[:, ::-1].copy()
    fast = choose_for(0.99, calibration=replace(rows, logits=contrary, given=contrary))
    certificate = fast.policy.certificate
    assert not fast.policy.exits
    assert (certificate.exits, certificate.disagreements) == ((), 0)
    assert "nothing else kept the promise on the calibration rows and saved time" in caplog.text
    assert certificate.table().endswith("no exits: the model as it was given runs")


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_a_class_that_is_rare_is_no_obstacle(tiny_bert, seen):
    """Neither the path's labels nor its off-ramps' answers name the last ones."""
    fast, found = made_up_study(tiny_bert, classes=3, seen=seen)
    choose(fast, found, confident(0.9))
    assert all(exit.condition.num_classes == 3 for exit in fast.policy.exits)


def made_up_study(tiny_bert, classes, seen, rows=300):
    """Of a model with so many classes, of which the rows show fewer; all rows are easy."""
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=classes))
    rng = np.random.default_rng(0)
    weight = 8 * np.eye(classes, 64, dtype=np.float32)
    off_ramp = OffRamp(((weight, np.zeros(classes)),), [np.inf] * classes, [0.01] * classes, site="embeddings")

    def recording():
        x = rng.normal(scale=0.1, size=(rows, 64)).astype(np.float32)
        labels = rng.integers(seen, size=rows)
        x[np.arange(rows), labels] += 1
        logits = np.eye(classes, dtype=np.float32)[labels]
        return Recordings({"embeddings": x}, logits, np.full(rows, 7), given=logits)

    return fast, Study(
        [off_ramp],
        [],
        recording(),
        recording(),
        RowsInAll(np.arange(rows)),
        costs_of([1.0], 5.0),
        np.empty((0, classes)),
    )


# Too few rows


def test_too_few_rows_certify_less_and_the_log_says_how_many_are_needed(trained, texts, caplog):
    model, tokenizer = trained
    with caplog.at_level(logging.WARNING):
        fast = accelerate(model, texts[:400], tokenizer=tokenizer, agreement=0.999)
    certificate = fast.policy.certificate
    assert certificate.rows == 140
    assert certificate.alpha == pytest.approx(1 - 0.05 ** (1 / 140))
    needed = rows_needed(Guarantee(0.001, 1 - 0.95))
    assert f"140 distinct calibration rows cannot certify an agreement of 99.90%: that needs {needed}" in caplog.text
    assert "certifying 97.88%" in caplog.text


def test_enough_rows_say_nothing(choose_for, caplog):
    assert choose_for(0.95).policy.certificate.alpha == pytest.approx(0.05)
    assert "cannot certify" not in caplog.text


# On disk, and with other tokenizers


@pytest.fixture(scope="module")
def fast(trained, texts):
    return accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.97)


def assert_same_bits(one, other, texts, tokenizer):
    found, expected = (model.predict(texts, tokenizer=tokenizer) for model in (one, other))
    for name in ("labels", "probs", "exit_site", "exit_rule"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_bits_and_certificate_survive_the_disk(fast, trained, texts, tmp_path):
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.policy.certificate == fast.policy.certificate
    assert loaded.policy.made_for == fast.policy.made_for
    path, expected = loaded.policy.path.policies, fast.policy.path.policies
    assert (path.rows, path.certified, path.chosen) == (expected.rows, expected.certified, expected.chosen)
    np.testing.assert_array_equal(path.thresholds, expected.thresholds)
    assert_same_bits(loaded, fast, texts[:300], trained[1])


def test_the_tokenizer_is_found_where_the_model_came_from(trained, texts, tmp_path):
    model, tokenizer = trained
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_classifier(str(tmp_path))
    fast = accelerate(loaded, texts[:400], agreement=0.9)
    assert len(fast.predict(texts[:5], tokenizer=tokenizer).labels) == 5


def test_another_tokenizer_is_refused(fast, texts, word_tokenizer, one_line_error):
    with one_line_error(ValueError, "tokenizer must be the one that the policy was found with"):
        fast.predict(texts[:5], tokenizer=word_tokenizer)


# Models that do not answer everything


def test_rows_whose_answer_is_no_number_teach_nothing(trained, texts):
    model, tokenizer = copy.deepcopy(trained[0]), trained[1]
    word = texts[0].split()[0]
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(word)] = torch.nan
    fast = accelerate(model, texts, tokenizer=tokenizer, agreement=0.9)
    given = EarlyExitTextClassificationModel(model).predict(texts, tokenizer=tokenizer)
    lost = given.probs.isnan().any(dim=1)
    assert 0 < lost.sum() < len(texts) / 2
    found = fast.predict(texts)
    assert (found.exit_site[~lost] >= 0).any()
    assert (found.labels == given.labels)[~lost].float().mean() > 0.9
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="model must answer some rows with finite numbers"):
        accelerate(model, texts, tokenizer=tokenizer)


# What is refused


@pytest.mark.parametrize("name", ["agreement", "confidence"])
@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 99.0, float("nan")])
def test_a_share_out_of_range_is_refused(trained, texts, one_line_error, name, share):
    with one_line_error(ValueError, f"{name} must be inside (0, 1) (got {share})"):
        accelerate(trained[0], texts, tokenizer=trained[1], **{name: share})


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"agreement": "0.9"}, ValueError, "agreement must be a number inside (0, 1) (got '0.9')"),
        ({"confidence": None}, ValueError, "confidence must be a number inside (0, 1) (got None)"),
        ({"promise": "per class", "agreement": {"POSITIVE": None}}, ValueError, "agreement must be a number inside"),
        ({"seed": -1}, ValueError, "seed must be at least 0 (got -1)"),
        ({"seed": 1.5}, ValueError, "seed must be a whole number (got 1.5)"),
        ({"seed": "a"}, ValueError, "seed must be a whole number (got 'a')"),
        ({"task": "x"}, TypeError, "task must be SingleLabel(...), MultiLabel(...), Regression(...) or Ranking(...) ("),
        ({"variants": None}, TypeError, "variants must be a list of models (got NoneType)"),
        ({"variants": "a folder"}, TypeError, "variants must be a list of models (got str)"),
    ],
    ids=str,
)
def test_what_is_of_another_kind_is_refused_by_its_name(trained, texts, one_line_error, options, kind, words):
    with one_line_error(kind, words):
        accelerate(trained[0], texts, tokenizer=trained[1], **options)


def test_a_model_in_place_of_a_list_of_variants_is_refused(trained, texts, one_line_error):
    with one_line_error(TypeError, "variants must be a list of models (got BertForSequenceClassification)"):
        accelerate(trained[0], texts, tokenizer=trained[1], variants=trained[0])


def test_a_model_without_a_classifier_is_refused(trained, texts, one_line_error):
    with one_line_error(TypeError, "model must be a Hugging Face ...ForSequenceClassification (got BertModel)"):
        accelerate(trained[0].bert, texts, tokenizer=trained[1])


def test_what_is_no_hugging_face_model_is_refused(trained, texts, one_line_error):
    with one_line_error(TypeError, "model must be a Hugging Face ...ForSequenceClassification (got Linear)"):
        accelerate(torch.nn.Linear(2, 2), texts, tokenizer=trained[1])


def test_one_str_is_not_taken_for_many_texts(trained, texts, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        accelerate(trained[0], " ".join(texts[:40]), tokenizer=trained[1])


def test_too_few_texts_are_refused(trained, texts, one_line_error):
    with one_line_error(
        ValueError, "texts must leave at least 50 distinct rows to fit, to search and to certify on (got 50, 15"
    ):
        accelerate(trained[0], texts[:100], tokenizer=trained[1])


@pytest.mark.parametrize(("calibration", "expected"), [(None, 400), (60, 60)])
def test_labels_of_another_number_are_refused(trained, texts, one_line_error, calibration, expected):
    rows = None if calibration is None else texts[-calibration:]
    with one_line_error(ValueError, f"labels must be one for each of the {expected} texts (got 7)"):
        accelerate(trained[0], texts[:400], tokenizer=trained[1], calibration=rows, labels=[0] * 7)


def test_a_model_that_came_from_nowhere_needs_a_tokenizer(tiny_bert, texts, one_line_error):
    with one_line_error(ValueError, "tokenizer must be given: the model does not say where it came from (got None)"):
        accelerate(tiny_bert(), texts)


def test_a_max_length_without_room_for_a_text_is_refused(trained, texts, one_line_error):
    with one_line_error(ValueError, "max_length must be more than the 2 special tokens (got 2)"):
        accelerate(trained[0], texts, tokenizer=trained[1], max_length=2)


# A real model


@pytest.mark.shared
def test_a_real_model_keeps_its_labels_on_texts_that_nobody_has_seen(shared_dir):
    model, tokenizer = load_classifier(str(shared_dir / "models" / "tiny-imdb"))

    def read(name, rows):
        with (shared_dir / "data" / "imdb" / name).open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line, _ in zip(lines, range(rows), strict=False)]

    fast = accelerate(model, read("unlabelled.jsonl", 3000), tokenizer=tokenizer, agreement=0.97, max_length=256)
    test = read("test.jsonl", 1000)
    found = fast.predict(test, tokenizer=tokenizer)
    full = EarlyExitTextClassificationModel(model).predict(test, tokenizer=tokenizer, max_length=256)
    # Three standard errors of 1,000 rows below what is certified of all.
    assert (found.labels == full.labels).float().mean() >= 0.97 - 3 * (0.97 * 0.03 / 1000) ** 0.5
    assert (found.exit_site >= 0).float().mean() > 0.5
    assert fast.policy.certificate.speedup > 1
