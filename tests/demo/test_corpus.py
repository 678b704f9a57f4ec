from collections import Counter

import pytest
import torch

from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import MAX_WORDS, MIN_WORDS, NEGATIVE, POSITIVE, Review, make_corpus


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return make_corpus(2000, seed=0)


@pytest.fixture(scope="module")
def trained():
    return train_on(make_corpus(96, seed=0, median_words=12))


def train_on(reviews):
    return train_classifier([r.text for r in reviews], [r.label for r in reviews], seed=0)


def test_corpus_follows_the_seed(reviews):
    assert make_corpus(2000, seed=0) == reviews
    assert make_corpus(2000, seed=1) != reviews


def test_corpus_lengths(reviews):
    lengths = [len(review.text.split()) for review in reviews]
    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS
    assert 60 <= sum(lengths) / len(lengths) <= 80
    assert sum(length > 120 for length in lengths) > 100


@pytest.mark.parametrize("median_words", [1, 500])
def test_corpus_lengths_at_the_ends(median_words):
    lengths = [len(r.text.split()) for r in make_corpus(500, seed=2, median_words=median_words)]
    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS


def test_corpus_labels_are_balanced(reviews):
    assert 0.45 <= sum(review.label == POSITIVE for review in reviews) / len(reviews) <= 0.55


def test_corpus_is_mostly_easy_but_not_only(reviews):
    shares = {kind: count / len(reviews) for kind, count in Counter(r.kind for r in reviews).items()}
    assert 0.70 <= shares["easy"] <= 0.80
    assert shares["negation"] > 0.08
    assert shares["contrast"] > 0.08
    assert 0 < shares["ambiguous"] < 0.04


def test_tokenizer_round_trip(trained):
    _, tokenizer = trained
    ids = tokenizer("The acting was GOOD").input_ids
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the acting was good"


def test_tokenizer_pairs_and_padding(trained):
    _, tokenizer = trained
    inputs = tokenizer(["the film", "good"], ["was good", "bad"], padding=True)
    assert inputs["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert inputs["attention_mask"] == [[1] * 7, [1] * 5 + [0] * 2]


def test_tokenizer_truncates_to_what_the_model_takes(trained):
    model, tokenizer = trained
    assert len(tokenizer("good " * 999, truncation=True).input_ids) == model.config.max_position_embeddings


def test_training_is_deterministic_and_keeps_the_random_state(trained):
    model, _ = trained
    before = torch.get_rng_state()
    again, _ = train_on(make_corpus(96, seed=0, median_words=12))
    assert torch.equal(torch.get_rng_state(), before)
    assert not again.training
    assert again.config.id2label == {NEGATIVE: "NEGATIVE", POSITIVE: "POSITIVE"}
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
