"""BERT (BertForSequenceClassification), and whatever is published under that class, as MiniLM is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from moco_rt.architectures.bert_like import BertLike


class Bert(BertLike):
    """BERT: the dense layer is the pooler."""

    def __init__(self, model: Any):
        super().__init__(model, "bert")

    def classify(self, hidden: Tensor) -> Tensor:
        """Pooler and classifier: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.classifier(self._model.dropout(self._base.pooler(hidden)))
        return logits

    def _head(self) -> tuple[Any, Any, str]:
        return self._base.pooler.dense, self._model.classifier, "tanh"
