"""Phi-3 (Phi3ForSequenceClassification), also Phi-3.5 and Phi-4: one layer makes queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from moco_rt.architectures.base import parts_of
from moco_rt.architectures.families.decoder import WindowDecoder

if TYPE_CHECKING:
    from moco_rt._C import Affine, Int8Affine


class Phi3(WindowDecoder):
    """Phi-3: weights that read the same input lie in one layer."""

    def _weights(self, layer: Any) -> dict[str, Affine | Int8Affine]:
        config = self._model.config
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        query, key, value = parts_of(layer.self_attn.qkv_proj, heads, kv_heads, kv_heads)
        gate, up = parts_of(layer.mlp.gate_up_proj, 1, 1)
        return {"query": query, "key": key, "value": value, "gate": gate, "up": up}

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        attention = layer.self_attn
        output = attention(layer.input_layernorm(hidden), **context[attention.layer_idx])[0]
        added: Tensor = hidden + layer.resid_attn_dropout(output)
        return added

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        added: Tensor = hidden + layer.resid_mlp_dropout(layer.mlp(layer.post_attention_layernorm(hidden)))
        return added

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        attention, mlp = layer.self_attn, layer.mlp
        yield from ((attention.qkv_proj,), (attention.o_proj,), (mlp.gate_up_proj,), (mlp.down_proj,))
