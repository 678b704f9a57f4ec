"""Compression: smaller models made from a classifier, whose answers they learn; nobody's labels are needed.

`moco_rt.compress` is what users call.
"""

from moco_rt.architectures.compressed.model import CompressedForSequenceClassification

__all__ = ["CompressedForSequenceClassification"]
