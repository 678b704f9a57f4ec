"""The classifier whose settled rows leave early, as it is imported by name."""

from moco_rt.runtime.model import EarlyExitTextClassificationModel

__all__ = ["EarlyExitTextClassificationModel"]
