"""`accelerate` for labels that may hold at once, and for numbers, from texts to a certified policy."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_samples import make_image_classifier, make_lit_pictures
from transformers import ViTForImageClassification, ViTImageProcessorPil

from moco_rt import (
    EarlyExitImageClassificationModel,
    EarlyExitTextClassificationModel,
    MultiLabel,
    OffRamp,
    Ranking,
    Regression,
    SingleLabel,
    recertify,
)
from moco_rt._C import can_multiply
from moco_rt.architectures import Flags
from moco_rt.certification.these_rows import draw_rows
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.findings import SearchReport
from moco_rt.reports.page import report_page
from moco_rt.studies import study
from moco_rt.studies.splits import split_texts
from moco_rt.tuning import accelerate as accelerate_module

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
MULTI = {"labels": 3, "problem_type": "multi_label_classification"}
#: A model and the task that is asked for, and what is certified.
CASES = {
    "multi-label": (MULTI, None, MultiLabel(), "set of labels"),
    "thresholds": (
        MULTI,
        MultiLabel({"LABEL_2": 0.7}),
        MultiLabel({"LABEL_0": 0.5, "LABEL_1": 0.5, "LABEL_2": 0.7}),
        "set of labels",
    ),
    "flags": (
        {"labels": 3},
        SingleLabel({"LABEL_2": 0.4}),
        Flags({"LABEL_0": None, "LABEL_1": None, "LABEL_2": 0.4}),
        "side of the thresholds",
    ),
    "one number": ({"labels": 1}, Regression(4.0), Regression(4.0), "score within 4"),
    "two numbers": ({"labels": 2, "problem_type": "regression"}, Regression(5.0), Regression(5.0), "score within 5"),
}

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def make_texts(count, seed=0):
    """Distinct texts of a few words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(6, 14))) for _ in range(count)]


@pytest.fixture(scope="module", autouse=True)
def made_up_costs():
    """Leaving early saves time, and the other numeric forms are a little faster, whatever this machine says."""
    real = study.measure_costs

    def measured(models, rows, off_ramps):
        found = []
        for place, costs in enumerate(real(models, rows, off_ramps)):
            sites = list(dict.fromkeys(ramp.site for ramp in off_ramps))
            reach = np.array([*(1.0 + sites.index(ramp.site) for ramp in off_ramps), 2.0 + len(sites)]) / (1 + place)
            compute = np.broadcast_to(reach, costs.compute.shape)
            found.append(replace(costs, compute=compute, scoring=0.01 + 0 * costs.scoring, fixed=0 * costs.fixed))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "measure_costs", measured)
        yield


def accelerate(model, texts, tokenizer, **options):
    return accelerate_module.accelerate(
        model, texts, **{"tokenizer": tokenizer, "dtype": None, "agreement": 0.8, **options}
    )


def logits_of(fast, texts):
    """Logits of one batch, and the exits: (N, C) and (N,)."""
    found = fast(**fast.tokenizer(texts, padding=True, return_tensors="pt"))
    return found.logits, found.exit_site


def calibration_rows(texts, tokenizer, seed=0):
    split = split_texts(texts, lambda some: encode(tokenizer, some, 64), seed=seed)
    return [split.texts[place] for place in range(split.calibration_start, len(split.texts))]


@pytest.fixture(scope="module", params=CASES)
def case(request, tiny_bert):
    config, asked, task, answer = CASES[request.param]
    return tiny_bert(4, **config), asked, task, answer


@pytest.fixture(scope="module")
def found(case, word_tokenizer, made_up_costs, quick_off_ramps):  # noqa: ARG001
    model, asked, task, _ = case
    return accelerate(model, make_texts(1500), word_tokenizer, task=asked), model, task


# The certificate is what the model does


def test_the_counts_of_the_certificate_are_those_of_the_model(case, found, word_tokenizer):
    fast, model, task = found
    rows = calibration_rows(make_texts(1500), word_tokenizer)
    plain = EarlyExitTextClassificationModel(model)
    plain.tokenizer = word_tokenizer
    certificate = fast.policy.certificate
    assert (fast.policy.task, certificate.answer, certificate.rows) == (task, case[3], len(rows))
    with torch.no_grad():
        encoded = word_tokenizer(rows, padding=True, return_tensors="pt")
        outputs, full = fast(**encoded), plain(**encoded)
    same = task.same(full.logits.numpy(), outputs.logits.numpy())
    assert certificate.disagreements == int((~same).sum())
    sites, fired = np.unique(outputs.exit_site[outputs.exit_site >= 0].numpy(), return_counts=True)
    assert {(count.site, count.fired) for count in certificate.exits} == {
        (fast.sites[site], count) for site, count in zip(sites, fired.tolist(), strict=True)
    }
    assert sum(fired) > 0.2 * len(rows)
    assert all(len(exit.condition.thresholds) == 1 for exit in fast.policy.exits)
    assert certificate.alpha == pytest.approx(0.2)
    assert f"same {case[3]} as the full model for at least 80.00% of rows" in fast.report()


