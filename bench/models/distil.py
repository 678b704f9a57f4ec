"""Small models of a family, taught by `minilm-sst2` on sentences of SST-2's training rows."""

from __future__ import annotations

from typing import Any

import torch
from common import SHARED, read_jsonl
from torch import Tensor
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
)

from moco_rt import EarlyExitTextClassificationModel
from models.case import ACCELERATE_ROWS, Case
from models.training import train

TEACHER = SHARED / "models" / "minilm-sst2"
#: More rows that the small models never see: on these, exits are tried.
REPORT_ROWS = 5_000
EPOCHS, MAX_LENGTH = 2, 64
_SIZES = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 512}


def families() -> dict[str, tuple[type[PreTrainedModel], Any]]:
    """Return class and configuration of every small model."""
    tokens = {"vocab_size": 30522, "pad_token_id": 0, "max_position_embeddings": 512, "num_labels": 2}
    ends = {"bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102}
    windows = {"local_attention": 32, "global_attn_every_n_layers": 3, "classifier_pooling": "cls"}
    distances = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
    distances |= {"position_buckets": 32, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0}
    return {
        "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config(**_SIZES, **tokens, **distances)),
        "modernbert": (ModernBertForSequenceClassification, ModernBertConfig(**_SIZES, **tokens, **ends, **windows)),
        "decoder": (LlamaForSequenceClassification, LlamaConfig(**_SIZES, **tokens, num_key_value_heads=2)),
    }


def rows() -> tuple[list[dict], list[dict], list[dict]]:
    """Return the rows to report on, those for `accelerate` and those to learn from, always the same."""
    everything = read_jsonl(SHARED / "data/sst2/train.jsonl", 67_349)
    first, last = REPORT_ROWS, REPORT_ROWS + ACCELERATE_ROWS
    return everything[:first], everything[first:last], everything[last:]


def case_of_texts(model: Any, tokenizer: Any) -> Case:
    """A classifier of SST-2's sentences, with those that it has not learnt from."""
    never_seen, held_back, _ = rows()
    return Case(
        model,
        {"tokenizer": tokenizer, "max_length": MAX_LENGTH},
        [row["text"] for row in held_back],
        [row["text"] for row in never_seen],
        [row["label"] for row in never_seen],
    )


def distil(family: str, learn_rows: int | None = None) -> Case:
    """A model of a family that has learnt the teacher's probabilities of so many sentences, by default of all."""
    torch.manual_seed(0)
    kind, config = families()[family]
    model = kind(config)
    teacher = EarlyExitTextClassificationModel.from_pretrained(TEACHER)
    model.config.id2label, model.config.label2id = teacher.config.id2label, teacher.config.label2id
    texts = [row["text"] for row in rows()[2]][:learn_rows]
    probs = teacher.predict(texts, max_length=MAX_LENGTH).probs
    assert probs is not None

    def loss_of(batch: list[int]) -> Tensor:
        inputs = teacher.tokenizer(
            [texts[i] for i in batch], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return torch.nn.functional.cross_entropy(logits, probs[batch])

    train(model, len(texts), EPOCHS, loss_of)
    return case_of_texts(model, teacher.tokenizer)
