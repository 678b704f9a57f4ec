"""The families that are covered, by the class of a Hugging Face model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.families.bert import Bert, Electra, Roberta
from moco_rt.architectures.families.distilbert import DistilBert

_FAMILIES: dict[str, Callable[[Any], Architecture]] = {
    "BertForSequenceClassification": Bert,
    "CamembertForSequenceClassification": Roberta,
    "DistilBertForSequenceClassification": DistilBert,
    "ElectraForSequenceClassification": Electra,
    "RobertaForSequenceClassification": Roberta,
    "XLMRobertaForSequenceClassification": Roberta,
}


def architecture_of(model: Any) -> Architecture:
    """The adapter that drives a model sub-layer by sub-layer; warns where the model's head looks untrained.

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
