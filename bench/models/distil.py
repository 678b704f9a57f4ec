"""Small models of a family, taught by `minilm-sst2` on sentences of SST-2's training rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from common import SHARED, read_jsonl
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

TEACHER = SHARED / "models" / "minilm-sst2"
#: Rows that the small models never see: of some `accelerate` learns and certifies, on the others it is tried.
ACCELERATE_ROWS, REPORT_ROWS = 20_000, 5_000
BATCH_ROWS, EPOCHS, LEARNING_RATE, WARM_UP = 64, 2, 1e-3, 0.1
MAX_LENGTH = 64
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


def distil(family: str) -> tuple[Any, Any]:
    """A model of a family that has learnt the teacher's probabilities, with its tokenizer."""
    torch.manual_seed(0)
    kind, config = families()[family]
    model = kind(config).train()
    teacher = EarlyExitTextClassificationModel.from_pretrained(TEACHER)
    model.config.id2label, model.config.label2id = teacher.config.id2label, teacher.config.label2id
    texts = [row["text"] for row in rows()[2]]
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    steps = EPOCHS * math.ceil(len(texts) / BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP)
    probs = teacher.predict(texts, max_length=MAX_LENGTH).probs
    assert probs is not None
    for batch in _batches(len(texts)):
        inputs = teacher.tokenizer(
            [texts[i] for i in batch], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits, probs[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), teacher.tokenizer


def _batches(count: int) -> Iterator[Sequence[int]]:
    """Yield the places of the rows of each batch, every epoch in an order of its own."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        yield from (batch.tolist() for batch in torch.randperm(count, generator=generator).split(BATCH_ROWS))
