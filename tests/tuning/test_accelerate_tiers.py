"""From tiers and texts to a cascade with a certificate: what it says must be what the cascade then does."""

from __future__ import annotations

import copy
import zlib

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from split_samples import calibration_places, distinct_reviews

from moco_rt import Cascade, EarlyExitTextClassificationModel
from moco_rt.cascades.tier import Tier, align_classes
from moco_rt.demo.corpus import make_corpus
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.studies.cascade_costs import WayOut
from moco_rt.studies.splits import split_texts
from moco_rt.tuning.accelerate import accelerate
from moco_rt.tuning.cascade_study import study_tiers

TEXTS = 600
pytestmark = pytest.mark.usefixtures("quick_off_ramps", "tiers_cost")


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(1200, seed=0, median_words=12)


@pytest.fixture(scope="module")
def half(large):
    """The first half of the large one, which takes the same tokens."""
    model = copy.deepcopy(large[0])
    model.config.seconds = 0.1
    model.config.num_hidden_layers = 2
    model.bert.encoder.layer = model.bert.encoder.layer[:2]
    return model, large[1]


@pytest.fixture(scope="module")
def reviews(large):
    return distinct_reviews(large[1], TEXTS)


@pytest.fixture(scope="module")
def texts(reviews):
    return [row.text for row in reviews]


@pytest.fixture(scope="module")
def word_counts(corpus):
    """What scikit-learn has learnt of single words."""
    made = make_pipeline(CountVectorizer(), LogisticRegression())
    return made.fit([row.text for row in corpus], [row.label for row in corpus]).predict_log_proba


def swapped(pair):
    """The same model with its two classes in the other order."""
    model = copy.deepcopy(pair[0])
    model.config.id2label = {0: pair[0].config.id2label[1], 1: pair[0].config.id2label[0]}
    with torch.no_grad():
        model.classifier.weight.copy_(pair[0].classifier.weight[[1, 0]])
        model.classifier.bias.copy_(pair[0].classifier.bias[[1, 0]])
    return model, pair[1]


def answers_of(pair):
    """A function that says what a model says."""
    fast = EarlyExitTextClassificationModel(pair[0])
    return lambda texts: fast.predict(texts, tokenizer=pair[1]).probs.log()


def assert_certificate_is_what_it_does(cascade, full, rows):
    """On the calibration rows: as many labels differ, and as many rows leave by each way out with each class."""
    certificate, found = cascade.certificate, cascade.predict(rows)
    wrong = found.labels != full.predict(rows, tokenizer=cascade.tiers[-1].tokenizer).labels
    assert certificate.rows == len(rows)
    assert certificate.disagreements == int(wrong.sum())
    left = {}
    for tier, site, label, missed in zip(
        *(column.tolist() for column in (found.tier, found.exit_site, found.labels, wrong)), strict=True
    ):
        if site >= 0 or tier < len(cascade.tiers) - 1:
            way = f"tier {tier} {cascade.tiers[tier].model.sites[site] if site >= 0 else 'end'}"
            fired, errors = left.get((way, label), (0, 0))
            left[way, label] = fired + 1, errors + missed
    assert left == {(count.site, count.predicted_class): (count.fired, count.wrong) for count in certificate.exits}


# The certificate is what the cascade does


@pytest.mark.parametrize("tiers", ["swapped", "half", "words small"])
def test_the_counts_of_the_certificate_are_those_of_the_cascade(small, half, large, word_counts, reviews, texts, tiers):
    known = {"small": small, "swapped": swapped(small), "half": half, "words": word_counts}
    given = [*(known[name] for name in tiers.split()), large]
    truth = np.array([row.label for row in reviews])
    cascade = accelerate(given, texts, agreement=0.93, labels=truth.tolist())
    assert isinstance(cascade, Cascade)
    assert len(cascade.tiers) > 1
    places = calibration_places(large[1], texts)
    rows = [texts[i] for i in places]
    full = EarlyExitTextClassificationModel(large[0])
    assert_certificate_is_what_it_does(cascade, full, rows)
    assert cascade.certificate.disagreements <= 0.07 * len(rows)
    assert cascade.certificate.seconds < cascade.certificate.seconds_full
    right = cascade.predict(rows).labels.numpy() == truth[places]
    assert cascade.certificate.accuracy == pytest.approx(right.mean())


def test_pairs_of_texts_are_certified(small, large, texts, tiers_cost):  # noqa: ARG001
    pairs = list(zip(texts, reversed(texts), strict=True))
    cascade = accelerate([small, large], pairs, agreement=0.9, max_length=48)
    rows = [pairs[i] for i in calibration_places(large[1], pairs, max_length=48)]
    full = EarlyExitTextClassificationModel(large[0]).predict(rows, tokenizer=large[1], max_length=48)
    differ = int((cascade.predict(rows).labels != full.labels).sum())
    assert (cascade.certificate.disagreements, cascade.certificate.rows) == (differ, len(rows))


@pytest.fixture(scope="module")
def with_exits(small):
    fast = EarlyExitTextClassificationModel(small[0])
    fast.add_rule(lambda x: x[:, 0] > 0, 1, "embeddings")
    return fast


@pytest.fixture(scope="module")
def found(with_exits, small, large, texts, tiers_cost):  # noqa: ARG001
    return accelerate([(with_exits, small[1]), large], texts, agreement=0.93, dtype=None)


def test_a_small_and_a_large_model_are_certified_together(found, large, texts):
    full = EarlyExitTextClassificationModel(large[0])
    assert_certificate_is_what_it_does(found, full, [texts[i] for i in calibration_places(large[1], texts)])


