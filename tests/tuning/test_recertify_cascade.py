"""A saved cascade is certified again on fresh rows, as it is."""

from __future__ import annotations

import pytest
import torch
from tier_samples import count_words, make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel, recertify
from moco_rt.certification.certificate import Certificate
from moco_rt.policies.fingerprints import model_identity

TEXTS = list(dict.fromkeys(make_texts(700)))


@pytest.fixture
def cascade(tiny_bert, word_tokenizer):
    """A function, a model with an exit, and the model whose labels count."""
    middle, last = tiny_bert(2, seed=2), tiny_bert(2, seed=3)
    cascade = Cascade([count_words, (middle, word_tokenizer), (last, word_tokenizer)], thresholds=[0.95, 0.8])
    some = lambda x: (1000 * x[:, 0]).long() % 2 == 0  # noqa: E731
    cascade.tiers[1].model.add_rule(some, 1, "encoder.0.attention")
    cascade.certificate = Certificate(0.9, 0.05, 1000, 2, 1.0, 0.6, (), accuracy=0.5)
    return cascade


def test_the_counts_are_those_of_the_cascade(cascade):
    cascade.search_report = object()
    found = recertify(cascade, TEXTS)
    assert cascade.certificate is found.new
    assert (found.old_step, found.new_step) == (None, None)
    ours = cascade.predict(TEXTS)
    wrong = (ours.labels != cascade.given.predict(TEXTS, tokenizer=cascade.tiers[-1].tokenizer).labels).numpy()
    distinct = found.new.rows  # unknown words are equal tokens
    assert 0 < distinct <= len(TEXTS)
    assert found.new.rows_in_all == len(TEXTS)
    assert found.new.disagreement_in_all == pytest.approx(wrong.mean())
    assert found.new.accuracy is None
    names = {count.site for count in found.new.exits}
    assert names == {"tier 0 end", "tier 1 encoder.0.attention", "tier 1 end"}
    if distinct == len(TEXTS):
        assert found.new.disagreements == wrong.sum()
        early = (ours.exit_site >= 0) | (ours.tier < 2)
        assert sum(count.fired for count in found.new.exits) == int(early.sum())
        assert sum(count.wrong for count in found.new.exits) == wrong[early.numpy()].sum()
    assert str(found).startswith("before:\n")
    assert cascade.search_report is None  # it was about other rows


def test_a_cascade_of_which_a_tier_was_changed_is_not_certified_again(cascade, one_line_error):
    middle, before = cascade.tiers[1].model, cascade.certificate
    middle.policy.made_for = model_identity(middle.model)
    with torch.no_grad():
        middle.model.classifier.bias += 1
    with one_line_error(ValueError, "the policy was made for a model with another weights"):
        recertify(cascade, TEXTS)
    assert cascade.certificate is before


def test_copies_count_once(cascade):
    once = recertify(cascade, TEXTS).new
    twice = recertify(cascade, [*TEXTS, *TEXTS]).new
    assert (twice.rows, twice.disagreements, twice.exits) == (once.rows, once.disagreements, once.exits)
    assert twice.rows_in_all == 2 * once.rows_in_all


def test_texts_that_an_earlier_tier_tells_apart_are_no_copies(tiny_bert, word_tokenizer, one_line_error):
    last = tiny_bert(2, seed=3)
    model = EarlyExitTextClassificationModel(last)

    def reads_spaces(texts):
        logits = model.predict(texts, tokenizer=word_tokenizer).probs.log()
        return logits * torch.tensor([-9.0 if text.startswith(" ") else 9.0 for text in texts])[:, None]

    cascade = Cascade([reads_spaces, (last, word_tokenizer)], thresholds=[0.5])
    cascade.certificate = Certificate(0.05, 0.05, 1000, 2, 1.0, 0.6, ())
    texts = [text for text in TEXTS if text]
    assert recertify(cascade, texts).new.disagreements == 0
    cascade.certificate = Certificate(0.05, 0.05, 1000, 2, 1.0, 0.6, ())
    with one_line_error(ValueError, "inputs must certify the cascade: "):
        recertify(cascade, [*texts, *(" " + text for text in texts)])


def test_true_classes_give_accuracies(cascade):
    labels = cascade.given.predict(TEXTS, tokenizer=cascade.tiers[-1].tokenizer).labels
    found = recertify(cascade, TEXTS, labels=labels)
    assert found.new.accuracy_full == 1.0
    assert found.new.accuracy == pytest.approx(1 - found.new.disagreement_in_all)


def test_a_cascade_that_breaks_its_promise_is_refused_and_stays_as_it_was(cascade, one_line_error):
    strict = cascade.certificate = Certificate(0.01, 0.05, 1000, 2, 1.0, 0.6, ())
    with one_line_error(ValueError, "inputs must certify the cascade: "):
        recertify(cascade, TEXTS)
    assert cascade.certificate is strict


def test_what_is_missing_is_named(cascade, one_line_error):
    with one_line_error(ValueError, f"labels must be one for each of the {len(TEXTS)} inputs (got 3)"):
        recertify(cascade, TEXTS, labels=[0, 1, 0])
    cascade.certificate = Certificate(None, 0.05, 1000, 2, 1.0, 0.6, (), max_drop=0.01)
    with one_line_error(ValueError, "labels must be given: the promise is about accuracy (got None)"):
        recertify(cascade, TEXTS)
    cascade.certificate = None
    with one_line_error(ValueError, "cascade must have a certificate, which accelerate finds (it has none)"):
        recertify(cascade, TEXTS)
