"""Hugging Face models as sub-layers and as weights: the only room that knows their names."""

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.hub import find_file, find_tokenizer, load_classifier, load_model, load_tokenizer
from moco_rt.architectures.registry import architecture_of
from moco_rt.architectures.tasks import check_single_label

__all__ = [
    "Architecture",
    "architecture_of",
    "check_single_label",
    "find_file",
    "find_tokenizer",
    "load_classifier",
    "load_model",
    "load_tokenizer",
]
