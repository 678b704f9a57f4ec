"""The dials of `compress`: what may be asked for, in Python's own numbers, which JSON and checkpoints can hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from moco_rt.architectures.compressed.layers import layer_parts
from moco_rt.architectures.compressed.shortening import check_lengths
from moco_rt.compression.pruning import BLOCKS, Block, check_block
from moco_rt.compression.schedule import check_share, lengths_after
from moco_rt.statistics.arguments import seed_of, whole_number
from moco_rt.storage.reasons import shortened

#: What `lengths` may be.
Lengths = float | Mapping[int, float] | None


@dataclass(frozen=True)
class Dials:
    """The wishes for a smaller model, by the names of `compress`'s arguments."""

    width: float
    sparsity: float
    block: Block
    lengths: Lengths
    epochs: int
    seed: int

    @classmethod
    def of(
        cls, model: Any, *, width: float, sparsity: float, block: Block, lengths: Lengths, epochs: int, seed: int
    ) -> Dials:
        """Read the dials of a call, whichever library's numbers they are, and check them.

        Args:
            model: the classifier that will be made smaller.
            width: the share of multiply-adds that is left.
            sparsity: the share of weights that is zero.
            block: outputs and inputs of weights that are zero together.
            lengths: the share of tokens that is seen, or by layer the share that goes on; None: all do.
            epochs: how often the smaller model sees the texts.
            seed: of the order of texts.

        Raises:
            ValueError: a dial is no number of its kind or out of range, or the model's layers cannot have it.
        """
        dials = cls(
            width=_number(width),
            sparsity=_number(sparsity),
            block=_block(block),
            lengths=_lengths(lengths, len(layer_parts(model))),
            epochs=whole_number("epochs", epochs),
            seed=seed_of(seed),
        )
        if not 0 < dials.width <= 1:
            raise ValueError(f"width must be above 0 and at most 1 (got {shortened(width)})")
        if not 0 <= dials.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1 (got {shortened(sparsity)})")
        if dials.sparsity > 0:
            check_block(model, dials.block)
        return dials

    def made_for(self) -> dict[str, Any]:
        """Return all of them as a checkpoint holds them."""
        return {
            "width": self.width,
            "sparsity": self.sparsity,
            "block": list(self.block),
            "lengths": self._plain_lengths(),
            "epochs": self.epochs,
            "seed": self.seed,
        }

    def described(self) -> dict[str, Any]:
        """Return those that were turned, and the epochs, as the configuration of a smaller model holds them."""
        return {
            **({} if self.width == 1 else {"width": self.width}),
            **({} if self.sparsity == 0 else {"sparsity": self.sparsity, "block": list(self.block)}),
            **({} if self.lengths is None else {"lengths": self._plain_lengths()}),
            "epochs": self.epochs,
        }

    def _plain_lengths(self) -> Any:
        """Return lengths as JSON may hold them."""
        if isinstance(self.lengths, Mapping):
            return {str(layer): share for layer, share in self.lengths.items()}
        return self.lengths


def _number(given: Any) -> float:
    """Return a number, or NaN, which lies in no range, in place of anything else."""
    return float(given) if isinstance(given, Real) else math.nan


def _block(given: Any) -> Block:
    """Return the outputs and inputs of a block.

    Raises:
        ValueError: no kernels take it.
    """
    try:
        outputs, inputs = map(operator.index, given)
    except (TypeError, ValueError):
        outputs, inputs = 0, 0
    if (outputs, inputs) not in BLOCKS:
        known = ", ".join(map(str, BLOCKS))
        raise ValueError(f"block must be (outputs, inputs), one of {known} (got {shortened(given)})")
    return outputs, inputs


def _lengths(given: Any, layers: int) -> Lengths:
    """Return the share of tokens that all layers together see, or the shares that go on after some.

    Raises:
        ValueError: it is neither, out of range, or nothing that so many layers can do.
    """
    if given is None:
        return None
    if isinstance(given, Real):
        share = float(given)
        if not 0 < share <= 1:
            raise ValueError(f"lengths must be above 0 and at most 1 (got {shortened(given)})")
        check_share(layers, share)
        return share
    try:
        shares = {operator.index(layer): _number(share) for layer, share in given.items()}
    except (AttributeError, TypeError):
        wanted = "a share, or a dict from numbers of layers to shares"
        raise ValueError(f"lengths must be {wanted} (got {shortened(repr(given))})") from None
    check_lengths(lengths_after(shares, layers), layers)
    return shares
