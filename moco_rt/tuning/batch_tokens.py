"""How many tokens a tier is best given at a time: timed on this machine, with the exits it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, takewhile

from moco_rt.cascades.tier import Tier
from moco_rt.inputs.batching import by_tokens
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import Encoded

#: To choose from.
_CANDIDATES = (2048, 8192, 32_768)
#: So many texts, and of long ones so many tokens, to time it by.
_TEXTS, _TOKENS = 2048, 32_768
_RUNS = 2
#: A larger pack must be faster by so much: a smaller one is done sooner.
_WORTH = 1.03


def tune_batch_tokens(tiers: Sequence[Tier], texts: Sequence[TextInput]) -> None:
    """Give every tier the smallest pack that is about as fast as any, by the texts that come to it.

    Args:
        tiers: of a cascade, with their thresholds and exits.
        texts: some hundred.
    """
    texts = texts[:_TEXTS]
    for tier in tiers:
        if not texts:
            return
        rows = tier.encode(texts)
        if tier.tokenizer is not None:
            sizes = accumulate(len(row["input_ids"]) for row in rows)
            timed = rows[: max(1, len(list(takewhile(lambda tokens: tokens <= _TOKENS, sizes))))]
            seconds = dict.fromkeys(_CANDIDATES, float("inf"))
            for _ in range(_RUNS):
                for pack in _CANDIDATES:
                    seconds[pack] = min(seconds[pack], _seconds(tier, timed, pack))
            tier.batch_tokens = min(pack for pack in _CANDIDATES if seconds[pack] <= _WORTH * min(seconds.values()))
        if tier.thresholds is None:
            return  # it settles all that comes
        texts = _left(tier, texts, rows)


def _seconds(tier: Tier, rows: Sequence[Encoded], pack: int) -> float:
    start = time.perf_counter()
    for places in by_tokens(rows, pack):
        tier.answer([rows[i] for i in places])
    return time.perf_counter() - start


def _left(tier: Tier, texts: Sequence[TextInput], rows: Sequence[object]) -> list[TextInput]:
    """The texts that a tier does not settle."""
    return [
        texts[i]
        for places in tier.batches(rows)
        for i, settled in zip(places, tier.answer([rows[i] for i in places]).settled.tolist(), strict=True)
        if not settled
    ]
