"""A saved model is certified again on fresh rows, without a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from path_samples import CLASSES, HIDDEN, STEPS, with_path

from moco_rt import EarlyExitTextClassificationModel, LinearCondition, cli, recertify
from moco_rt.certification.certificate import Certificate, ClassPromise
from moco_rt.certification.policy_path import NOT_TESTED
from moco_rt.policies.fingerprints import model_identity
from moco_rt.reports.page import report_page
from moco_rt.statistics.bounds import fixed_sequence
from moco_rt.statistics.guarantee import Guarantee

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]


def make_texts(count, seed=0):
    """Texts that are all different."""
    rng, texts = np.random.default_rng(seed), {}
    while len(texts) < count:
        texts[" ".join(rng.choice(WORDS, size=rng.integers(4, 31)))] = None
    return list(texts)


@pytest.fixture
def fast(tiny_bert, word_tokenizer):
    """A model with a path and a promise of 90%."""
    fast = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    fast.tokenizer = word_tokenizer
    with_path(fast)
    fast.policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    return fast


def differing(fast, texts):
    """Which texts get another label by each policy of the path, each run by itself, and the full model's labels."""
    plain = EarlyExitTextClassificationModel(fast.model)
    labels = plain.predict(texts, tokenizer=fast.tokenizer).labels
    step, found = fast.policy.step, []
    for other in range(STEPS):
        fast.policy.take_step(other)
        found.append((fast.predict(texts).labels != labels).numpy())
    fast.policy.take_step(step)
    return np.array(found), labels


@pytest.mark.parametrize("seed", range(6))
def test_the_step_is_the_one_that_each_policy_run_by_itself_would_give(fast, seed):
    texts = make_texts(400, seed)
    differs, _ = differing(fast, texts)
    last = fixed_sequence(differs.sum(axis=1), 400, Guarantee(0.1, 0.05))
    taken = int(fast.policy.path.policies.seconds[: last + 1].argmin())
    old = fast.policy.certificate
    found = recertify(fast, texts)
    assert (found.old, found.old_step, found.new_step) == (old, 1, taken)
    assert fast.policy.step == taken
    assert fast.policy.certificate is found.new
    assert (found.new.rows, found.new.disagreements) == (400, differs[taken].sum())
    assert sum(count.fired for count in found.new.exits) == (fast.predict(texts).exit_site >= 0).sum()
    assert "at least 90.00%" in str(found)


def test_copies_count_once_and_true_classes_give_accuracies(fast):
    texts = make_texts(300)
    differs, labels = differing(fast, texts)
    found = recertify(fast, [*texts, *texts[:100]], labels=[*labels.tolist(), *labels[:100].tolist()])
    assert (found.new.rows, found.new.rows_in_all) == (300, 400)
    assert found.new.accuracy_full == 1
    step = found.new_step
    assert found.new.accuracy == pytest.approx(1 - (differs[step].sum() + differs[step, :100].sum()) / 400)


def test_other_promises_are_kept_too(fast):
    texts = make_texts(400)
    classes = tuple(ClassPromise(c, None if c == 2 else 0.4, 1, 0) for c in range(CLASSES))
    fast.policy.certificate = Certificate(None, 0.05, 1000, 2, 1.0, 0.6, (), promise="per class", classes=classes)
    found = recertify(fast, texts)
    assert [promised.alpha for promised in found.new.classes] == [0.4, 0.4, None]
    assert sum(promised.rows for promised in found.new.classes) == 400
    fast.policy.certificate = Certificate(None, 0.05, 1000, 2, 1.0, 0.6, (), promise="accuracy", max_drop=0.2)
    with pytest.raises(ValueError, match="labels must be given: the promise is about accuracy"):
        recertify(fast, texts)
    _, labels = differing(fast, texts)
    assert recertify(fast, texts, labels=labels).new.max_drop == 0.2


def test_another_form_is_compared_with_the_model_as_it_was_given(fast, tiny_bert):
    given = EarlyExitTextClassificationModel(tiny_bert(2, labels=CLASSES))
    given.tokenizer = fast.tokenizer
    with torch.no_grad():
        fast.model.classifier.bias += torch.tensor([0.05, 0.0, -0.05])
    own = EarlyExitTextClassificationModel(fast.model)
    own.tokenizer = fast.tokenizer
    own.take_given(given)
    with_path(own, variant=1)
    own.policy.certificate = Certificate(0.2, 0.05, 1000, 2, 1.0, 0.6, (), variant="other")
    texts = make_texts(400)
    found = recertify(own, texts)
    assert found.new_step >= 1
    labels = given.predict(texts).labels
    assert found.new.disagreements == (own.predict(texts).labels != labels).sum()


