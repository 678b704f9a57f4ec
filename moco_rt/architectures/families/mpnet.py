"""MPNet (MPNetForSequenceClassification): scores of attention have a bias by the distance of two tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import DistanceBias, EmbeddingSpec
from moco_rt.architectures.families.bert_like import BertLike


class MPNet(BertLike):
    """MPNet: one bias of scores for all layers, no token types; positions count from the padding token's id + 1."""

    def __init__(self, model: Any):
        super().__init__(model, "mpnet")
        self._padding_idx: int = self._base.embeddings.padding_idx
        self.max_seqlen -= self._padding_idx + 1

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word + position embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids=input_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The mask in the form of the model's attention, and the bias of scores, (rows, heads, S, S)."""
        return super().context(attention_mask, hidden), self._base.encoder.compute_position_bias(hidden)

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        output: Tensor = layer.attention(hidden, context[0], position_bias=context[1])[0]
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = layer.output(layer.intermediate(hidden), hidden)
        return output

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        return super()._embedding_spec(types=None, padding_idx=self._padding_idx, **special)

    @torch.no_grad()
    def _biases(self) -> Sequence[DistanceBias]:
        positions = torch.empty(1, self.max_seqlen, 0, dtype=torch.float32, device=self.device)
        bias = self._base.encoder.compute_position_bias(positions)[0].float()  # (heads, queries, keys)
        before, behind = bias[:, :, 0].flip(1), bias[:, 0, 1:]  # keys before a query, or its own; keys behind it
        return [DistanceBias(torch.cat((before, behind), 1))] * self.num_layers

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        attention = layer.attention.attn
        return {
            "query": attention.q,
            "key": attention.k,
            "value": attention.v,
            "attention_output": attention.o,
            "intermediate": layer.intermediate.dense,
            "output": layer.output.dense,
        }

    @staticmethod
    def _norms(layer: Any) -> tuple[Any, Any]:
        return layer.attention.LayerNorm, layer.output.LayerNorm
