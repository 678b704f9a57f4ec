"""DeBERTa-v2 and v3 (DebertaV2ForSequenceClassification): attention to positions beside attention to contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from moco_rt._C import DisentangledBias, EmbeddingSpec
from moco_rt.architectures.base import Head, activation_name, affine
from moco_rt.architectures.families.bert_like import BertLike


class DebertaV2(BertLike):
    """DeBERTa-v2 and v3: every distance of two tokens has a key and a query of its own in each layer.

    Raises:
        ValueError: the model has a convolution, or does not attend to positions.
    """

    #: Options of the configuration that may have one value only.
    covered: Mapping[str, Any] = {"relative_attention": True, "conv_kernel_size": 0}

    def __init__(self, model: Any):
        for option, covered in self.covered.items():
            if (found := getattr(model.config, option, covered)) != covered:
                raise ValueError(f"config.{option} must be {covered} (got {found})")
        super().__init__(model, "deberta")

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The arguments of attention: its mask, the distances of tokens in buckets, and the vectors of these."""
        encoder = self._base.encoder
        return {
            "attention_mask": encoder.get_attention_mask(attention_mask),
            "relative_pos": encoder.get_rel_pos(hidden),
            "rel_embeddings": encoder.get_rel_embedding(),
        }

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        output: Tensor = layer.attention(hidden, **context)[0]
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = layer.output(layer.intermediate(hidden), hidden)
        return output

    def _head(self) -> Head:
        model = self._model
        activation = activation_name(model.config.pooler_hidden_act)
        return Head((model.pooler, model.dropout, model.classifier), "pooler.dense", activation, "classifier")

    @torch.no_grad()
    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        """The tables, projected to the layers' size where they are narrower: their sum is projected before its norm."""
        embeddings = self._base.embeddings
        positions, types = embeddings.position_embeddings, embeddings.token_type_embeddings
        return EmbeddingSpec(
            words=self._projected(embeddings.word_embeddings),
            positions=None if positions is None else self._projected(positions),
            types=None if types is None else self._projected(types),
            norm=self._norm(embeddings.LayerNorm),
            **special,
        )

    def _projected(self, table: Any) -> Tensor:
        weight: Tensor = table.weight
        project = self._base.embeddings.embed_proj
        if project is None:
            return weight
        return torch.nn.functional.linear(weight.float(), affine(project)[0].float()).to(weight.dtype)

    @torch.no_grad()
    def _biases(self) -> Sequence[DisentangledBias | None]:
        vectors = self._base.encoder.get_rel_embedding()[None]
        buckets = self._buckets()
        return [self._bias(layer.attention.self, vectors, buckets) for layer in self._layers]

    @staticmethod
    def _bias(attention: Any, vectors: Tensor, buckets: Tensor) -> DisentangledBias | None:
        """The keys and queries of a layer for the vectors of buckets (1, any, D); None: it has neither."""
        keys = queries = None
        if "c2p" in attention.pos_att_type:
            keys = (attention.key_proj if attention.share_att_key else attention.pos_key_proj)(vectors)[0]
        if "p2c" in attention.pos_att_type:
            queries = (attention.query_proj if attention.share_att_key else attention.pos_query_proj)(vectors)[0]
        return None if keys is None and queries is None else DisentangledBias(buckets, keys=keys, queries=queries)

    def _buckets(self) -> Tensor:
        """The bucket of every distance query - key, from the longest row's keys behind to those before a query."""
        encoder = self._base.encoder
        hidden = torch.empty(1, self.max_seqlen, 0, dtype=torch.float32, device=self.device)
        buckets = encoder.get_rel_pos(hidden)[0]  # (queries, keys), of the same place 0
        span = encoder.rel_embeddings.num_embeddings // 2
        by_distance: Tensor = (torch.cat((buckets[0].flip(0), buckets[1:, 0])) + span).clamp(0, 2 * span - 1)
        return by_distance

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        attention = layer.attention
        return {
            "query": attention.self.query_proj,
            "key": attention.self.key_proj,
            "value": attention.self.value_proj,
            "attention_output": attention.output.dense,
            "intermediate": layer.intermediate.dense,
            "output": layer.output.dense,
        }
