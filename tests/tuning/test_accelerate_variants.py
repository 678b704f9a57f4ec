"""Smaller models that `accelerate` may run in a model's place, under a promise about the model itself."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from certificate_checks import assert_certificate_is_what_it_does
from split_samples import calibration_places
from transformers import BertForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel, accelerate, compress
from moco_rt.studies import study

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@pytest.fixture(scope="module")
def small(trained, texts):
    return compress(trained[0], texts[:600], tokenizer=trained[1], width=0.5, epochs=0)


@pytest.fixture
def small_is_fastest(monkeypatch):
    """Smaller models take a third of the time."""
    measure = study.measure_costs

    def measured(models, *arguments):
        costs = measure(models[:1], *arguments) * len(models)
        return [
            each
            if model.config.model_type == "bert"
            else replace(each, compute=each.compute / 3, scoring=each.scoring / 3, fixed=each.fixed / 3)
            for each, model in zip(costs, models, strict=True)
        ]

    monkeypatch.setattr(study, "measure_costs", measured)


@pytest.mark.usefixtures("small_is_fastest")
def test_a_smaller_model_runs_where_it_is_certified(trained, texts, small, tmp_path):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, dtype=None, agreement=0.9, variants=[small])
    certificate = fast.policy.certificate
    assert certificate.variant == "width 0.5, epochs 0 in float32"
    assert fast.policy.path.policies.variants == ("as given", certificate.variant)
    assert fast.given.model is model
    seconds, differs = fast.search_report.variants[certificate.variant]
    assert seconds < fast.search_report.variants["as given"][0]
    assert 0 < differs < 0.2
    rows = [texts[i] for i in calibration_places(tokenizer, texts)]
    assert_certificate_is_what_it_does(fast, model, tokenizer, rows)
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict(rows).probs, fast.predict(rows).probs)
    assert type(loaded.given.model) is BertForSequenceClassification
    assert "in width 0.5, epochs 0 in float32" in loaded.report()


@pytest.mark.usefixtures("small_is_fastest")
def test_a_poor_smaller_model_is_not_taken(trained, texts, small):
    """It reads nothing of a text; where only the head is wrong, off-ramps may still answer as they have learnt."""
    model, tokenizer = trained
    poor = copy.deepcopy(small)
    with torch.no_grad():
        poor.get_input_embeddings().weight.zero_()
    for dtype in (None, "float32"):
        fast = accelerate(model, texts, tokenizer=tokenizer, dtype=dtype, agreement=0.95, variants=[poor])
        assert fast.policy.certificate.variant == "as given"
        assert fast.policy.exits  # as without variants


@pytest.mark.usefixtures("small_is_fastest")
def test_variants_of_one_kind_are_told_apart_and_tried_in_every_form(trained, texts, small):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, agreement=0.95, variants=[small, small])
    names = fast.policy.path.policies.variants
    assert names[:2] == ("as given", "int8")
    for number in (1, 2):
        for form in ("float32", "int8"):
            assert f"width 0.5, epochs 0 ({number}) in {form}" in names
    pinned = accelerate(model, texts, tokenizer=tokenizer, agreement=0.95, dtype="int8", variants=[small])
    assert pinned.policy.path.policies.variants == ("as given", "int8", "width 0.5, epochs 0 in int8")


def test_a_model_with_other_classes_is_refused(trained, texts, tiny_bert, one_line_error):
    model, tokenizer = trained
    with one_line_error(ValueError, "variants must have the classes of the model"):
        accelerate(model, texts, tokenizer=tokenizer, variants=[tiny_bert(labels=3)])
    tiers = [tiny_bert(), tiny_bert()]
    with one_line_error(ValueError, "variants must be empty: a smaller model can be a tier"):
        accelerate(tiers, texts, variants=[tiny_bert()])
