"""One model, one batch: backends, exit points, the model class, prediction, checkpoints."""

from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import EarlyExitOutput, Prediction

__all__ = [
    "EarlyExitImageClassificationModel",
    "EarlyExitOutput",
    "EarlyExitTextClassificationModel",
    "Prediction",
]
