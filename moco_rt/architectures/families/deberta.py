"""DeBERTa of the first version (DebertaForSequenceClassification)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.models.deberta.modeling_deberta import DebertaLayerNorm

from moco_rt._C import DisentangledBias, NormSpec
from moco_rt.architectures.base import affine, linear_weights, norm
from moco_rt.architectures.families.deberta_v2 import DebertaV2
from moco_rt.quantization.int8_linear import Int8Linear

if TYPE_CHECKING:
    from moco_rt._C import Affine, Int8Affine


class Deberta(DebertaV2):
    """DeBERTa: every distance has a vector, one layer makes queries, keys and values, LayerNorm is its own.

    Raises:
        ValueError: the model does not attend to positions, in one of the ways that are known, or heads are mixed.
    """

    covered: Mapping[str, Any] = {"relative_attention": True, "talking_head": False}

    def __init__(self, model: Any):
        kinds = model.config.pos_att_type or []
        if len(set(kinds) & {"c2p", "p2c"}) != len(kinds):  # scores are scaled by how many there are
            raise ValueError(f"config.pos_att_type must be c2p, p2c or both (got {kinds})")
        super().__init__(model)

    @staticmethod
    def _bias(attention: Any, vectors: Tensor, buckets: Tensor) -> DisentangledBias | None:
        keys = attention.pos_proj(vectors)[0] if "c2p" in attention.pos_att_type else None
        queries = attention.pos_q_proj(vectors)[0] if "p2c" in attention.pos_att_type else None
        return None if keys is None and queries is None else DisentangledBias(buckets, keys=keys, queries=queries)

    @staticmethod
    def _norm(module: Any) -> NormSpec:
        if type(module) is not DebertaLayerNorm:
            return norm(module)
        return NormSpec((module.weight, module.bias), module.variance_epsilon)

    @classmethod
    @torch.no_grad()
    def _weights(cls, layer: Any) -> dict[str, Affine | Int8Affine]:
        """The weights by name; the outputs of `in_proj` are queries, keys and values of a head, then of the next."""
        attention = layer.attention.self
        size = attention.all_head_size
        weights = {name: linear_weights(linear) for name, linear in cls._named_linears(layer).items()}
        places = torch.arange(3 * size, device=attention.q_bias.device)
        places = places.view(attention.num_attention_heads, 3, -1).transpose(0, 1).reshape(3, size)
        biases = (attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias)
        for name, own, bias in zip(("query", "key", "value"), places, biases, strict=True):
            if type(attention.in_proj) is Int8Linear:
                weight, _, scale, smooth = attention.in_proj.outputs(own)
                weights[name] = weight, bias.float(), scale, smooth
            else:
                weights[name] = affine(attention.in_proj)[0][own], bias
        return weights

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        yield (layer.attention.self.in_proj,)
        yield from ((linear,) for linear in cls._named_linears(layer).values())

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        return {
            "attention_output": layer.attention.output.dense,
            "intermediate": layer.intermediate.dense,
            "output": layer.output.dense,
        }
