"""What tests of certificates share: which texts differ after the tokenizer, and which of them certify."""

from __future__ import annotations

import numpy as np

from moco_rt.demo.corpus import make_corpus


def first_of_each(tokenizer, texts, max_length=256):
    """Places of the texts whose tokens no text before them has."""
    places = {}
    for place, text in enumerate(texts):
        pair = [text] if isinstance(text, str) else text
        tokens = tokenizer(*pair, truncation=True, max_length=max_length)["input_ids"]
        places.setdefault(tuple(tokens), place)
    return list(places.values())


def calibration_places(tokenizer, texts, seed=0, max_length=256):
    """Places of the texts that accelerate keeps apart for the certificate."""
    distinct = np.array(first_of_each(tokenizer, texts, max_length))
    return distinct[np.random.default_rng(seed).permutation(len(distinct))[int((0.5 + 0.15) * len(distinct)) :]]


def distinct_reviews(tokenizer, count):
    """Reviews of the demo's corpus, so many, no two of which have the same tokens."""
    made = make_corpus(count + 100, seed=1, median_words=12)
    return [made[i] for i in first_of_each(tokenizer, [row.text for row in made])[:count]]
