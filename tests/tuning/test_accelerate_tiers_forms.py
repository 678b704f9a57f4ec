"""Numeric forms of a cascade: whatever runs, the certificate is about the last tier as it was given."""

from __future__ import annotations

import copy

import pytest
import torch
from split_samples import calibration_places, distinct_reviews

from moco_rt import Cascade, EarlyExitTextClassificationModel, quantize
from moco_rt._C import can_multiply
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.tuning import accelerate_tiers
from moco_rt.tuning.accelerate import accelerate

pytestmark = pytest.mark.usefixtures("quick_off_ramps", "tiers_cost")


@pytest.fixture(scope="module")
def texts(large):
    return [row.text for row in distinct_reviews(large[1], 600)]


@pytest.fixture(scope="module")
def in_int8(small, large, texts, tiers_cost):  # noqa: ARG001
    return accelerate([small, large], texts, agreement=0.93)


def labels_of(pair, texts):
    return EarlyExitTextClassificationModel(pair[0]).predict(texts, tokenizer=pair[1]).labels


def assert_about_the_given(cascade, large, texts):
    """On the calibration rows as many labels are not the given model's, in float32, as the certificate counts."""
    rows = [texts[i] for i in calibration_places(large[1], texts)]
    differ = int((cascade.predict(rows).labels != labels_of(large, rows)).sum())
    assert (cascade.certificate.disagreements, cascade.certificate.rows) == (differ, len(rows))


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_a_pinned_dtype_is_certified_against_the_model_that_was_given(small, large, texts, dtype):
    if dtype == "bfloat16" and not can_multiply(torch.bfloat16):
        pytest.skip("the processor does not multiply bfloat16")
    pinned = dtype if dtype == "int8" else torch.bfloat16
    cascade = accelerate([small, large], texts, agreement=0.93, dtype=pinned)
    assert {numeric_form(tier.model.model).split("+")[0] for tier in cascade.tiers} == {dtype}
    assert cascade.certificate.variant == dtype
    assert large[0].dtype == torch.float32
    assert cascade.given.model is large[0]
    assert_about_the_given(cascade, large, texts)


def test_auto_takes_the_fastest_form_and_says_what_became_of_the_others(in_int8, large, texts):
    assert in_int8.certificate.variant == "int8"
    assert_about_the_given(in_int8, large, texts)
    assert in_int8.certificate.speedup > 4  # over the last tier as it was given
    lines = [line for line in in_int8.report().splitlines() if line.startswith(("as given ", "int8 "))]
    assert any("taken" in line for line in lines)
    assert set(in_int8.search_report.variants) >= {"as given", "int8"}
    assert in_int8.search_report.variants["as given"][1] == 0


def test_it_is_saved_with_the_model_that_was_given(in_int8, large, texts, tmp_path):
    in_int8.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict(texts).probs, in_int8.predict(texts).probs)
    assert numeric_form(loaded.given.model) == "float32"
    given = loaded.given.predict(texts, tokenizer=large[1]).labels
    assert torch.equal(given, labels_of(large, texts))


def test_a_monitor_compares_with_the_model_that_was_given(in_int8, large, texts):
    """Of a given model that says the contrary, it finds every row wrong."""
    contrary = copy.deepcopy(large[0])
    with torch.no_grad():
        contrary.classifier.weight.neg_()
        contrary.classifier.bias.neg_()
    last = in_int8.tiers[-1].model
    given = last.given
    try:
        last.take_given(EarlyExitTextClassificationModel(contrary))
        monitor = in_int8.monitor(rate=1.0, delta=1e-300)
        early = in_int8.predict(texts)
        rows = sum(process.rows for process in monitor.processes)
        assert rows == int(((early.exit_site >= 0) | (early.tier < len(in_int8.tiers) - 1)).sum()) > 0
        wrong = sum(process.wrong for process in monitor.processes)
        assert wrong > 0.8 * rows
    finally:
        last.take_given(given)
        in_int8.watched_by = None


def test_where_a_pinned_dtype_cannot_be_certified_the_last_tier_stays_as_it_was_given(small, large, texts, monkeypatch):
    def broken(model, *others, **options):  # noqa: ARG001
        made = quantize(model, texts[:64], tokenizer=large[1])
        with torch.no_grad():
            made.classifier.weight.neg_()
            made.classifier.bias.neg_()
        return made

    monkeypatch.setattr(accelerate_tiers, "quantize", broken)
    monkeypatch.setattr(accelerate_tiers, "quantize_variant", lambda model, *others: model)  # noqa: ARG005
    cascade = accelerate([small, large], texts, agreement=0.93, dtype="int8")
    assert cascade.certificate.variant == "as given"
    assert [tier.model.model for tier in cascade.tiers] == [large[0]]
    assert not cascade.tiers[0].model.policy.exits
    assert torch.equal(cascade.predict(texts).labels, labels_of(large, texts))


def test_functions_and_int8_tiers_stand_in_every_form_as_they_are(small, large, texts):
    tiny = quantize(small[0], texts[:64], tokenizer=small[1])
    says = EarlyExitTextClassificationModel(small[0])
    words = lambda some: says.predict(some, tokenizer=small[1]).probs.log()  # noqa: E731
    cascade = accelerate([words, (tiny, small[1]), large], texts, agreement=0.93)
    assert_about_the_given(cascade, large, texts)
    for tier in cascade.tiers[:-1]:
        assert tier.model is words or tier.model.model is tiny


def test_an_int8_tier_is_refused_another_dtype(small, large, texts, one_line_error):
    tiny = quantize(small[0], texts[:64], tokenizer=small[1])
    with one_line_error(ValueError, "dtype must be int8, as the model's weights are (got float32)"):
        accelerate([(tiny, small[1]), large], texts, agreement=0.93, dtype="float32")
