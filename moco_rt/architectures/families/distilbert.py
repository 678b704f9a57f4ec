"""DistilBERT (DistilBertForSequenceClassification)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moco_rt._C import EmbeddingSpec
from moco_rt.architectures.base import Head
from moco_rt.architectures.families.bert_like import BertLike


class DistilBert(BertLike):
    """DistilBERT: no token types, no pooler, names of its own."""

    def __init__(self, model: Any):
        super().__init__(model, "distilbert", "transformer.layer", ("sa_layer_norm", "output_layer_norm"))

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word + position embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids)
        return hidden

    def _head(self) -> Head:
        model = self._model
        steps = (lambda hidden: hidden[:, 0], model.pre_classifier, torch.relu, model.dropout, model.classifier)
        return Head(steps, "pre_classifier", "relu", "classifier")

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        return super()._embedding_spec(types=None, **special)

    def _hidden_act(self) -> Any:
        return self._model.config.activation

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, mask: Any) -> Tensor:
        output: Tensor = layer.sa_layer_norm(layer.attention(hidden, attention_mask=mask)[0] + hidden)
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = layer.output_layer_norm(layer.ffn(hidden) + hidden)
        return output

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        attention = layer.attention
        return {
            "query": attention.q_lin,
            "key": attention.k_lin,
            "value": attention.v_lin,
            "attention_output": attention.out_lin,
            "intermediate": layer.ffn.lin1,
            "output": layer.ffn.lin2,
        }

    @staticmethod
    def _norms(layer: Any) -> tuple[Any, Any]:
        return layer.sa_layer_norm, layer.output_layer_norm
