"""Hugging Face models as sub-layers and as weights: the only room that knows their names."""

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.compressed.model import CompressedForSequenceClassification
from moco_rt.architectures.hub import Source, find_file, find_source, holds_images_model, load_model
from moco_rt.architectures.image_processors import find_image_processor, load_image_processor
from moco_rt.architectures.pipelines import unwrap
from moco_rt.architectures.registry import (
    IMAGES,
    TEXTS,
    architecture_of,
    check_classifier,
    takes_images,
    warn_where_untrained,
)
from moco_rt.architectures.tasks import (
    SINGLE_LABEL,
    TASKS,
    Flags,
    MultiLabel,
    Ranking,
    Regression,
    SingleLabel,
    Task,
    check_label_names,
    check_single_label,
    log_odds,
    probabilities,
    softmax,
    task_from,
    task_of,
)
from moco_rt.architectures.tokenizers import find_tokenizer, load_classifier, load_tokenizer

__all__ = [
    "IMAGES",
    "SINGLE_LABEL",
    "TASKS",
    "TEXTS",
    "Architecture",
    "CompressedForSequenceClassification",
    "Flags",
    "MultiLabel",
    "Ranking",
    "Regression",
    "SingleLabel",
    "Source",
    "Task",
    "architecture_of",
    "check_classifier",
    "check_label_names",
    "check_single_label",
    "find_file",
    "find_image_processor",
    "find_source",
    "find_tokenizer",
    "holds_images_model",
    "load_classifier",
    "load_image_processor",
    "load_model",
    "load_tokenizer",
    "log_odds",
    "probabilities",
    "softmax",
    "takes_images",
    "task_from",
    "task_of",
    "unwrap",
    "warn_where_untrained",
]