def test_it_is_saved_with_all_it_needs(found, texts, tmp_path):
    found.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert loaded.certificate == found.certificate
    answers, expected = loaded.predict(texts), found.predict(texts)
    assert len(set(expected.tier.tolist())) == 2
    for name in ("labels", "probs", "exit_site", "exit_rule", "tier"):
        assert torch.equal(getattr(answers, name), getattr(expected, name))


def test_models_are_not_changed_and_exits_not_taken_over(found, with_exits, small, large):
    assert len(with_exits.policy.exits) == 1
    assert [tier.model.model for tier in found.tiers] == [small[0], large[0]]
    assert all(tier.model is not with_exits for tier in found.tiers)
    assert all(isinstance(exit.condition, AnyOffRamp) for tier in found.tiers for exit in tier.model.policy.exits)


def test_all_tiers_speak_of_the_last_ones_classes(small, large, texts):
    split = split_texts(texts, Tier.of(large).encode)
    studies = []
    for first in (small, swapped(small)):
        tiers = align_classes([Tier.of(first), Tier.of(large)])
        studies += study_tiers({"as given": tiers}, split, seed=0)
    ways = studies[0].ways
    end = next(place for place, way in enumerate(ways) if way == WayOut(0, None))
    assert studies[1].temperatures == pytest.approx(studies[0].temperatures)
    for job in ("ordering", "calibration"):
        one, other = (getattr(found.candidates, job).scores for found in studies)
        np.testing.assert_array_equal(one.given, other.given)
        np.testing.assert_array_equal(one.group[end], other.group[end])
        np.testing.assert_allclose(one.score[end], other.score[end], atol=1e-5)
        assert not one.wrong[-1].any()  # who runs to the end of the last tier is never wrong
        agree = 1 - other.wrong.mean(axis=1)
        assert (agree[[place for place, way in enumerate(ways) if way.off_ramp is not None]] > 0.6).all()


# Which tiers are used


def test_a_cheap_tier_that_knows_when_it_agrees_is_used(large, texts):
    says = answers_of(large)

    def sure_of_some(given):
        unsure = torch.tensor([zlib.crc32(text.encode()) % 4 == 0 for text in given])
        return says(given) * torch.where(unsure, -0.01, 50.0)[:, None]  # and wrong of the others

    cascade = accelerate([sure_of_some, large], texts, agreement=0.95)
    assert len(cascade.tiers) == 2
    found = cascade.predict(texts)
    assert (found.tier == 0).float().mean() > 0.6
    assert cascade.certificate.speedup > 2


def test_a_cheap_tier_that_always_agrees_answers_all(large, texts):
    cascade = accelerate([answers_of(large), large], texts, agreement=0.95)
    assert set(cascade.predict(texts).tier.tolist()) == {0}
    assert cascade.certificate.disagreements == 0


def test_a_tier_that_never_agrees_is_left_out(large, tiny_bert, word_tokenizer, texts):
    says = answers_of(large)
    clueless = tiny_bert(2, id2label=large[0].config.id2label)
    for first in ((lambda given: -says(given)), (clueless, word_tokenizer)):
        cascade = accelerate([first, large], texts, agreement=0.95, dtype=None)
        assert [tier.model.model for tier in cascade.tiers] == [large[0]]
        assert set(cascade.predict(texts[:50]).tier.tolist()) == {0}
        rows = [texts[i] for i in calibration_places(large[1], texts)]
        assert_certificate_is_what_it_does(cascade, EarlyExitTextClassificationModel(large[0]), rows)


def test_a_tier_that_errs_where_the_last_sees_no_difference_is_left_out(large, texts):
    says = answers_of(large)

    def reads_case(given):
        return says(given) * torch.tensor([-50.0 if text.isupper() else 50.0 for text in given])[:, None]

    both = [text for text in texts if text != text.upper()]
    both += [text.upper() for text in both]
    cascade = accelerate([reads_case, large], both, agreement=0.9, dtype=None)
    differ = cascade.predict(both).labels != cascade.given.predict(both, tokenizer=large[1]).labels
    assert float(differ.float().mean()) <= 0.1


def test_a_tier_alone_is_a_cascade(large, texts):
    cascade = accelerate([large], texts, agreement=0.93)
    assert len(cascade.tiers) == 1
    full = EarlyExitTextClassificationModel(large[0])
    assert_certificate_is_what_it_does(cascade, full, [texts[i] for i in calibration_places(large[1], texts)])


def test_the_same_seed_leads_to_the_same_cascade(found, small, large, texts):
    again = accelerate([small, large], texts, agreement=0.93, dtype=None)
    assert again.certificate == found.certificate
    assert torch.equal(again.predict(texts[:200]).probs, found.predict(texts[:200]).probs)


# What is refused


def test_a_tokenizer_beside_tiers_is_refused(small, large, texts, one_line_error):
    with one_line_error(ValueError, "tokenizer must be None: tiers take texts, and bring their own tokenizers"):
        accelerate([small, large], texts, tokenizer=large[1])


def test_what_is_no_tier_is_refused(large, texts, one_line_error):
    with one_line_error(
        TypeError, "tiers must be a list, and a tier (model, tokenizer) or a function from texts to logits"
    ):
        accelerate([large[0], large], texts)
    for given in ([large, len], []):
        with one_line_error(ValueError, "tiers must end with a pair (model, tokenizer), whose labels count"):
            accelerate(given, texts)


@pytest.mark.parametrize("given", ["(model, None)", "(model, tokenizer, 3)"])
def test_a_pair_that_is_none_is_refused_as_by_a_cascade(large, texts, given):
    tier = (large[0], None) if "None" in given else (*large, 3)
    with pytest.raises(TypeError, match="tiers must be a list, and a tier"):
        accelerate([tier, large], texts)
