"""RoBERTa, and XLM-RoBERTa and CamemBERT, which are RoBERTa with other vocabularies."""

from __future__ import annotations

from typing import Any

from moco_rt._C import EmbeddingWeights
from moco_rt.architectures.bert_like import BertLike


class Roberta(BertLike):
    """RoBERTa: positions count from the padding token's id + 1."""

    def __init__(self, model: Any):
        super().__init__(model, "roberta")
        self._padding_idx: int = self._base.embeddings.padding_idx
        self.max_seqlen -= self._padding_idx + 1

    def _embedding_weights(self, **special: Any) -> EmbeddingWeights:
        return super()._embedding_weights(padding_idx=self._padding_idx, **special)
