"""ModernBERT (ModernBertForSequenceClassification): norms before sub-layers, rotary positions, local windows, gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask

from moco_rt._C import (
    AttentionSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    SubLayerNorms,
)
from moco_rt.architectures.base import activation_name, affine, linear_weights, norm, parts_of
from moco_rt.architectures.families.layered import Layered
from moco_rt.architectures.families.rotary import rotary_tables

#: What the classifier pools, by the names of the configuration.
_POOLINGS = {"cls": "token", "mean": "mean"}


class ModernBert(Layered):
    """ModernBERT: every third layer attends to all tokens, the others to a window."""

    def __init__(self, model: Any):
        super().__init__(model, "model", "layers", "attn", None)

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The arguments of `attn` by a layer's type: its mask, and cosine and sine of its rotary positions."""
        masks = {"config": self._model.config, "inputs_embeds": hidden, "attention_mask": attention_mask}
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = self._base.rotary_emb
        return {
            kind: {"attention_mask": make_mask(**masks), "position_embeddings": rotary(hidden, positions, kind)}
            for kind, make_mask in (
                ("full_attention", create_bidirectional_mask),
                ("sliding_attention", create_bidirectional_sliding_window_mask),
            )
            if kind in self._model.config.layer_types
        }

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Final norm, pooling, dense layer, norm and classifier: (rows, S, D) -> (rows, C)."""
        model = self._model
        hidden = self._base.final_norm(hidden)
        if model.config.classifier_pooling == "mean":
            tokens = attention_mask.sum(dim=1, keepdim=True)
            hidden = (hidden * attention_mask.unsqueeze(-1)).sum(dim=1) / tokens
        else:
            hidden = hidden[:, 0]
        logits: Tensor = model.classifier(model.drop(model.head(hidden)))
        return logits

    def _embedding_spec(self) -> EmbeddingSpec:
        embeddings = self._base.embeddings
        return EmbeddingSpec(words=embeddings.tok_embeddings.weight, norm=norm(embeddings.norm))

    def _layer_specs(self) -> list[LayerSpec]:
        rotary = self._base.rotary_emb
        kinds = set(self._model.config.layer_types)
        ropes = {kind: rotary_tables(rotary, self.max_seqlen, kind) for kind in kinds}
        return [self._layer_spec(layer, ropes[layer.attention_type]) for layer in self._layers]

    def _head_spec(self) -> HeadSpec:
        model, config = self._model, self._model.config
        return HeadSpec(
            dense=affine(model.head.dense),
            activation=activation_name(config.classifier_activation),
            norm=norm(model.head.norm),
            output=affine(model.classifier),
            final_norm=self._final_norm(),
            pooling=_POOLINGS[config.classifier_pooling],
        )

    def _final_norm(self) -> NormSpec:
        return norm(self._base.final_norm)

    def _layer_spec(self, layer: Any, rope: tuple[Tensor, Tensor]) -> LayerSpec:
        config = self._model.config
        query, key, value = parts_of(layer.attn.Wqkv, 1, 1, 1)
        gate, up = parts_of(layer.mlp.Wi, 1, 1)
        window = config.sliding_window if layer.attention_type == "sliding_attention" else -1
        first = isinstance(layer.attn_norm, torch.nn.Identity)  # behind the norm of the embeddings
        return LayerSpec(
            attention=AttentionSpec(
                query=query,
                key=key,
                value=value,
                output=linear_weights(layer.attn.Wo),
                heads=config.num_attention_heads,
                before=window,
                behind=window,
                rope=rope,
            ),
            around_attention=SubLayerNorms(before=None if first else norm(layer.attn_norm)),
            feed_forward=FeedForwardSpec(
                gate=gate,
                up=up,
                down=linear_weights(layer.mlp.Wo),
                activation=activation_name(config.hidden_activation),
            ),
            around_feed_forward=SubLayerNorms(before=norm(layer.mlp_norm)),
        )

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        output: Tensor = hidden + layer.attn(layer.attn_norm(hidden), **context[layer.attention_type])[0]
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = hidden + layer.mlp(layer.mlp_norm(hidden))
        return output

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        yield from ((layer.attn.Wqkv,), (layer.attn.Wo,), (layer.mlp.Wi,), (layer.mlp.Wo,))
