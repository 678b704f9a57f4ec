"""The models, and what their answers cost at least."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import SHARED

_TEXTS = {"pad_token_id": 0}
_ENDS = _TEXTS | {"bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102}
_DISTANCES = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_QWEN = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}

#: Models of the sizes that most classifiers have, by name: class, and what their published configurations say other
#: than the class does. Their weights are random, which costs no less time.
RANDOM: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base": ("BertForSequenceClassification", _TEXTS),
    "modernbert-base": ("ModernBertForSequenceClassification", _ENDS),
    "mpnet-base": ("MPNetForSequenceClassification", {}),
    "deberta-v3-base": (
        "DebertaV2ForSequenceClassification",
        _TEXTS | _BASE | _DISTANCES | {"type_vocab_size": 0},
    ),
    "qwen3-0.6b": ("Qwen3ForSequenceClassification", _TEXTS | _QWEN | {"num_key_value_heads": 8, "head_dim": 128}),
    "vit-base": ("ViTForImageClassification", {}),
}
#: Families whose feed-forward has a gate.
_GATED = ("modernbert", "qwen3")
#: Families that add two terms of the same size to their attention scores.
_DISENTANGLED = ("deberta-v2",)


def model_dir(name: str, folder: Path) -> Path:
    """Where the model lies; a random one is made in folder."""
    return _random_model(name, folder / name) if name in RANDOM else SHARED / "models" / name


def tokenizer_dir(name: str) -> Path:
    return SHARED / "models" / ("minilm-sst2" if name in RANDOM else name)


def _random_model(name: str, folder: Path) -> Path:
    """Make a model whose vocabulary is our tokenizer's: of a larger one, no more would be read."""
    import torch
    import transformers

    class_name, special = RANDOM[name]
    if "Image" not in class_name:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_dir(name))
        tokenizer.save_pretrained(folder)
        special = special | {"vocab_size": len(tokenizer)}
    kind = getattr(transformers, class_name)
    torch.manual_seed(0)
    kind(kind.config_class(**special)).save_pretrained(folder)
    return folder


def dense_flops(lengths: Iterable[int], config: dict) -> int:
    """Multiplications and additions that rows of these lengths ask of all layers, without padding; head ignored.

    An engine that leaves out what nobody reads, such as most of the last layer, may seem to exceed the peak.
    """
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    projections = 2 * hidden * size * (heads + config.get("num_key_value_heads", heads))
    feed_forward = (3 if config["model_type"] in _GATED else 2) * hidden * config["intermediate_size"]
    scores = (4 if config["model_type"] in _DISENTANGLED else 2) * heads * size
    return config["num_hidden_layers"] * sum(
        2 * length * (projections + feed_forward + length * scores) for length in lengths
    )


def input_names(config: dict) -> tuple[str, ...]:
    """Return the names of the model's inputs."""
    if "image_size" in config:
        return ("pixel_values",)
    return ("input_ids", "attention_mask", *(["token_type_ids"] if config.get("type_vocab_size") else []))


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
