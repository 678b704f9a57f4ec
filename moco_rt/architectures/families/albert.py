"""ALBERT (AlbertForSequenceClassification): layers that share their weights, embeddings narrower than they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from moco_rt._C import EmbeddingSpec, LayerSpec
from moco_rt.architectures.base import Head, affine
from moco_rt.architectures.families.bert_like import BertLike
from moco_rt.architectures.families.layered import Layered


class Albert(BertLike):
    """ALBERT: a few groups of layers, each run several times."""

    layer_path = r"\d+\.albert_layers\.\d+"

    def __init__(self, model: Any):
        Layered.__init__(self, model, "albert", "encoder.albert_layer_groups", "attention", None)
        self.module_paths["albert.encoder.embedding_hidden_mapping_in"] = self.module_paths.pop("albert.embeddings")

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings as BERT's, projected to the layers' size: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.encoder.embedding_hidden_mapping_in(super().embed(input_ids, token_type_ids))
        return hidden

    def pool(self, hidden: Tensor) -> Tensor:
        """The first token by the dense layer and its activation: (rows, S, D) -> (rows, D)."""
        pooled: Tensor = self._base.pooler_activation(self._base.pooler(hidden[:, 0]))
        return pooled

    def _in_order(self, stack: Any) -> list[Any]:
        count, groups = self._model.config.num_hidden_layers, len(stack)
        return [layer for i in range(count) for layer in stack[int(i / (count / groups))].albert_layers]

    def _layer_specs(self) -> list[LayerSpec]:
        return [self._layer_spec(layer, None) for layer in dict.fromkeys(self._layers)]

    def _order(self) -> list[int]:
        layers = list(dict.fromkeys(self._layers))
        return [layers.index(layer) for layer in self._layers]

    def _head(self) -> Head:
        steps = (
            lambda hidden: hidden[:, 0],
            self._base.pooler,
            self._base.pooler_activation,
            self._model.dropout,
            self._model.classifier,
        )
        return Head(steps, "albert.pooler", "tanh", "classifier")

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        projection = affine(self._base.encoder.embedding_hidden_mapping_in)
        return super()._embedding_spec(projection=projection, **special)

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = layer.full_layer_layer_norm(layer.ff_chunk(hidden) + hidden)
        return output

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        attention = layer.attention
        return {
            "query": attention.query,
            "key": attention.key,
            "value": attention.value,
            "attention_output": attention.dense,
            "intermediate": layer.ffn,
            "output": layer.ffn_output,
        }

    @staticmethod
    def _norms(layer: Any) -> tuple[Any, Any]:
        return layer.attention.LayerNorm, layer.full_layer_layer_norm