def test_rows_have_the_same_bits_alone_and_in_any_batch(found):
    fast, _, _ = found
    texts = make_texts(40, seed=3)
    logits, sites = logits_of(fast, texts)
    assert (sites >= 0).any()
    for place in range(0, 40, 5):
        alone, site = logits_of(fast, texts[place : place + 1])
        assert torch.equal(alone[0], logits[place])
        assert site == sites[place]
    together, apart = (fast.predict(some) for some in (texts, texts[5:6]))
    for name in ("probs", "scores"):
        if (numbers := getattr(together, name)) is not None:
            assert torch.equal(numbers[5:6], getattr(apart, name))


def test_it_comes_back_from_disk(found, tmp_path):
    fast, _, task = found
    texts = make_texts(60, seed=5)
    fast.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "policy.json").read_text(encoding="utf-8"))["task"]
    assert stored["name"] in ("multi_label", "flags", "regression")
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.policy.task == task
    assert loaded.policy.certificate == fast.policy.certificate
    for own, other in zip(logits_of(fast, texts), logits_of(loaded, texts), strict=True):
        assert torch.equal(own, other)
    assert list(loaded.predict(texts)) == list(fast.predict(texts))
    steps = loaded.policy.path.possible_steps()
    loaded.policy.take_step(steps[0])
    assert loaded.policy.step == steps[0]


def test_the_report_has_a_page(found, tmp_path):
    fast = found[0]
    fast.search_report.save(tmp_path / "report.safetensors")
    report = SearchReport.load(tmp_path / "report.safetensors")
    assert list(report.paths) == ["search"]
    assert report.remarks == fast.search_report.remarks
    page = report_page("a model", fast.policy.certificate.table(), report)
    assert f"same {fast.policy.certificate.answer} as" in page


def test_predict_gives_the_labels_that_hold_by_their_thresholds(tiny_bert, word_tokenizer):
    task = MultiLabel({"LABEL_0": 0.9, "LABEL_1": 0.1})
    fast = accelerate(tiny_bert(4, **MULTI), make_texts(800), word_tokenizer, task=task)
    prediction = fast.predict(make_texts(100, seed=9))
    for row, probs in zip(prediction, prediction.probs.tolist(), strict=True):
        holding = [c for c, least in enumerate((0.9, 0.1, 0.5)) if probs[c] >= least]
        assert row["label"] == [f"LABEL_{c}" for c in holding]


# Monitors


def test_a_monitor_counts_the_rows_whose_answers_differ_by_the_task(found):
    fast, model, task = found
    fast = copy.deepcopy(fast)
    monitor = fast.monitor(rate=1.0, delta=1e-12)  # without alarms, after which it counts anew
    texts = make_texts(300, seed=11)
    logits, sites = logits_of(fast, texts)
    plain = EarlyExitTextClassificationModel(model)
    plain.tokenizer = fast.tokenizer
    given, _ = logits_of(plain, texts)
    left = sites.numpy() >= 0
    wrong = ~task.same(given.numpy(), logits.numpy())[left]
    assert sum(process.rows for process in monitor.processes) == left.sum() > 0
    assert sum(process.wrong for process in monitor.processes) == wrong.sum()


# Promises about these rows, and fresh ones


def test_drawn_rows_have_the_given_models_answers_and_few_others_differ(found):
    fast, model, task = found
    texts = make_texts(600, seed=21)
    plain = EarlyExitTextClassificationModel(model)
    plain.tokenizer = fast.tokenizer
    given, _ = logits_of(plain, texts)
    prediction = fast.predict(texts, certify=0.7)
    certificate = prediction.certificate
    assert 0 < certificate.drawn < 600
    assert not certificate.in_full
    again = copy.copy(fast)
    again.policy = copy.copy(fast.policy)
    again.policy.take_step(certificate.step)
    ours, _ = logits_of(again, texts)
    differs = ~task.same(given.numpy(), ours.numpy())
    drawn = draw_rows(600, certificate.drawn, 0)
    assert certificate.disagreements >= differs[drawn].sum()
    assert differs[~drawn].sum() <= certificate.differing
    rows = [prediction.probs, prediction.scores]
    expected = [plain.predict(texts).probs, plain.predict(texts).scores]
    for own, other in zip(rows, expected, strict=True):
        if own is not None:
            assert torch.equal(own[torch.from_numpy(drawn)], other[torch.from_numpy(drawn)])


def test_fresh_rows_certify_it_again(found, one_line_error):
    fast = copy.deepcopy(found[0])
    texts = list(dict.fromkeys(make_texts(500, seed=22)))
    with one_line_error(ValueError, f"labels must be None for {found[2]} (got labels)"):
        recertify(fast, texts, labels=[0] * len(texts))
    again = recertify(fast, texts)
    plain = EarlyExitTextClassificationModel(found[1])
    plain.tokenizer = fast.tokenizer
    (given, _), (ours, _) = logits_of(plain, texts), logits_of(fast, texts)
    differs = ~found[2].same(given.numpy(), ours.numpy())
    assert (again.new.rows, again.new.disagreements) == (len(texts), differs.sum())
    assert again.new.answer == found[2].answer


