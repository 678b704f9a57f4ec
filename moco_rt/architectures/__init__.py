"""One small file per model family: the only code that knows Hugging Face's names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.utils.hub import cached_file

from moco_rt.architectures.architecture import Architecture
from moco_rt.architectures.bert import Bert
from moco_rt.architectures.distilbert import DistilBert
from moco_rt.architectures.electra import Electra
from moco_rt.architectures.roberta import Roberta

__all__ = [
    "Architecture",
    "architecture_of",
    "check_settles_one_label",
    "find_file",
    "load_classifier",
    "load_model",
    "load_tokenizer",
]

_FAMILIES: dict[str, Callable[[Any], Architecture]] = {
    "BertForSequenceClassification": Bert,
    "CamembertForSequenceClassification": Roberta,
    "DistilBertForSequenceClassification": DistilBert,
    "ElectraForSequenceClassification": Electra,
    "RobertaForSequenceClassification": Roberta,
    "XLMRobertaForSequenceClassification": Roberta,
}

# pipeline("text-classification") logs an error about any model class whose name it does not find here.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["moco_rt"] = "EarlyExitTextClassificationModel"
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["moco_rt_cascade"] = "Cascade"


def architecture_of(model: Any) -> Architecture:
    """How to drive a model sub-layer by sub-layer; warns where its head looks untrained.

    Raises:
        TypeError: model is not a Hugging Face sequence classifier.
        ValueError: its family is not covered.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel) or not name.endswith("ForSequenceClassification"):
        raise TypeError(f"model must be a Hugging Face ...ForSequenceClassification (got {name})")
    if name not in _FAMILIES:
        raise ValueError(f"model must be one of {', '.join(_FAMILIES)} (got {name})")
    architecture = _FAMILIES[name](model)
    if architecture.head_is_untrained():
        warnings.warn(
            "the classifier's bias is exactly zero, as an untrained one's is: what the model predicts settles "
            "nothing until it is fine-tuned",
            stacklevel=3,
        )
    return architecture


def check_settles_one_label(config: Any) -> None:
    """Refuse exits, and looking for them, where they could settle nothing.

    Raises:
        ValueError: the model does not choose one label of at least two.
    """
    if (config.num_labels or 0) < 2 or config.problem_type in ("regression", "multi_label_classification"):
        raise ValueError(
            "model must choose one label of at least two: a row may leave when its label is settled "
            f"(got num_labels={config.num_labels}, problem_type={config.problem_type})"
        )


def load_model(name: str) -> Any:
    """A classifier, from a directory or by its name on the Hugging Face hub."""
    return AutoModelForSequenceClassification.from_pretrained(name)


def load_classifier(name: str) -> tuple[Any, Any]:
    """A classifier and its tokenizer, from a directory or by their name on the Hugging Face hub."""
    return load_model(name), AutoTokenizer.from_pretrained(name)


def find_file(name: str | Path, file: str) -> Path | None:
    """A file that lies with a model, in a directory or on the hub; None: there is none."""
    found = cached_file(str(name), file, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def load_tokenizer(model: Any) -> Any:
    """The tokenizer that lies where a model came from.

    Raises:
        ValueError: the model does not say where that is.
    """
    if not model.name_or_path:
        raise ValueError("tokenizer must be given: the model does not say where it came from (got None)")
    return AutoTokenizer.from_pretrained(model.name_or_path)
