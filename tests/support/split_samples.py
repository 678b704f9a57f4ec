"""What tests of certificates share: which texts differ after the tokenizer, and which of them certify."""

from __future__ import annotations

import numpy as np

from moco_rt.demo.corpus import make_corpus


def tokens_of(tokenizer, texts, max_length=256):
    """The tokens of each text, or pair."""
    pairs = [[text] if isinstance(text, str) else text for text in texts]
    return [tuple(tokenizer(*pair, truncation=True, max_length=max_length)["input_ids"]) for pair in pairs]


def first_of_each(tokenizer, texts, max_length=256):
    """Places of the texts whose tokens no text before them has."""
    places = {}
    for place, tokens in enumerate(tokens_of(tokenizer, texts, max_length)):
        places.setdefault(tokens, place)
    return list(places.values())


def calibration_places(tokenizer, texts, seed=0, max_length=256, before=()):
    """Places of the texts that accelerate keeps apart for the certificate.

    Args:
        tokenizer: the last tier's, or the only one.
        texts: no two of which it takes for one, where there are tiers before.
        seed: see `accelerate`.
        max_length: of the last tier.
        before: of tiers before it tokenizer and max_length.
    """
    distinct = first_of_each(tokenizer, texts, max_length)
    group = list(range(len(texts)))
    for tokens in (tokens_of(other, texts, longest) for other, longest in before):
        for place, same in enumerate(tokens.index(one) for one in tokens):
            both = {group[place], group[same]}
            group = [min(both) if one in both else one for one in group]
    members = {}
    for place in distinct:
        members.setdefault(group[place], []).append(place)
    groups = [members[one] for one in sorted(members)]
    mixed = [groups[number] for number in np.random.default_rng(seed).permutation(len(groups))]
    ends = np.cumsum([len(some) for some in mixed])
    start = int(np.searchsorted(ends, int((0.5 + 0.15) * len(distinct))) + 1)  # a group stays whole
    return np.array([place for some in mixed[start:] for place in some])


def distinct_reviews(tokenizer, count):
    """Reviews of the demo's corpus, so many, no two of which have the same tokens."""
    made = make_corpus(count + 100, seed=1, median_words=12)
    return [made[i] for i in first_of_each(tokenizer, [row.text for row in made])[:count]]
