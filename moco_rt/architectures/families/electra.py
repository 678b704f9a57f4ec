"""ELECTRA (ElectraForSequenceClassification)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from moco_rt._C import EmbeddingSpec
from moco_rt.architectures.base import Head, affine
from moco_rt.architectures.families.bert_like import BertLike


class Electra(BertLike):
    """ELECTRA: embeddings may be narrower than the layers, the head's activation is GELU."""

    def __init__(self, model: Any):
        super().__init__(model, "electra")
        self._project = getattr(self._base, "embeddings_project", None)
        if self._project is not None:
            self.module_paths["electra.embeddings_project"] = self.module_paths.pop("electra.embeddings")

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings as BERT's, projected to the layers' size where it is another: (rows, S) -> (rows, S, D)."""
        hidden = super().embed(input_ids, token_type_ids)
        return hidden if self._project is None else self._project(hidden)

    def _head(self) -> Head:
        return replace(super()._head(), activation="gelu")

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        projection = None if self._project is None else affine(self._project)
        return super()._embedding_spec(projection=projection, **special)
