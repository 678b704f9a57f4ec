"""The models, and what their answers cost at least."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from common import SHARED

#: Of the size that most classifiers have; its weights are random, which costs no less time.
RANDOM = "bert-base"


def model_dir(name: str, folder: Path) -> Path:
    """Where the model lies; the random one is made in folder."""
    return _random_bert(folder / RANDOM) if name == RANDOM else SHARED / "models" / name


def tokenizer_dir(name: str) -> Path:
    return SHARED / "models" / ("minilm-sst2" if name == RANDOM else name)


def _random_bert(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir(RANDOM))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    return folder


def dense_flops(lengths: Iterable[int], config: dict) -> int:
    """Multiplications and additions that rows of these lengths ask of all layers, without padding; head ignored.

    An engine that leaves out what nobody reads, such as most of the last layer, may seem to exceed the peak.
    """
    hidden, ffn, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return layers * sum(length * (8 * hidden**2 + 4 * hidden * ffn + 4 * length * hidden) for length in lengths)


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
