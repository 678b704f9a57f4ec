"""Several models one after the other: tiers, their queues, streaming."""

from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.queues import TierError
from moco_rt.cascades.tier import Tier

__all__ = [
    "Cascade",
    "Tier",
    "TierError",
]
