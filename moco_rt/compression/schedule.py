"""A schedule of lengths: after which layers how many tokens are left out, found on texts without labels.

From "all go on", the share is lowered step by step, each time from the layer on where the model's answers change least
for the work that it saves (as LengthDrop's search does, arXiv:2010.07003, with the KL divergence in place of accuracy).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

#: Shares of a row's tokens that are tried.
_SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)
#: The part of a layer's work that its feed-forward network is; attention is the rest.
_FEED_FORWARD = 2 / 3


def lengths_after(shares: Mapping[int, float], layers: int) -> list[float]:
    """Return the share of tokens that go on after the attention of each layer.

    Args:
        shares: by layer, from 0; those between have what the layer before them has.
        layers: how many there are.

    Raises:
        ValueError: a layer is not one of the model's.
    """
    for layer in shares:
        if not 0 <= layer < layers:
            raise ValueError(f"lengths must name layers from 0 to {layers - 1} (got {layer})")
    lengths = [1.0]
    for layer in range(layers):
        lengths.append(shares.get(layer, lengths[-1]))
    return lengths[1:]


def share_seen(lengths: Sequence[float]) -> float:
    """Return the share of tokens that all layers together see: feed-forward networks those after their attention."""
    before = [1.0, *lengths[:-1]]
    seen = [(1 - _FEED_FORWARD) * own + _FEED_FORWARD * after for own, after in zip(before, lengths, strict=True)]
    return sum(seen) / len(seen)


def check_share(layers: int, share: float) -> None:
    """Refuse a share of the tokens that no schedule of so many layers sees.

    Raises:
        ValueError: it is below what the shortest schedule sees, or below 1 where there is one layer.
    """
    if layers == 1 and share < 1:
        raise ValueError(f"lengths must be 1 for a model of one layer, which reads all tokens (got {share})")
    fewest = share_seen([_SHARES[-1]] * layers)
    if share < fewest:
        raise ValueError(f"lengths must leave at least {math.ceil(100 * fewest) / 100:.2f} (got {share})")


def find_schedule(layers: int, share: float, loss: Callable[[Sequence[float]], float]) -> list[float]:
    """Return lengths with which all layers together see a share of the tokens.

    Args:
        layers: how many there are.
        share: of the tokens that they see.
        loss: what a schedule costs the model's answers.

    Raises:
        ValueError: no schedule sees so few.
    """
    check_share(layers, share)
    lengths, lost = [1.0] * layers, 0.0
    with tqdm(total=100, desc="lengths", unit="%", delay=2, leave=False) as progress:
        while share_seen(lengths) > share:
            tried = []
            for layer in range(layers - 1):  # behind the last attention nobody reads what is left out
                lower = _lowered(lengths, layer)
                if lower is not None:
                    losses = loss(lower)
                    tried.append(((losses - lost) / (share_seen(lengths) - share_seen(lower)), losses, lower))
            _, lost, lengths = min(tried, key=lambda each: each[0])
            progress.update(min(100, round(100 * (1 - share_seen(lengths)) / (1 - share))) - progress.n)
    return lengths


def _lowered(lengths: Sequence[float], layer: int) -> list[float] | None:
    """Return lengths with the next lower share from a layer on; None: it is the lowest already."""
    place = _SHARES.index(lengths[layer]) + 1
    if place == len(_SHARES):
        return None
    return [*lengths[:layer], *(min(each, _SHARES[place]) for each in lengths[layer:])]
