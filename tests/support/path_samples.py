"""A small model's path of made-up policies, by whose exits rows do leave."""

from __future__ import annotations

import numpy as np

from moco_rt.architectures.sites import TOKENS
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.bag_of_tokens import BagOfTokens
from moco_rt.policies.conditions import OffRamp
from moco_rt.policies.policy import CertifiedPath

HIDDEN, CLASSES, STEPS = 32, 3, 6
SITES = (("embeddings", "cls+mean"), ("encoder.0.attention", "cls"), ("encoder.0.attention", "cls+mean"))


def with_path(fast, shares=(0.0, 0.002, 0.01, 0.03, 0.08, 0.2), variant=0):
    """Give a model a path of made-up policies, which let ever more rows leave, by ever more off-ramps.

    Where it takes texts the fastest policy has a bag of tokens, too.
    """
    rng = np.random.default_rng(3)
    table = np.random.default_rng(4).normal(0, 2, (64, CLASSES))
    bags = [BagOfTokens.closed(table, np.zeros(CLASSES), 1.0)] if TOKENS in fast.sites else []
    ramps, thresholds = list(bags), np.full((STEPS, len(bags) + len(SITES), CLASSES), np.inf, np.float32)
    thresholds[-1, : len(bags)] = 0.995
    for place, (site, feature) in enumerate(SITES):
        size = HIDDEN * (2 if "+" in feature else 1)
        layers = ((rng.normal(0, 0.5, (CLASSES, size)).astype(np.float32), np.zeros(CLASSES, np.float32)),)
        ramps.append(OffRamp(layers, np.full(CLASSES, np.inf), np.full(CLASSES, 0.02), feature=feature, site=site))
        for step in range(max(1, place), STEPS):
            thresholds[step, len(bags) + place] = 1.0 - 0.003 * (step - place) - 0.0005
    variants = np.full(STEPS, variant)
    variants[0] = 0
    rows = 1000
    disagreements = np.array([round(share * rows) for share in shares])
    seconds = np.array([1.0, 0.6, 0.5, 0.4, 0.3, 0.2])
    path = PolicyPath(("as given", "other"), variants, thresholds, disagreements, seconds, rows, 1, 1)
    fast.policy.path = CertifiedPath(ramps, path)
    fast.policy.take_step(1)
    return fast
