"""Studies: what must be known of a model before a policy is chosen: off-ramps, recorded rows, and costs of leaving."""
