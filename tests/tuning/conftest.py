"""A classifier that has learnt something, and texts that it has not, which tests of `accelerate` share."""

from __future__ import annotations

import pytest
from split_samples import distinct_reviews

from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus

TEXTS = 1200


@pytest.fixture(scope="session")
def trained():
    """A classifier of four layers that has learnt something, and its tokenizer."""
    reviews = make_corpus(1200, seed=0, median_words=12)
    return train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=0)


@pytest.fixture(scope="session")
def reviews(trained):
    return distinct_reviews(trained[1], TEXTS)


@pytest.fixture(scope="session")
def texts(reviews):
    return [row.text for row in reviews]
