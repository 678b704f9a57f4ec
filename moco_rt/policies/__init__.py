"""Policies: exits of a model, the monitor that watches them, and their files and fingerprints."""

from moco_rt.policies.bag_of_tokens import BagOfTokens
from moco_rt.policies.conditions import LinearCondition, LinearRule, OffRamp
from moco_rt.policies.monitor import Monitor
from moco_rt.policies.policy import Exit, Policy

__all__ = [
    "BagOfTokens",
    "Exit",
    "LinearCondition",
    "LinearRule",
    "Monitor",
    "OffRamp",
    "Policy",
]
