"""BERT (BertForSequenceClassification), also MiniLM and TinyBERT."""

from __future__ import annotations

from typing import Any

from moco_rt.architectures.base import Head
from moco_rt.architectures.families.bert_like import BertLike


class Bert(BertLike):
    """BERT: the dense layer is the pooler."""

    def __init__(self, model: Any):
        super().__init__(model, "bert")

    def _head(self) -> Head:
        steps = (self._base.pooler, self._model.dropout, self._model.classifier)
        return Head(steps, "bert.pooler.dense", "tanh", "classifier")