def test_where_nothing_can_be_certified_the_model_stays_as_it_was(fast, one_line_error):
    other = EarlyExitTextClassificationModel(fast.model)
    with one_line_error(ValueError, "model must have a certified path, which accelerate finds (it has none)"):
        recertify(other, make_texts(5))
    with one_line_error(ValueError, "labels must be one for each of the 5 inputs (got 2)"):
        recertify(fast, make_texts(5), labels=[0, 1])
    policies = fast.policy.path.policies
    policies.variant[:2] = [1, 1]
    policies.thresholds[1:] = -np.inf  # all leave at once, by whatever they meet first
    fast.policy.certificate = Certificate(0.001, 0.05, 1000, 2, 1.0, 0.6, ())
    policies.variant[:] = 0
    policies.variant[0] = 1
    before = fast.policy.certificate, fast.policy.step
    with one_line_error(ValueError, "inputs must certify a policy of the path: under the safest of this form"):
        recertify(fast, make_texts(5000))
    assert (fast.policy.certificate, fast.policy.step) == before


def test_it_is_saved_and_loaded(fast, tmp_path):
    found = recertify(fast, make_texts(400))
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    assert loaded.policy.certificate == found.new
    assert loaded.policy.step == found.new_step


@pytest.mark.parametrize("count", [1, 28])
def test_too_few_rows_do_not_weaken_the_promise(fast, one_line_error, count):
    """90% with 95% confidence needs 29 rows without an error."""
    before = fast.policy.certificate, fast.policy.step
    with one_line_error(ValueError, "inputs must have at least 29 distinct rows to show 90.00% again (got "):
        recertify(fast, make_texts(count))
    assert (fast.policy.certificate, fast.policy.step) == before


def test_too_few_rows_of_a_class_are_named(fast, one_line_error):
    classes = tuple(ClassPromise(c, 0.1 if c == 1 else None, 100, 0) for c in range(CLASSES))
    fast.policy.certificate = Certificate(None, 0.05, 1000, 2, 1.0, 0.6, (), classes=classes, promise="per class")
    with one_line_error(ValueError, "inputs must have at least 29 distinct rows that the given model calls LABEL_1"):
        recertify(fast, make_texts(12))


# The path


def test_the_path_says_what_the_fresh_rows_say(fast):
    """Steps behind the last that fresh rows certify are not certified any more, whatever the rows of before said."""
    texts = make_texts(400)
    policies = fast.policy.path.policies
    fast.policy.path = replace(fast.policy.path, policies=replace(policies, certified=STEPS - 1))
    differs, _ = differing(fast, texts)
    fast.policy.certificate = replace(fast.policy.certificate, alpha=0.05)
    last = fixed_sequence(differs.sum(axis=1), 400, Guarantee(0.05, 0.05))
    assert 0 < last < STEPS - 1
    found = recertify(fast, texts)
    now = fast.policy.path.policies
    assert (now.certified, now.chosen, now.rows) == (last, found.new_step, 400)
    assert now.disagreements.tolist() == differs.sum(axis=1).tolist()
    assert fast.policy.is_certified
    for step in range(STEPS):
        fast.policy.take_step(step)
        assert fast.policy.is_certified == (step <= last)


def test_a_faster_step_than_was_certified_before_is_certified_by_fresh_rows(fast):
    fast.policy.certificate = Certificate(0.9, 0.05, 1000, 2, 1.0, 0.6, ())
    assert fast.policy.path.policies.certified == 1
    found = recertify(fast, make_texts(400))
    assert found.new_step > 1
    assert fast.policy.is_certified
    assert "nothing is promised" not in fast.report()


def test_a_model_that_was_changed_is_not_certified_again(fast, one_line_error):
    fast.policy.made_for = model_identity(fast.model)
    before, step = fast.policy.certificate, fast.policy.step
    with torch.no_grad():
        fast.model.classifier.bias += 1
    with one_line_error(ValueError, "the policy was made for a model with another weights"):
        recertify(fast, make_texts(400))
    assert fast.policy.certificate is before
    assert fast.policy.step == step


