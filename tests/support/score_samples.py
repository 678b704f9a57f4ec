"""Made-up exits: what they know of a label, and what they cost."""

from __future__ import annotations

import numpy as np

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.studies.costs import Costs

ROWS = 2000
#: Tokens of so many rows.
LENGTHS = np.random.default_rng(0).integers(10, 100, ROWS)


def make_scores(strengths=(1.0, 2.0), classes=2, rows=ROWS, seed=0, wrong_at_end=0.0):
    """Exits that know as much of the given model's label as `strengths` say; they score the highest probability.

    What knows it as far as a share of rows `wrong_at_end` is the model that runs, to its end.
    """
    rng = np.random.default_rng(seed)
    given = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1, (len(strengths), rows, classes))
    logits[:, np.arange(rows), given] += np.array(strengths)[:, None]
    probs = np.exp(2 * logits)
    probs /= probs.sum(axis=2, keepdims=True)
    full = np.where(rng.random(rows) < wrong_at_end, (given + 1) % classes, given)
    return ExitScores.of_labels(probs.argmax(axis=2), probs.max(axis=2).astype(np.float32), given, full)


def take_rows(scores, rows):
    """The scores of some rows."""
    return ExitScores.of_labels(
        scores.group[:, rows], scores.score[:, rows], scores.given[rows], scores.labels[-1, rows]
    )


def make_costs(reach, ask, once=0.0, lengths=(10.0, 100.0)):
    """Costs that grow with the length: those given are of rows of the first; all exits cost alike to ask."""
    growth = np.array(lengths)[:, None] / lengths[0]
    asked = np.full(len(reach) - 1, ask)
    return Costs(np.array(lengths), growth * np.array(reach), growth * asked, np.append(np.full_like(asked, once), 0))


def mean_seconds(scores, thresholds, seconds):
    """Mean seconds of a row that leaves where thresholds say; seconds: (n, E + 1)."""
    exits = scores.exit_of_row(thresholds)
    return seconds[np.arange(len(exits)), exits].mean()


def share_wrong(scores, thresholds):
    """Share of rows that get another answer than the given model's when they leave where thresholds say."""
    return scores.disagrees(scores.exit_of_row(thresholds)).mean()
