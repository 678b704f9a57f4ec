"""Classes that no row gets early: no step of the certified path gives one, and the promise holds all the same."""

from __future__ import annotations

import numpy as np
import pytest
from certificate_checks import assert_certificate_is_what_it_does
from split_samples import calibration_places

from moco_rt import EarlyExitTextClassificationModel, accelerate
from moco_rt.architectures import SingleLabel
from moco_rt.tuning.accelerate import held_classes

pytestmark = pytest.mark.usefixtures("quick_off_ramps")

OPTIONS = {"dtype": None, "agreement": 0.95}


def left_as(fast, texts):
    """The labels of rows that left early."""
    found = fast.predict(texts)
    return found.labels[found.exit_site >= 0].tolist()


@pytest.mark.parametrize("held", [0, 1])
def test_no_row_gets_such_a_class_early_at_any_step(trained, texts, held):
    model, tokenizer = trained
    name = model.config.id2label[held]
    fast = accelerate(model, texts, tokenizer=tokenizer, never_early=[name], **OPTIONS)
    thresholds = fast.policy.path.policies.thresholds
    assert np.isposinf(thresholds[..., held]).all()
    assert np.isfinite(thresholds[..., 1 - held]).any()
    assert all(np.isposinf(exit.condition.thresholds[held]) for exit in fast.policy.exits)
    for step in range(len(thresholds)):
        if step == 0 or fast.policy.path.policies.variant[step] == 0:
            fast.policy.take_step(step)
            assert held not in left_as(fast, texts[:200])
    assert set(left_as(fast, texts[:400])) == {1 - held}


def test_the_certificate_is_what_it_does(trained, texts):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, never_early=["POSITIVE"], **OPTIONS)
    places = calibration_places(tokenizer, texts, 0)
    assert_certificate_is_what_it_does(fast, model, tokenizer, [texts[place] for place in places])
    assert {count.predicted_class for count in fast.policy.certificate.exits} == {model.config.label2id["NEGATIVE"]}


def test_where_no_class_may_leave_all_run_to_the_end(trained, texts):
    model, tokenizer = trained
    fast = accelerate(model, texts, tokenizer=tokenizer, never_early=["POSITIVE", "NEGATIVE"], **OPTIONS)
    assert not fast.policy.exits
    assert left_as(fast, texts[:50]) == []


def test_a_name_holds_all_classes_that_have_it(tiny_bert):
    model = EarlyExitTextClassificationModel(tiny_bert(labels=3, id2label={0: "toxic", 1: "ok", 2: "toxic"}))
    assert held_classes(["toxic"], model) == [0, 2]


def test_what_is_no_class_is_refused_before_any_work(trained, texts, one_line_error):
    model, tokenizer = trained
    options = {"tokenizer": tokenizer, **OPTIONS}
    with one_line_error(ValueError, "never_early must be classes of the model, NEGATIVE, POSITIVE (got 'toxic')"):
        accelerate(model, texts, never_early=["toxic"], **options)
    with one_line_error(TypeError, "never_early must be a list of names of classes (got 'POSITIVE')"):
        accelerate(model, texts, never_early="POSITIVE", **options)
    with one_line_error(ValueError, "by which rows leave in no class (got ['POSITIVE'])"):
        accelerate(model, texts, never_early=["POSITIVE"], task=SingleLabel(threshold={"POSITIVE": 0.8}), **options)
    with one_line_error(ValueError, "variants must be empty with never_early: a smaller model gives all classes early"):
        accelerate(model, texts, never_early=["POSITIVE"], variants=[model], **options)
    with one_line_error(ValueError, "never_early must be empty for tiers"):
        accelerate([(model, tokenizer)], texts, never_early=["POSITIVE"], agreement=0.95)
