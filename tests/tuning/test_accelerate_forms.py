"""The numeric forms that `accelerate` tries: which one runs, and a promise that is about the model as it was given."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from certificate_checks import assert_certificate_is_what_it_does
from form_costs import costs_of_forms
from split_samples import calibration_places, distinct_reviews

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import can_multiply
from moco_rt.architectures.conversion import int8_copy
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.studies import study
from moco_rt.tuning import given as given_module
from moco_rt.tuning.accelerate import accelerate

pytestmark = pytest.mark.usefixtures("quick_off_ramps")

#: Forms that are tried of a float32 model, in their order.
FORMS = ["int8", *(["bfloat16"] if can_multiply(torch.bfloat16) else [])]


@pytest.fixture
def int8_is_fastest(monkeypatch):
    monkeypatch.setattr(study, "measure_costs", costs_of_forms(int8=0.3, bfloat16=0.5))


@pytest.fixture(scope="module")
def fast(trained, texts, quick_off_ramps):  # noqa: ARG001
    """In int8, which is fastest here whatever this machine's mood."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "measure_costs", costs_of_forms(int8=0.3, bfloat16=0.5))
        return accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95)


@pytest.fixture
def poor_int8(monkeypatch):
    """The int8 copy has other weights than it should: it says nearly always the other class."""

    def poor(model, *_, **__):
        negated = copy.deepcopy(model)
        with torch.no_grad():
            negated.classifier.weight.neg_()
            negated.classifier.bias.neg_()
        return int8_copy(negated)

    monkeypatch.setattr(given_module, "quantize", poor)


def certified_texts(trained, texts):
    return [texts[i] for i in calibration_places(trained[1], texts)]


def assert_same_bits(one, other, texts):
    found, expected = one.predict(texts), other.predict(texts)
    for name in ("labels", "probs", "exit_site", "exit_rule"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


# Which form runs


def test_the_fastest_form_runs_and_is_named(fast, trained, texts):
    certificate = fast.policy.certificate
    assert certificate.variant == "int8"
    assert is_int8(fast.model)
    assert fast.policy.path.policies.variants == ("as given", *FORMS)
    assert fast.policy.exits
    assert certificate.seconds < 0.3
    assert certificate.seconds_full == pytest.approx(1.0)  # of the model as it was given
    assert fast.policy.made_for["dtype"] == "int8"
    said = fast.report().splitlines()
    assert any("in int8 instead of" in line for line in said)
    assert [line.split()[0] for line in said if line.endswith((": taken", ": slower"))][-1] == "int8"
    assert_certificate_is_what_it_does(fast, trained[0], trained[1], certified_texts(trained, texts))


def test_the_model_as_it_was_given_stays_at_hand(fast, trained, texts):
    model, tokenizer = trained
    given = fast.given
    assert (given.model, given.tokenizer, fast.tokenizer) == (model, tokenizer, tokenizer)
    assert (given.policy.exits, given.dtype) == ((), torch.float32)
    plain = EarlyExitTextClassificationModel(model)
    assert torch.equal(given.predict(texts[:50]).probs, plain.predict(texts[:50], tokenizer=tokenizer).probs)
    assert not is_int8(model)


def test_answers_differ_on_no_more_rows_than_promised(fast, trained, texts):
    known = set(texts)
    fresh = [row.text for row in distinct_reviews(trained[1], 4000) if row.text not in known]
    assert len(fresh) > 3000
    differ = (fast.predict(fresh).labels != fast.given.predict(fresh).labels).float().mean()
    # Three standard errors of the fresh rows above what is promised of all.
    assert 0 < differ <= 0.05 + 3 * (0.05 * 0.95 / len(fresh)) ** 0.5


@pytest.mark.usefixtures("int8_is_fastest")
def test_asked_for_none_only_the_models_own_dtype_is_tried(trained, texts):
    fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95, dtype=None)
    assert fast.policy.path.policies.variants == ("as given",)
    assert fast.policy.certificate.variant == "as given"
    assert (fast.model, fast.given.model, fast.runs_as_given) == (trained[0], trained[0], True)


def test_a_form_that_is_slower_does_not_run(trained, texts, monkeypatch):
    monkeypatch.setattr(study, "measure_costs", costs_of_forms(int8=3.0, bfloat16=2.0))
    fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95)
    assert fast.policy.path.policies.variants == ("as given", *FORMS)
    assert fast.policy.certificate.variant == "as given"
    assert fast.policy.exits
    assert (fast.model, fast.given.model, fast.runs_as_given) == (trained[0], trained[0], True)
    assert "given" not in fast.policy.made_for


@pytest.mark.usefixtures("int8_is_fastest")
def test_to_ask_for_less_is_never_slower_whatever_form_runs(trained, texts, fast):
    # `fast` is what 0.95 gives.
    made = {share: accelerate(trained[0], texts, tokenizer=trained[1], agreement=share) for share in (0.99, 0.97, 0.9)}
    seconds = [each.policy.certificate.seconds for each in (made[0.99], made[0.97], fast, made[0.9])]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < 0.3


@pytest.mark.skipif(not can_multiply(torch.bfloat16), reason="the processor does not multiply bfloat16")
@pytest.mark.usefixtures("int8_is_fastest")
def test_of_a_model_in_bfloat16_float32_is_another_form(trained, texts):
    model = copy.deepcopy(trained[0]).bfloat16()
    fast = accelerate(model, texts, tokenizer=trained[1], agreement=0.95)
    assert fast.policy.path.policies.variants == ("as given", "int8", "float32")
    assert fast.given.dtype == torch.bfloat16
    assert_certificate_is_what_it_does(fast, model, trained[1], certified_texts(trained, texts))


