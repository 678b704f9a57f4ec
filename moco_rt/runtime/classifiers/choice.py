"""The class that takes a classifier: of texts or of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moco_rt.architectures import Source, find_source, holds_images_model, takes_images
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.model import EarlyExitTextClassificationModel


def class_for(model: Any) -> type[EarlyExitClassifier]:
    """Return the class that takes a Hugging Face model; that of texts refuses what is no classifier at all."""
    return EarlyExitImageClassificationModel if takes_images(model) else EarlyExitTextClassificationModel


def class_of(name: str | Path) -> type[EarlyExitClassifier]:
    """Return the class whose `from_pretrained` loads what lies in a directory, or on the hub.

    Raises:
        OSError: nothing lies there, see `find_source`.
    """
    images = holds_images_model(find_source(Source(str(name))))
    return EarlyExitImageClassificationModel if images else EarlyExitTextClassificationModel
