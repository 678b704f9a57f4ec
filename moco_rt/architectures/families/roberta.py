"""RoBERTa, and its equals XLM-RoBERTa and CamemBERT."""

from __future__ import annotations

from typing import Any

from moco_rt._C import EmbeddingSpec
from moco_rt.architectures.families.bert_like import BertLike


class Roberta(BertLike):
    """RoBERTa: positions count from the padding token's id + 1."""

    def __init__(self, model: Any):
        if model.config.pad_token_id is None:
            raise ValueError("config.pad_token_id must be a number: positions are counted from it (got None)")
        super().__init__(model, "roberta")
        self._padding_idx: int = self._base.embeddings.padding_idx
        self.max_seqlen -= self._padding_idx + 1

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        return super()._embedding_spec(padding_idx=self._padding_idx, **special)