# Numeric forms


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "auto"])
def test_other_forms_are_held_against_the_given_models_answers(case, word_tokenizer, tmp_path, dtype):
    if dtype == "bfloat16" and not can_multiply(torch.bfloat16):
        pytest.skip("the processor does not multiply bfloat16")
    model, asked, task, _ = case
    texts = make_texts(1500)
    fast = accelerate(model, texts, word_tokenizer, task=asked, dtype=dtype, agreement=0.7)
    assert fast.policy.certificate.variant != "as given"
    rows = calibration_rows(texts, word_tokenizer)
    encoded = word_tokenizer(rows, padding=True, return_tensors="pt")
    with torch.no_grad():
        own, given = fast(**encoded).logits, EarlyExitTextClassificationModel(model)(**encoded).logits
    differs = ~task.same(given.float().numpy(), own.float().numpy())
    assert fast.policy.certificate.disagreements == int(differs.sum())
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    for one, other in zip(logits_of(fast, texts[:50]), logits_of(loaded, texts[:50]), strict=True):
        assert torch.equal(one, other)


# Images


def test_images_may_have_several_labels(tiny_classifier):
    settings = {"num_labels": 3, "problem_type": "multi_label_classification", "initializer_range": 0.1}
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, **settings)
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    pictures = make_lit_pictures(400)[0]
    fast = accelerate_module.accelerate(model, pictures, image_processor=processor, agreement=0.8, dtype=None)
    assert isinstance(fast, EarlyExitImageClassificationModel)
    assert fast.policy.task == MultiLabel()
    assert {"label", "prob", "exit"} == {field for row in fast.predict(pictures[:5]) for field in row}


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"promise": "per class"},
            "promise must be 'confident', and labels None, for MultiLabel(threshold=0.5) (got p",
        ),
        (
            {"promise": "accuracy", "max_drop": 0.01, "labels": [0] * 300},
            "promise must be 'confident', and labels None",
        ),
        (
            {"labels": [0] * 300},
            "promise must be 'confident', and labels None, for MultiLabel(threshold=0.5) (got labels)",
        ),
        ({"agreement": {"LABEL_0": 0.9}}, "agreement must be a number"),
        (
            {"task": Regression(1.0)},
            "model must have problem_type='regression', or one label, for Regression (got num_l",
        ),
        (
            {"task": MultiLabel({"cat": 0.1})},
            "threshold must map some of the classes LABEL_0, LABEL_1, LABEL_2 to numb",
        ),
        ({"task": Ranking()}, "model must have one label to rank by (got 3)"),
    ],
)
def test_what_does_not_go_with_several_labels_is_refused(tiny_bert, word_tokenizer, one_line_error, options, words):
    with one_line_error(ValueError, words):
        accelerate(tiny_bert(**MULTI), make_texts(300), word_tokenizer, **options)


@pytest.mark.parametrize("config", [{"labels": 1}, {"labels": 2, "problem_type": "regression"}])
def test_numbers_without_a_tolerance_are_refused(tiny_bert, word_tokenizer, one_line_error, config):
    words = "task must be Regression(tolerance=...) for a model that gives numbers, or Ranking(keep_top=...) for a rera"
    with one_line_error(ValueError, words):
        accelerate(tiny_bert(**config), make_texts(300), word_tokenizer)


def test_one_label_of_several_is_no_set(tiny_bert, word_tokenizer, one_line_error):
    with one_line_error(ValueError, "for MultiLabel (got num_labels=2, problem_type=None)"):
        accelerate(tiny_bert(), make_texts(300), word_tokenizer, task=MultiLabel())
    with one_line_error(ValueError, "task must be None: tiers choose one label (got MultiLabel(threshold=0.5))"):
        accelerate([tiny_bert(), tiny_bert(4)], make_texts(300), None, task=MultiLabel())


def test_exits_by_hand_are_for_one_label(found, one_line_error):
    fast = found[0]
    with one_line_error(ValueError, "exit must be an off-ramp for "):
        fast.add_rule(lambda cls: cls[:, 0] > 0, 0, "encoder.0.attention")
    classes = max(2, fast.policy.num_classes)
    ramp = OffRamp(((np.zeros((classes, 64)), np.zeros(classes)),), [0.5] * classes, [0.1] * classes)
    with one_line_error(ValueError, "off-ramp must "):
        fast.add_off_ramp(ramp, "encoder.0.attention")


def test_a_few_constant_answers_break_nothing(tiny_bert, word_tokenizer):
    model = tiny_bert(3, labels=1)
    with torch.no_grad():
        model.classifier.weight.zero_()
    fast = accelerate(model, make_texts(500), word_tokenizer, task=Regression(0.01))
    assert fast.policy.certificate.disagreements == 0
    assert fast.policy.exits