def test_exits_are_counted_at_every_step(fast):
    texts = make_texts(400)
    differs, _ = differing(fast, texts)
    recertify(fast, texts)
    now = fast.policy.path.policies
    for step in range(STEPS):
        fast.policy.take_step(step)
        exit_rule = fast.predict(texts).exit_rule.numpy()
        used = np.flatnonzero(~np.isposinf(now.thresholds[step]).all(axis=1))
        assert now.fired[step, used].tolist() == [(exit_rule == place).sum() for place in range(len(used))]
        assert now.wrong[step, used].tolist() == [differs[step, exit_rule == place].sum() for place in range(len(used))]
        assert now.fired[step].sum() == (exit_rule >= 0).sum()


def test_of_policies_of_other_variants_fresh_rows_say_nothing(fast):
    policies = fast.policy.path.policies
    policies.variant[-1] = 1
    recertify(fast, make_texts(400))
    assert fast.policy.path.policies.disagreements[-1] == NOT_TESTED
    assert "other     not tested on the rows of this certificate" in fast.report()


def test_the_path_is_saved_with_its_fresh_counts(fast, tmp_path):
    recertify(fast, make_texts(400))
    fast.save_pretrained(tmp_path)
    now, loaded = fast.policy.path.policies, EarlyExitTextClassificationModel.from_pretrained(tmp_path).policy
    assert loaded.is_certified
    for name in ("disagreements", "fired", "wrong"):
        np.testing.assert_array_equal(getattr(loaded.path.policies, name), getattr(now, name))
    assert (loaded.path.policies.rows, loaded.path.policies.certified) == (now.rows, now.certified)


def test_a_monitor_begins_anew_although_the_step_is_the_same(fast, tmp_path):
    fast.policy.certificate = Certificate(0.2, 0.05, 1000, 2, 1.0, 0.6, ())
    step = recertify(fast, make_texts(400)).new_step
    monitor = fast.monitor(rate=1.0)
    fast.predict(make_texts(50, seed=1))
    assert sum(monitor.state()["rows"]) > 0
    assert recertify(fast, make_texts(800, seed=2)).new_step == step
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path)
    for model in (fast, loaded):
        assert sum(model.monitor(rate=1.0).state()["rows"]) == 0


def test_the_report_is_about_the_fresh_rows(fast, tmp_path):
    texts = make_texts(400)
    fast.search_report = None
    found = recertify(fast, texts)
    report = fast.search_report
    report.check()
    prediction = fast.predict(texts)
    differs, labels = differing(fast, texts)
    assert report.chosen.tolist() == [found.new.seconds, differs[found.new_step].mean()]
    assert report.sites == [exit.site for exit in fast.policy.exits]
    assert ((report.exits < len(report.sites)) == (prediction.exit_site >= 0).numpy()).all()
    assert (report.labels == labels.numpy()).all()
    assert report.lengths.tolist() == [len(row) for row in fast.tokenizer(texts)["input_ids"]]
    assert list(report.paths) == ["path, on fresh rows"]
    assert report.paths["path, on fresh rows"][:, 1].tolist() == differs.mean(axis=1).tolist()
    assert fast.report().endswith(report.remarks)
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitTextClassificationModel.from_pretrained(tmp_path).search_report
    assert report_page("model", "", loaded).count("<img") == 3


def test_a_path_whose_chosen_policy_has_no_exits_has_a_report_too(fast):
    fast.policy.path.policies.seconds[:] = np.arange(1.0, STEPS + 1)
    assert recertify(fast, make_texts(400)).new_step == 0
    fast.search_report.check()
    assert report_page("model", "", fast.search_report).count("<img") == 1


@pytest.mark.parametrize("change", ["a rule", "a step"])
def test_the_page_speaks_of_the_exits_in_use(fast, tmp_path, change):
    assert recertify(fast, make_texts(400)).new_step > 1
    if change == "a rule":
        fast.add_rule(LinearCondition(np.zeros(HIDDEN, np.float32), 1.0, 0.0, 0.05), 0, "embeddings")
        said = "other exits are in use than were certified: nothing is promised of them"
    else:
        fast.policy.take_step(1)
        said = "step 1 of the path is in use"
    fast.save_pretrained(tmp_path)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert said in (tmp_path / "report.html").read_text(encoding="utf-8")
