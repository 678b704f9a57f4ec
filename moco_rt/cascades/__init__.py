"""Several models one after the other: tiers, their queues, streaming."""