@pytest.mark.usefixtures("int8_is_fastest", "poor_int8")
def test_a_form_whose_answers_are_others_does_not_run(trained, texts):
    fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95)
    assert fast.policy.certificate.variant != "int8"
    assert_certificate_is_what_it_does(fast, trained[0], trained[1], certified_texts(trained, texts))


@pytest.mark.usefixtures("int8_is_fastest")
def test_a_form_that_cannot_be_made_is_left_out_and_refused_where_it_was_asked_for(
    trained, texts, monkeypatch, caplog, one_line_error
):
    def refuse(*_, **__):
        raise ValueError("model must have what int8 needs (got none)")

    monkeypatch.setattr(given_module, "quantize", refuse)
    with caplog.at_level(logging.INFO, logger="moco_rt"):
        fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95)
    assert "int8" not in fast.policy.path.policies.variants
    assert "int8 is not tried: model must have what int8 needs (got none)" in caplog.text
    with one_line_error(ValueError, "model must have what int8 needs (got none)"):
        accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95, dtype="int8")


def test_a_model_in_int8_is_taken_as_it_is(trained, texts):
    model = int8_copy(trained[0])
    fast = accelerate(model, texts, tokenizer=trained[1], agreement=0.95)
    assert (fast.model, fast.given.model, fast.runs_as_given) == (model, model, True)
    assert fast.policy.path.policies.variants == ("as given",)
    assert_certificate_is_what_it_does(fast, model, trained[1], certified_texts(trained, texts))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.float32])
def test_int8_weights_are_refused_another_dtype(trained, texts, one_line_error, dtype):
    options = {"tokenizer": trained[1], "agreement": 0.95, "dtype": dtype}
    small = int8_copy(trained[0])
    with one_line_error(ValueError, f"dtype must be int8, as the model's weights are (got {dtype})"):
        accelerate(small, texts, **options)
    with one_line_error(ValueError, f"dtype must be int8, as the model's weights are (got {dtype})"):
        accelerate(trained[0], texts, variants=[small], **options)


# A form that was asked for


@pytest.mark.usefixtures("int8_is_fastest")
def test_the_dtype_that_was_asked_for_is_certified_against_the_given_model(trained, texts, packed_dtype, tmp_path):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, agreement=0.95, dtype=packed_dtype)
    assert (fast.dtype, model.dtype) == (packed_dtype, torch.float32)
    assert_certificate_is_what_it_does(fast, model, tokenizer, certified_texts(trained, texts))
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.dtype == packed_dtype
    assert (tmp_path / "given").exists() == (packed_dtype != torch.float32)
    assert_same_bits(loaded, fast, texts[:300])


@pytest.mark.usefixtures("int8_is_fastest")
def test_int8_that_was_asked_for_is_certified_against_the_given_model(trained, texts):
    fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95, dtype="int8")
    assert fast.policy.path.policies.variants == ("as given", "int8")
    # The model as it was given has no exits here: the path begins with it, and goes on in int8.
    assert (fast.policy.path.policies.variant[1:] == 1).all()
    assert fast.policy.certificate.variant == "int8"
    assert fast.given.model is trained[0]
    assert "int8: " in fast.report()
    assert_certificate_is_what_it_does(fast, trained[0], trained[1], certified_texts(trained, texts))


@pytest.mark.usefixtures("poor_int8", "int8_is_fastest")
def test_a_form_that_cannot_keep_the_promise_leaves_the_model_as_it_was_given(trained, texts, caplog):
    fast = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95, dtype="int8")
    certificate = fast.policy.certificate
    assert (fast.model, fast.given, fast.policy.exits) == (trained[0], fast, ())
    assert (certificate.variant, certificate.disagreements, certificate.speedup) == ("as given", 0, 1.0)
    assert "the model is left as it is" in caplog.text
    plain = EarlyExitTextClassificationModel(trained[0])
    assert torch.equal(fast.predict(texts[:50]).probs, plain.predict(texts[:50], tokenizer=trained[1]).probs)


# On disk, and watched


def test_the_same_bits_and_the_given_model_come_back_from_disk(fast, texts, tmp_path):
    fast.save_pretrained(tmp_path)
    assert (tmp_path / "given" / "config.json").exists()
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.policy.certificate == fast.policy.certificate
    assert loaded.policy.made_for == fast.policy.made_for
    path, expected = loaded.policy.path.policies, fast.policy.path.policies
    assert path.variants == expected.variants
    np.testing.assert_array_equal(path.variant, expected.variant)
    assert_same_bits(loaded, fast, texts[:300])
    given = loaded.given.predict(texts[:300], tokenizer=loaded.tokenizer)
    assert torch.equal(given.probs, fast.given.predict(texts[:300]).probs)


def test_a_model_that_runs_as_it_was_given_takes_the_place_of_one_that_does_not(fast, trained, texts, tmp_path):
    fast.save_pretrained(tmp_path)
    own = accelerate(trained[0], texts, tokenizer=trained[1], agreement=0.95, dtype=None)
    own.save_pretrained(tmp_path)
    assert not (tmp_path / "given").exists()
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.runs_as_given
    assert_same_bits(loaded, own, texts[:300])


def test_a_monitor_compares_with_the_model_that_was_given(fast, texts, tmp_path):
    fast.save_pretrained(tmp_path)
    watched = EarlyExitTextClassificationModel.from_pretrained(tmp_path)  # the fixture stays unwatched
    monitor = watched.monitor(rate=1)
    answers = watched.predict(texts)
    expected = fast.given.predict(texts).labels
    for place, process in enumerate(monitor.processes):
        left = answers.exit_rule == place
        assert process.rows == int(left.sum())
        assert process.wrong == int((answers.labels != expected)[left].sum())
    assert sum(process.rows for process in monitor.processes) > 100
