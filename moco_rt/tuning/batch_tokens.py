"""Batch tokens: the size of batch, in tokens, that each tier of a cascade is fastest with, timed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, takewhile

from moco_rt.cascades.tier import Tier
from moco_rt.encoding import Encoded
from moco_rt.inputs.batching import by_tokens
from moco_rt.inputs.texts import TextInput
from moco_rt.studies.timing import fastest, seconds_of

#: Sizes to choose from.
_CANDIDATES = (2048, 8192, 32_768)
#: Texts to time with at most, and their tokens at most.
_TEXTS, _TOKENS = 2048, 32_768
_RUNS = 2
#: A larger batch must be faster by this factor: with a smaller one the first answers come sooner.
_WORTH = 1.03


def tune_batch_tokens(tiers: Sequence[Tier], texts: Sequence[TextInput]) -> list[Tier]:
    """Return the tiers, each with the smallest batch that is about as fast as any on the texts that come to it.

    Args:
        tiers: those of a cascade, with their thresholds and exits.
        texts: some hundred texts that come to the first tier.
    """
    texts, tuned = texts[:_TEXTS], list(tiers)
    for place, tier in enumerate(tiers):
        if not texts:
            break
        rows = tier.encode(texts)
        if tier.tokenizer is not None:
            sizes = accumulate(len(row["input_ids"]) for row in rows)
            timed = rows[: max(1, len(list(takewhile(lambda tokens: tokens <= _TOKENS, sizes))))]
            times = fastest([partial(_seconds, tier, timed, tokens) for tokens in _CANDIDATES], fewest=_RUNS)
            best = min(tokens for tokens, time in zip(_CANDIDATES, times, strict=True) if time <= _WORTH * times.min())
            tuned[place] = replace(tier, batch_tokens=best)
        if tier.thresholds is None:
            break  # it answers all texts that come to it
        texts = _passed_on(tier, texts, rows)
    return tuned


def _seconds(tier: Tier, rows: Sequence[Encoded], tokens: int) -> float:
    """Time a tier on rows in batches of so many tokens."""

    def answer_all() -> None:
        for places in by_tokens(rows, tokens):
            tier.answer([rows[i] for i in places])

    return seconds_of(answer_all)


def _passed_on(tier: Tier, texts: Sequence[TextInput], rows: Sequence[object]) -> list[TextInput]:
    """Return the texts that a tier does not settle."""
    return [
        texts[i]
        for places in tier.batches(rows)
        for i, settled in zip(places, tier.answer([rows[i] for i in places]).settled.tolist(), strict=True)
        if not settled
    ]
