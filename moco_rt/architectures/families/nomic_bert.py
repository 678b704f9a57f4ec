"""NomicBERT and GTE (NomicBertForSequenceClassification, GteForSequenceClassification): BERT with rotary positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import AttentionSpec, EmbeddingSpec, FeedForwardSpec, LayerSpec, SubLayerNorms
from moco_rt.architectures.base import Head, activation_name, linear_weights, norm
from moco_rt.architectures.families.bert_like import BertLike
from moco_rt.architectures.families.layered import Layered
from moco_rt.architectures.families.rotary import rotary_tables


class NomicBert(BertLike):
    """NomicBERT: norms behind sub-layers as BERT's, rotary positions in place of a table, gates.

    Args:
        model: the classifier.
        name: of its encoder with the embeddings.
    """

    def __init__(self, model: Any, name: str = "nomic_bert"):
        Layered.__init__(self, model, name, "layers", "self_attn", None)
        self._dense = f"{name}.pooler.dense"

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The arguments of attention: its mask, and cosine and sine of rotary positions."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        return {
            "attention_mask": create_bidirectional_mask(
                config=self._model.config, inputs_embeds=hidden, attention_mask=attention_mask
            ),
            "position_embeddings": self._base.rotary_emb(hidden, positions),
        }

    def _head(self) -> Head:
        steps = (self._base.pooler, self._model.dropout, self._model.classifier)
        return Head(steps, self._dense, "tanh", "classifier")

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        tables = self._base.embeddings
        types = tables.token_type_embeddings  # GTE may have none
        return EmbeddingSpec(
            words=tables.word_embeddings.weight,
            types=None if types is None else types.weight,
            norm=norm(tables.LayerNorm),
            **special,
        )

    def _layer_specs(self) -> list[LayerSpec]:
        rope = rotary_tables(self._base.rotary_emb, self.max_seqlen)
        return [self._rotary_layer_spec(layer, rope) for layer in self._layers]

    def _rotary_layer_spec(self, layer: Any, rope: tuple[Tensor, Tensor]) -> LayerSpec:
        config, attention, mlp = self._model.config, layer.self_attn, layer.mlp
        return LayerSpec(
            attention=AttentionSpec(
                query=linear_weights(attention.q_proj),
                key=linear_weights(attention.k_proj),
                value=linear_weights(attention.v_proj),
                output=linear_weights(attention.o_proj),
                heads=config.num_attention_heads,
                rope=rope,
            ),
            around_attention=SubLayerNorms(after=norm(layer.post_attention_layernorm)),
            feed_forward=FeedForwardSpec(
                gate=linear_weights(mlp.gate_proj),
                up=linear_weights(mlp.up_proj),
                down=linear_weights(mlp.down_proj),
                activation=activation_name(config.hidden_act),
            ),
            around_feed_forward=SubLayerNorms(after=norm(layer.post_mlp_layernorm)),
        )

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        output = layer.post_attention_dropout(layer.self_attn(hidden, **context)[0])
        normalized: Tensor = layer.post_attention_layernorm(hidden + output)
        return normalized

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output = layer.post_mlp_dropout(layer.mlp(hidden))
        normalized: Tensor = layer.post_mlp_layernorm(hidden + output)
        return normalized

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        attention, mlp = layer.self_attn, layer.mlp
        yield from ((attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,))
        yield from ((mlp.gate_proj, mlp.up_proj), (mlp.down_proj,))


class Gte(NomicBert):
    """GTE: NomicBERT's layers with biases."""

    def __init__(self, model: Any):
        super().__init__(model, "gte")
