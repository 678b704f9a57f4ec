"""Rows that become shorter on their way: which of their tokens go on after an attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.device_batch import AnyBatch
from moco_rt.architectures.sites import layer_of_attention


def check_lengths(lengths: Sequence[float], layers: int) -> None:
    """Refuse what is no share of tokens for each layer.

    Raises:
        ValueError: there are some, but not one for each layer; one is not above 0 and at most 1, or larger than the one
            before.
    """
    if len(lengths) not in (0, layers):
        raise ValueError(f"lengths must be one for each of {layers} layers (got {len(lengths)})")
    if not all(0 < share <= 1 for share in lengths) or any(after > before for before, after in pairwise(lengths)):
        raise ValueError(f"lengths must be shares above 0 and at most 1 that never rise (got {list(lengths)})")


def keeps_of(lengths: Sequence[float], layers: int) -> list[float]:
    """Return the share of tokens that is kept after each attention; 1 where none are left out.

    That is where the share does not fall, and behind the last attention, where nobody reads the others.
    """
    shares = [1.0, *(lengths or [1.0] * layers)]
    falls = [after if after < before else 1.0 for before, after in pairwise(shares)]
    return [*falls[:-1], 1.0]


def shorten(
    hidden: Tensor, attention_mask: Tensor, received: Tensor, began_with: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """Keep of each row a share of the tokens that it began with, rounded up, in their order.

    The first token stays, and those that receive most attention (arXiv:2408.11799), of equal ones the first.

    Args:
        hidden: (rows, S, D), padded on the right.
        attention_mask: (rows, S).
        received: (rows, S) float32, what each token receives of attention.
        began_with: (rows) int64, tokens that each row began with.
        share: above 0, at most 1.

    Returns:
        hidden (rows, S', D) and attention_mask (rows, S') int64 of the tokens that stay.
    """
    real = attention_mask.bool()
    count = (share * began_with.double()).ceil().long().clamp(min=1)
    count = torch.minimum(count, real.sum(dim=1))
    score = received.masked_fill(~real, float("-inf"))
    score[:, 0] = float("inf")
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    stays = rank < count[:, None]
    places = (~stays).long().argsort(dim=1, stable=True)[:, : int(count.max())]
    shorter = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))
    return shorter, stays.long().gather(1, places)


def leave_out(
    architecture: Architecture, site: str, before: Tensor, hidden: Tensor, attention_mask: Tensor, batch: AnyBatch
) -> tuple[Tensor, Tensor]:
    """Leave out tokens on the way to a site where the model does, in a batch too that has the same rows.

    Args:
        architecture: the model.
        site: the site that was reached.
        before: (rows, S, D), what the step to the site read.
        hidden: (rows, S, D), what it gave.
        attention_mask: (rows, S).
        batch: the rows, which get the hidden states of the tokens that stay where some do not.

    Returns:
        hidden and attention_mask of the tokens that stay; where none is left out, those that were given.
    """
    layer = layer_of_attention(site)
    if layer is None or architecture.keeps[layer] == 1:
        return hidden, attention_mask
    received = architecture.received_attention(layer, before, attention_mask)
    batch.unpad(hidden)
    batch.keep_tokens(received[attention_mask.bool()], architecture.keeps[layer])
    return batch.pad(), batch.attention_mask()
