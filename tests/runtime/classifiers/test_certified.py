"""`predict(certify=)`: the answers that are delivered, and that what was drawn has said which policy gives them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_pictures
from path_samples import CLASSES, HIDDEN, with_path
from transformers import ViTForImageClassification, ViTImageProcessorPil

from moco_rt import EarlyExitImageClassificationModel, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.these_rows import draw_rows
from moco_rt.inputs import batching, prefetch
from moco_rt.statistics.finite_rows import ever_differing, finite_sequence
from moco_rt.statistics.guarantee import Guarantee

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
fields = pytest.mark.parametrize("name", ["labels", "probs", "exit_site", "exit_rule", "tier"])


def make_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 31))) for _ in range(count)]


@pytest.fixture
def fast(tiny_bert, word_tokenizer):
    """The model as it was given, with a path."""
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    fast.tokenizer = word_tokenizer
    return with_path(fast)


@pytest.fixture
def other(tiny_bert, word_tokenizer):
    """Another form of the model that was given, with a path that begins with that model."""
    given = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    changed = copy.deepcopy(given.model)
    with torch.no_grad():
        changed.classifier.bias += torch.tensor([0.05, 0.0, -0.05])
    fast = EarlyExitTextClassificationModel(changed)
    given.tokenizer = fast.tokenizer = word_tokenizer
    fast.take_given(given)
    return with_path(fast, variant=1)


@pytest.fixture(params=["fast", "other"])
def model(request):
    return request.getfixturevalue(request.param)


def plain(fast, tokenizer):
    """The model as it was given, without exits."""
    found = EarlyExitTextClassificationModel(fast.given.model)
    found.tokenizer = tokenizer
    return found


def own_answers(model, step, texts):
    """Those of a policy of the path."""
    again = copy.copy(model)
    again.policy = copy.copy(model.policy)
    again.policy.take_step(step)
    return again.predict(texts)


# What is delivered


@fields
@pytest.mark.parametrize("certify", [0.5, 0.8, 0.9])
def test_drawn_rows_have_the_given_models_answers_and_the_others_those_of_the_policy(
    model, word_tokenizer, certify, name
):
    texts = make_texts(700)
    found = model.predict(texts, certify=certify)
    certificate = found.certificate
    assert 0 < certificate.drawn < 700
    assert certificate.step is not None
    drawn = torch.from_numpy(draw_rows(700, certificate.drawn, 0))
    given, rest = plain(model, word_tokenizer).predict(texts), own_answers(model, certificate.step, texts)
    assert torch.equal(getattr(found, name)[drawn], getattr(given, name)[drawn])
    assert torch.equal(getattr(found, name)[~drawn], getattr(rest, name)[~drawn])
    assert (rest.exit_site[~drawn] >= 0).any()
    assert (found.labels != given.labels).sum() <= certificate.differing


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("certify", [0.6, 0.8, 0.95])
def test_the_policy_is_the_one_that_each_policy_run_by_itself_would_choose(model, word_tokenizer, certify, seed):
    texts = make_texts(500, seed=seed)
    certificate = model.predict(texts, certify=certify, confidence=0.9, seed=seed).certificate
    if certificate.drawn == 0:
        assert certificate.in_full
        return
    drawn = draw_rows(500, certificate.drawn, seed)
    given = plain(model, word_tokenizer).predict(texts).labels
    steps = model.policy.path.possible_steps()
    differ = np.array([(own_answers(model, step, texts).labels != given).numpy() for step in steps])
    found = ever_differing(differ[:, drawn])
    last = finite_sequence(found, certificate.drawn, 500, Guarantee.of_agreement(certify, 0.9))
    seconds = model.policy.path.policies.seconds[steps]
    taken = int(seconds[: last + 1].argmin()) if last >= 0 else 0
    assert certificate.disagreements == found[taken]
    if last < 0 or seconds[taken] >= 1:
        assert (certificate.in_full, certificate.step, certificate.bound) == (True, None, 0)
    else:
        assert certificate.step == steps[taken]


def test_pieces_do_not_show(model, monkeypatch):
    texts = make_texts(300)
    expected = model.predict(texts, certify=0.7)
    for chunk, tokens in ((1, 64), (7, 50), (299, 1000)):
        monkeypatch.setattr(prefetch, "CHUNK_TEXTS", chunk)
        monkeypatch.setattr(batching, "BATCH_TOKENS", tokens)
        found = model.predict(texts, certify=0.7)
        assert found.certificate == expected.certificate
        for name in ("labels", "probs", "exit_site"):
            assert torch.equal(getattr(found, name), getattr(expected, name))


def test_which_rows_are_drawn_does_not_depend_on_the_texts(model):
    found = [model.predict(make_texts(400, seed=seed), certify=0.7) for seed in (1, 2)]
    assert found[0].certificate.drawn == found[1].certificate.drawn
    again = model.predict(make_texts(400, seed=1), certify=0.7, seed=5)
    assert again.certificate.seed == 5
    assert again.certificate.drawn == found[0].certificate.drawn


def test_copies_of_a_text_count_as_rows(model):
    texts = make_texts(20) * 30
    found = model.predict(texts, certify=0.7)
    assert found.certificate.rows == 600
    assert len(found) == 600


def test_the_policy_in_use_and_its_monitor_stay_as_they_are(fast):
    monitor = fast.monitor(rate=1)
    state = fast.policy.state
    fast.predict(make_texts(300), certify=0.7)
    assert fast.policy.state is state
    assert sum(process.rows for process in monitor.processes) == 0


def test_rows_are_taken_from_whatever_holds_them(model):
    texts = make_texts(200)
    expected = model.predict(texts, certify=0.7)
    for held in (iter(texts), np.array(texts), ({"text": text} for text in texts)):
        found = model.predict(held, certify=0.7)
        assert found.certificate == expected.certificate
        assert torch.equal(found.probs, expected.probs)


def test_drawn_rows_are_run_once_by_each_model(model, monkeypatch):
    runs = []
    for each in {model, model.given}:
        run = each.run_packed
        monkeypatch.setattr(each, "run_packed", lambda exits, rows, run=run: runs.append(len(rows)) or run(exits, rows))
    certificate = model.predict(make_texts(400), certify=0.8).certificate
    assert sum(runs) == 400 - certificate.drawn + certificate.drawn * (1 if model.runs_as_given else 2)


# All in full


def assert_in_full(found, model, tokenizer, texts, drawn=None):
    given = plain(model, tokenizer).predict(texts)
    for name in ("labels", "probs", "exit_site", "exit_rule"):
        assert torch.equal(getattr(found, name), getattr(given, name))
    certificate = found.certificate
    assert (certificate.rows, certificate.in_full, certificate.bound) == (len(texts), True, 0.0)
    assert certificate.step is None
    if drawn is not None:
        assert certificate.drawn == drawn


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rows_are_all_run_in_full(model, word_tokenizer, count):
    texts = make_texts(count)
    assert_in_full(model.predict(texts, certify=0.99), model, word_tokenizer, texts, drawn=0)


def test_where_everything_differs_all_rows_are_run_in_full(model, word_tokenizer, monkeypatch):
    """The path promises nothing of rows like these: all leave by its first exit, with whatever class."""
    bag, ramp = model.policy.path.off_ramps[:2]
    assert bag.site == "tokens"
    model.policy.path.policies.thresholds[:, 0] = np.inf
    model.policy.path.policies.thresholds[:, 1:] = -np.inf
    texts = make_texts(400)
    labels = plain(model, word_tokenizer).predict(texts).labels
    seldom = int(labels.bincount(minlength=CLASSES).argmin())
    monkeypatch.setitem(vars(ramp), "layers", ((0 * ramp.layers[0][0], 9 * np.eye(CLASSES, dtype=np.float32)[seldom]),))
    found = model.predict(texts, certify=0.9)
    assert_in_full(found, model, word_tokenizer, texts)
    assert found.certificate.drawn > 0
    drawn = draw_rows(400, found.certificate.drawn, 0)
    assert found.certificate.disagreements == int((labels.numpy()[drawn] != seldom).sum())


def test_where_nothing_is_gained_all_rows_are_run_in_full(model, word_tokenizer):
    model.policy.path.policies.seconds[:] = 1.0
    texts = make_texts(300)
    assert_in_full(model.predict(texts, certify=0.9), model, word_tokenizer, texts, drawn=0)


def test_a_model_without_exits_is_run_in_full(tiny_bert, word_tokenizer):
    for config in ({"labels": 1}, {"problem_type": "multi_label_classification"}, {}):
        bare = EarlyExitTextClassificationModel(tiny_bert(2, **config))
        found = bare.predict(make_texts(30), tokenizer=word_tokenizer, certify=0.99)
        expected = bare.predict(make_texts(30), tokenizer=word_tokenizer)
        assert torch.equal(found.probs, expected.probs)
        assert (found.certificate.drawn, found.certificate.in_full) == (0, True)


# Exits that are no path's


def by_hand(fast):
    weight = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 6.0, 0.01), 1, "encoder.0.attention")
    return fast


@pytest.mark.parametrize("certify", [0.7, 0.95])
def test_exits_by_hand_are_one_policy(tiny_bert, word_tokenizer, certify):
    fast = by_hand(EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES)))
    fast.tokenizer = word_tokenizer
    texts = make_texts(600)
    found = fast.predict(texts, certify=certify)
    certificate = found.certificate
    drawn = draw_rows(600, certificate.drawn, 0)
    own, given = fast.predict(texts), plain(fast, word_tokenizer).predict(texts)
    differ = (own.labels != given.labels).numpy()
    assert certificate.disagreements == int(differ[drawn].sum()) > 0
    assert certificate.step is None
    assert torch.equal(found.probs[drawn], given.probs[drawn])
    rest = given if certificate.in_full else own
    assert torch.equal(found.probs[~drawn], rest.probs[~drawn])
    assert certificate.in_full == (certify > 0.9)


def test_exits_that_were_added_to_a_path_are_not_passed_by(fast):
    by_hand(fast)
    found = fast.predict(make_texts(600), certify=0.5)
    assert found.certificate.step is None
    assert (found.exit_rule == len(fast.policy.exits) - 1).any()


def test_another_form_without_exits_is_compared_too(other, word_tokenizer):
    other.policy = other.policy.without_exits()
    texts = make_texts(600)
    found = other.predict(texts, certify=0.5)
    drawn = draw_rows(600, found.certificate.drawn, 0)
    assert 0 < found.certificate.drawn < 600
    assert torch.equal(found.probs[drawn], plain(other, word_tokenizer).predict(texts).probs[drawn])
    assert torch.equal(found.probs[~drawn], other.predict(texts).probs[~drawn])


# Images


def test_images_are_certified_the_same_way(tiny_classifier):
    fast = EarlyExitImageClassificationModel(make_image_classifier(tiny_classifier, ViTForImageClassification))
    fast.image_processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    with_path(fast)
    pictures = make_pictures(300)
    bare = EarlyExitImageClassificationModel(fast.model)
    given = bare.predict(pictures, image_processor=fast.image_processor)
    for held in (pictures, iter(pictures), [{"img": picture} for picture in pictures]):
        found = fast.predict(held, certify=0.7)
        drawn = draw_rows(300, found.certificate.drawn, 0)
        assert torch.equal(found.probs[drawn], given.probs[drawn])
        rest = given if found.certificate.in_full else own_answers(fast, found.certificate.step, pictures)
        assert torch.equal(found.probs[~drawn], rest.probs[~drawn])


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"certify": 1.0}, "certify must be inside (0, 1) (got 1.0)"),
        ({"certify": 0}, "certify must be inside (0, 1) (got 0)"),
        ({"certify": 0.9, "confidence": 1.2}, "confidence must be inside (0, 1) (got 1.2)"),
        ({"certify": 0.9, "seed": -1}, "seed must be at least 0 (got -1)"),
    ],
)
def test_promises_that_cannot_be_made_are_refused(fast, one_line_error, arguments, words):
    with one_line_error(ValueError, words):
        fast.predict(["good"], **arguments)


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_a_model_in_another_dtype_than_it_was_given_in_promises_nothing(
    tiny_bert, word_tokenizer, one_line_error, dtype
):
    converted = by_hand(EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES), dtype=dtype))
    assert not converted.runs_as_given
    got = f"got one in {dtype}, made of one in float32"
    words = f"certify must be None where the model as it was given is not kept ({got}): accelerate(..., dtype=...)"
    with one_line_error(ValueError, words):
        converted.predict(["good"], tokenizer=word_tokenizer, certify=0.9)
    monitor = converted.monitor(rate=1.0)  # of exits that were found in this dtype
    converted.predict(make_texts(100), tokenizer=word_tokenizer)
    assert monitor.processes[0].rows > 0


def test_a_model_that_was_cast_promises_nothing(tiny_bert, word_tokenizer, one_line_error):
    model = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    model.to(torch.bfloat16)
    assert not model.runs_as_given
    with one_line_error(ValueError, "certify must be None where the model as it was given is not kept"):
        model.predict(["good"], tokenizer=word_tokenizer, certify=0.9)


@pytest.mark.parametrize(("given", "dtype"), [(torch.float16, None), (torch.bfloat16, torch.bfloat16)])
def test_a_dtype_that_is_the_models_own_keeps_it_as_it_was_given(tiny_bert, word_tokenizer, given, dtype):
    model = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES).to(given), dtype=dtype)
    assert model.runs_as_given
    assert model.predict(["good"], tokenizer=word_tokenizer, certify=0.9).certificate.in_full


def test_no_rows_are_refused(fast, tiny_classifier, one_line_error):
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        fast.predict([], certify=0.9)
    images = EarlyExitImageClassificationModel(make_image_classifier(tiny_classifier, ViTForImageClassification))
    with one_line_error(ValueError, "rows must be at least 1 to be certified (got 0)"):
        images.predict([], certify=0.9)


def test_an_error_keeps_what_was_finished(fast, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 20)
    texts = make_texts(300)
    expected = fast.predict(texts, certify=0.7)
    run, calls = fast.run_packed, []

    def break_down(exits, rows):
        calls.append(len(rows))
        if sum(calls) > 250:
            raise RuntimeError("out of order")
        return run(exits, rows)

    monkeypatch.setattr(fast, "run_packed", break_down)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        fast.predict(texts, certify=0.7)
    found = caught.value.prediction
    assert 0 < len(found) < 300
    assert torch.equal(found.probs, expected.probs[: len(found)])
    assert found.certificate is None


def test_images_of_another_size_are_refused(tiny_classifier, one_line_error):
    fast = EarlyExitImageClassificationModel(make_image_classifier(tiny_classifier, ViTForImageClassification))
    fast.image_processor = ViTImageProcessorPil(size={"height": 32, "width": 24})
    with one_line_error(ValueError, "pixel_values must have shape (rows, 3, 24, 24)"):
        with_path(fast).predict(make_pictures(100), certify=0.7)
