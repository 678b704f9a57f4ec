"""The classifiers whose settled rows leave early, as they are imported by name."""

from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.model import EarlyExitTextClassificationModel

__all__ = ["EarlyExitImageClassificationModel", "EarlyExitTextClassificationModel"]
