"""The families that are covered, by the class of a Hugging Face model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.families.albert import Albert
from moco_rt.architectures.families.bert import Bert
from moco_rt.architectures.families.deberta import Deberta
from moco_rt.architectures.families.deberta_v2 import DebertaV2
from moco_rt.architectures.families.decoder import Decoder, LayerTypesDecoder, WindowDecoder
from moco_rt.architectures.families.distilbert import DistilBert
from moco_rt.architectures.families.electra import Electra
from moco_rt.architectures.families.eurobert import EuroBert
from moco_rt.architectures.families.gemma import Gemma2, Gemma3
from moco_rt.architectures.families.modernbert import ModernBert
from moco_rt.architectures.families.mpnet import MPNet
from moco_rt.architectures.families.nomic_bert import Gte, NomicBert
from moco_rt.architectures.families.phi3 import Phi3
from moco_rt.architectures.families.roberta import Roberta
from moco_rt.architectures.families.vit import DeiT, ViT

#: The names of classes that classify texts, and images, end so.
TEXTS, IMAGES = "ForSequenceClassification", "ForImageClassification"

#: The name of a class, its module within `transformers.models`, and what drives it.
_FAMILIES: dict[str, tuple[str, Callable[[Any], Architecture]]] = {
    "AlbertForSequenceClassification": ("albert.modeling_albert", Albert),
    "BertForSequenceClassification": ("bert.modeling_bert", Bert),
    "CamembertForSequenceClassification": ("camembert.modeling_camembert", Roberta),
    "DebertaForSequenceClassification": ("deberta.modeling_deberta", Deberta),
    "DebertaV2ForSequenceClassification": ("deberta_v2.modeling_deberta_v2", DebertaV2),
    "DeiTForImageClassification": ("deit.modeling_deit", DeiT),
    "DistilBertForSequenceClassification": ("distilbert.modeling_distilbert", DistilBert),
    "ElectraForSequenceClassification": ("electra.modeling_electra", Electra),
    "EuroBertForSequenceClassification": ("eurobert.modeling_eurobert", EuroBert),
    "GemmaForSequenceClassification": ("gemma.modeling_gemma", Decoder),
    "Gemma2ForSequenceClassification": ("gemma2.modeling_gemma2", Gemma2),
    "Gemma3TextForSequenceClassification": ("gemma3.modeling_gemma3", Gemma3),
    "GteForSequenceClassification": ("gte.modeling_gte", Gte),
    "LlamaForSequenceClassification": ("llama.modeling_llama", Decoder),
    "MPNetForSequenceClassification": ("mpnet.modeling_mpnet", MPNet),
    "MistralForSequenceClassification": ("mistral.modeling_mistral", WindowDecoder),
    "ModernBertForSequenceClassification": ("modernbert.modeling_modernbert", ModernBert),
    "NomicBertForSequenceClassification": ("nomic_bert.modeling_nomic_bert", NomicBert),
    "Phi3ForSequenceClassification": ("phi3.modeling_phi3", Phi3),
    "Qwen2ForSequenceClassification": ("qwen2.modeling_qwen2", LayerTypesDecoder),
    "Qwen3ForSequenceClassification": ("qwen3.modeling_qwen3", LayerTypesDecoder),
    "RobertaForSequenceClassification": ("roberta.modeling_roberta", Roberta),
    "SmolLM3ForSequenceClassification": ("smollm3.modeling_smollm3", LayerTypesDecoder),
    "ViTForImageClassification": ("vit.modeling_vit", ViT),
    "XLMRobertaForSequenceClassification": ("xlm_roberta.modeling_xlm_roberta", Roberta),
}


#: Classes of moco_rt's own, which `register` adds.
_OURS: dict[type, Callable[[Any], Architecture]] = {}


def register(kind: type, adapter: Callable[[Any], Architecture]) -> None:
    """Cover a class of moco_rt's own.

    Args:
        kind: the class.
        adapter: what drives its models.
    """
    _OURS[kind] = adapter


def check_classifier(model: Any, *of: str) -> None:
    """Refuse what is not a classifier of Hugging Face's.

    Args:
        model: the model.
        of: `TEXTS` or `IMAGES`; none: a classifier of either will do.

    Raises:
        TypeError: the model is something else.
        ValueError: it has weights that are not in memory, as after `accelerate.disk_offload`.
    """
    kinds = of or (TEXTS, IMAGES)
    names = [kind.__name__ for kind in type(model).__mro__]
    # Some names go on: ...ForImageClassificationWithTeacher.
    if not isinstance(model, PreTrainedModel) or not any(kind in name for kind in kinds for name in names):
        wanted = " or ".join(f"...{kind}" for kind in kinds)
        raise TypeError(f"model must be a Hugging Face {wanted} (got {names[0]})")
    for name, weight in model.named_parameters():
        if weight.is_meta:
            raise ValueError(f"{name} must be in memory (got a weight on the device meta)")


def takes_images(model: Any) -> bool:
    """Tell whether a model is a Hugging Face classifier of images."""
    return isinstance(model, PreTrainedModel) and any(IMAGES in kind.__name__ for kind in type(model).__mro__)


def architecture_of(model: Any) -> Architecture:
    """The adapter that drives a model sub-layer by sub-layer.

    Raises:
        TypeError: model is not a Hugging Face classifier of texts or images.
        ValueError: its family is not covered, or driving its parts would not compute what the model computes: its class
            is a subclass, or parts that would be passed by were changed or have hooks.
    """
    check_classifier(model)
    if type(model) in _OURS:
        return _OURS[type(model)](model)
    return _adapter_of(type(model), _FAMILIES)(model)


def is_covered(model: Any) -> bool:
    """Tell whether a model's class is one of which `architecture_of` knows every part."""
    return type(model) in _OURS or type(model).__name__ in _FAMILIES


def covered_classes() -> list[str]:
    """Return the names of the classes that have exits, or run on the packed kernels."""
    return list(_FAMILIES)


def adapter_of_base(base: Any) -> Callable[[Any], Architecture]:
    """Return what drives the classifiers on a base model such as `BertModel`.

    Raises:
        ValueError: its family is not covered, or its class is a subclass.
    """
    of_texts = {name: each for name, each in _FAMILIES.items() if name.endswith(TEXTS)}
    return _adapter_of(type(base), {f"{name.removesuffix(TEXTS)}Model": each for name, each in of_texts.items()})


def _adapter_of(
    kind: type, families: dict[str, tuple[str, Callable[[Any], Architecture]]]
) -> Callable[[Any], Architecture]:
    name = kind.__name__
    if name not in families:
        raise ValueError(f"model must be one of {', '.join(families)} (got {name})")
    home, adapter = families[name]
    if kind is not getattr(sys.modules.get(f"transformers.models.{home}"), name, None):
        raise ValueError(f"model must be transformers' own {name} (got a class of that name from {kind.__module__})")
    return adapter


def warn_where_untrained(architecture: Architecture) -> None:
    """Warn the caller of the caller where a classifier still is as a fresh initialisation leaves it."""
    if architecture.head_is_untrained():
        warnings.warn(
            "the classifier's bias is exactly zero, as an untrained one's is: what the model predicts settles "
            "nothing until it is fine-tuned",
            stacklevel=3,
        )
