"""What tests of cascades share: texts, and what tiers must say of them, text by text, in plain Python."""

from __future__ import annotations

import numpy as np
import torch

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import Prediction

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
COLUMNS = ("labels", "probs", "exit_site", "exit_rule", "tier")


def make_texts(count, seed=0, longest=30):
    """Random texts of 0 to so many words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, longest + 1))) for _ in range(count)]


def count_words(texts):
    """Logits (n, 2) of a function that knows no more than two words, the same for a text in any batch."""
    words = [text.split() if isinstance(text, str) else " ".join(text).split() for text in texts]
    return np.array([[0.4 * some.count("bad"), 0.7 * some.count("good")] for some in words]).reshape(len(texts), 2)


def oracle(tiers, thresholds, texts):
    """Every tier's model alone on all texts; then of each text the first answer that is sure enough.

    Args:
        tiers: pairs and functions with the same order of classes.
        thresholds: for each but the last a number, or one for each class.
        texts: all of them.
    """
    alone = []
    for tier in tiers:
        if isinstance(tier, tuple | list):
            model, tokenizer = tier
            fast = (
                model
                if isinstance(model, EarlyExitTextClassificationModel)
                else EarlyExitTextClassificationModel(model)
            )
            found = fast.predict(texts, tokenizer=tokenizer)
        else:
            probs = torch.tensor(np.asarray(tier(list(texts)), np.float32)).double().softmax(1).float()
            nobody = torch.full((len(texts),), -1)
            found = Prediction(probs.argmax(1), probs, nobody, nobody, nobody)
        alone.append(found)
    levels = [np.broadcast_to(np.float32(level), alone[-1].probs.shape[1:]) for level in thresholds]
    who = [
        next(t for t, found in enumerate(alone) if _stands(found, levels[t : t + 1], row)) for row in range(len(texts))
    ]
    rows = {
        name: torch.stack([getattr(alone[tier], name)[row] for row, tier in enumerate(who)]) for name in COLUMNS[:-1]
    }
    return Prediction(**rows, tier=torch.tensor(who))


def _stands(found, levels, row):
    """The last tier has no levels."""
    label = found.labels[row]
    return not levels or found.exit_rule[row] >= 0 or bool(found.probs[row, label] > float(levels[0][label]))


def assert_same_bits(found, expected):
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=name)  # NaN is NaN
