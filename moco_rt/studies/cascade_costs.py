"""Ways out of a cascade, and the costs of rows that leave by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.studies.costs import Costs


@dataclass(frozen=True)
class WayOut:
    """One way out of a cascade.

    Attributes:
        tier: number of the tier that it belongs to.
        off_ramp: an exit inside the tier; None: the tier's end.
    """

    tier: int
    off_ramp: AnyOffRamp | None

    @property
    def site(self) -> str:
        """Name of its place, unique in the cascade."""
        return f"tier {self.tier} {'end' if self.off_ramp is None else self.off_ramp.site}"


@dataclass(frozen=True)
class CascadeCosts:
    """Seconds of rows that leave a cascade, in full batches everywhere: rows that go on are pooled.

    Attributes:
        ways: W ways out, sorted by tier; within a tier the exits in the order of their sites, then its end.
        tiers: costs of each tier by itself, by its off-ramps in their order.
        encode: seconds by tier to tokenise a text.
        shares_tokens: (tiers, tiers) bool; [i, j]: tier i can reuse the tokens of tier j.
    """

    ways: Sequence[WayOut]
    tiers: Sequence[Costs]
    encode: Sequence[float]
    shares_tokens: NDArray[np.bool_]

    def seconds(self, lengths: NDArray[np.int64], chosen: Sequence[int]) -> NDArray[np.float64]:
        """Return seconds (n, len(chosen) + 1), see `Costs.seconds`. A tier without a chosen way out is not run.

        Args:
            lengths: (tiers, n) tokens of the rows, by tier.
            chosen: ascending indices of the ways out that are used.
        """
        # Invariant: columns come out in the order of `chosen`, because `ways` are sorted by tier, and within a tier its
        # exits stand before its end, which is just how the loop below appends them. The last tier's end, which is not
        # among the ways, comes last.
        columns = []
        before = np.zeros(lengths.shape[1])
        previous: int | None = None
        for tier, costs in enumerate(self.tiers):
            last = tier == len(self.tiers) - 1
            own = [place for place, way in enumerate(self.ways) if way.tier == tier and way.off_ramp is not None]
            exits = [own.index(place) for place in chosen if place in own]
            handed_over = any(self.ways[place].tier == tier and self.ways[place].off_ramp is None for place in chosen)
            if not (exits or handed_over or last):
                continue
            encoded = previous is not None and self.shares_tokens[tier, previous]
            seconds = before[:, None] + costs.seconds(lengths[tier], exits) + (0.0 if encoded else self.encode[tier])
            previous = tier
            columns += [seconds[:, place] for place in range(len(exits))]
            before = seconds[:, -1]
            if handed_over or last:
                columns.append(before)
        return np.column_stack(columns)
