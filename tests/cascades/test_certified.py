"""`Cascade.predict(certify=)`: drawn texts have the given model's answers, the others the cascade's, or those too."""

from __future__ import annotations

import copy

import pytest
import torch
from tier_samples import assert_same_bits, count_words, make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.these_rows import draw_rows
from moco_rt.inputs import prefetch

TEXTS = make_texts(600)


@pytest.fixture
def cascade(tiny_bert, word_tokenizer):
    """A function that is surer of some texts than the model after it, which it often contradicts."""
    return Cascade([count_words, (tiny_bert(2, seed=3), word_tokenizer)], thresholds=[0.9])


@pytest.fixture
def in_another_form(cascade):
    """The same after whose last tier another model was given."""
    last = cascade.tiers[-1].model
    given = copy.deepcopy(last.model)
    with torch.no_grad():
        given.classifier.bias += torch.tensor([0.05, -0.05])
    last.take_given(EarlyExitTextClassificationModel(given))
    return cascade


@pytest.fixture(params=["cascade", "in_another_form"])
def either(request):
    return request.getfixturevalue(request.param)


def of_given(cascade, texts):
    return cascade.given.predict(texts, tokenizer=cascade.tiers[-1].tokenizer)


@pytest.mark.parametrize(("certify", "in_full"), [(0.3, False), (0.999, True)])
def test_drawn_texts_have_the_given_answers_and_the_others_those_of_the_cascade(either, certify, in_full):
    full, ours = of_given(either, TEXTS), either.predict(TEXTS)
    found = either.predict(iter(TEXTS), certify=certify)
    certificate = found.certificate
    assert (certificate.in_full, certificate.rows, certificate.step) == (in_full, 600, None)
    drawn = torch.from_numpy(draw_rows(600, certificate.drawn, 0))
    rest = torch.where(drawn[:, None] | in_full, full.probs, ours.probs)
    assert torch.equal(found.probs, rest)
    assert torch.equal(found.tier, torch.where(drawn | in_full, 1, ours.tier))
    assert torch.equal(found.exit_site, torch.full((600,), -1))
    assert certificate.disagreements == int((full.labels != ours.labels)[drawn].sum())
    assert in_full or 0 < certificate.drawn < 600
    assert [row["tier"] for row in found] == found.tier.tolist()


def test_the_promise_holds_over_draws(cascade):
    """A promise that the cascade just breaks on these texts is made, by chance, at most so often."""
    wrong = (of_given(cascade, TEXTS).labels != cascade.predict(TEXTS).labels).float().mean()
    kept = [cascade.predict(TEXTS, certify=float(1 - wrong) + 0.02, confidence=0.9, seed=seed) for seed in range(40)]
    truth = of_given(cascade, TEXTS).labels
    broken = [float((found.labels != truth).float().mean()) > wrong - 0.02 for found in kept]
    assert sum(broken) <= 4 + 3 * 2  # 10% of 40, and three standard errors


def test_the_certificate_says_how_many_texts_to_draw(cascade):
    drawn = []
    for wrong, seconds in ((0, 0.5), (500, 0.5), (0, 1.0)):
        cascade.certificate = Certificate(0.1, 0.05, 2000, wrong, seconds_full=1.0, seconds=seconds, exits=())
        drawn.append(cascade.predict(TEXTS, certify=0.5).certificate.drawn)
    assert 0 < drawn[0] < drawn[1]
    assert drawn[2] == 0  # it saves nothing


def test_a_certificate_of_other_ways_out_says_nothing_of_how_many_texts_to_draw(cascade):
    unknown = cascade.predict(TEXTS, certify=0.5).certificate.drawn
    cascade.certificate = Certificate(0.1, 0.05, 2000, 0, seconds_full=1.0, seconds=1.0, exits=())  # it saves nothing
    assert cascade.predict(TEXTS, certify=0.5).certificate.drawn == 0
    cascade.tiers[0].thresholds.fill_(0.95)
    assert cascade.predict(TEXTS, certify=0.5).certificate.drawn == unknown > 0


def test_the_monitor_takes_no_part(cascade):
    cascade.certificate = Certificate(0.1, 0.05, 2000, 0, seconds_full=1.0, seconds=0.5, exits=())
    monitor = cascade.monitor(rate=1.0)
    cascade.predict(TEXTS, certify=0.3)
    assert [process.rows for process in monitor.processes] == [0]
    cascade.predict(TEXTS)
    assert [process.rows for process in monitor.processes] != [0]


def test_the_last_model_alone_runs_in_full(cascade):
    alone = Cascade([(cascade.given, cascade.tiers[-1].tokenizer)], thresholds=[])
    found = alone.predict(TEXTS, certify=0.9)
    assert (found.certificate.in_full, found.certificate.drawn) == (True, 0)
    assert_same_bits(found, alone.predict(TEXTS))


def test_parts_are_joined_in_order(cascade, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 50)
    expected = cascade.predict(TEXTS, certify=0.3)
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 7)
    assert_same_bits(cascade.predict(TEXTS, certify=0.3), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"certify": 1.0}, "certify must be inside (0, 1) (got 1.0)"),
        ({"certify": 0.9, "on_error": "skip"}, "on_error must be raise where texts are certified (got 'skip')"),
    ],
)
def test_promises_that_cannot_be_made_are_refused(cascade, one_line_error, arguments, words):
    with one_line_error(ValueError, words):
        cascade.predict(["good"], **arguments)


def test_a_last_tier_in_another_dtype_than_it_was_given_in_promises_nothing(tiny_bert, word_tokenizer, one_line_error):
    last = EarlyExitTextClassificationModel(tiny_bert(2, seed=3), dtype="bfloat16")
    with one_line_error(ValueError, "certify must be None where the model as it was given is not kept"):
        Cascade([count_words, (last, word_tokenizer)], thresholds=[0.9]).predict(TEXTS, certify=0.9)


def test_no_texts_are_refused(cascade, one_line_error):
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        cascade.predict([], certify=0.9)


def test_what_closes_meanwhile_changes_nothing(tiny_bert, word_tokenizer):
    """A monitor of a tier's own model ends its exits at the first check; rows that were drawn knew them open."""
    small, large = (EarlyExitTextClassificationModel(tiny_bert(2, seed=seed)) for seed in (2, 3))
    small.add_rule(lambda x: x[:, 0] == x[:, 0], 1, "embeddings")
    tiers = [(small, word_tokenizer), (large, word_tokenizer)]
    expected = Cascade(tiers, thresholds=[0.9]).predict(TEXTS, certify=0.2)
    assert not expected.certificate.in_full
    small.monitor(rate=1.0, delta=0.9)
    cascade = Cascade(tiers, thresholds=[0.9])
    assert_same_bits(cascade.predict(TEXTS, certify=0.2), expected)
    assert not small.policy.closed
    cascade.predict(TEXTS)
    assert small.policy.closed
