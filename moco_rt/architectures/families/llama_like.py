"""`LlamaLike`: the sub-modules of Llama, on which decoders build, and an encoder that has its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moco_rt._C import AttentionSpec, EmbeddingSpec, FeedForwardSpec, LayerSpec, NormSpec, SubLayerNorms
from moco_rt.architectures.base import activation_name, linear_weights
from moco_rt.architectures.families.layered import Layered
from moco_rt.architectures.families.rotary import rotary_tables

if TYPE_CHECKING:
    from moco_rt._C import Affine, Int8Affine

#: RMSNorms whose weights count from 1.
_FROM_ONE = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")


class LlamaLike(Layered):
    """Layers with norms before sub-layers, rotary positions, keys that heads share, and gates."""

    def __init__(self, model: Any):
        super().__init__(model, "model", "layers", "self_attn", None, embeddings="embed_tokens")
        self._kinds = self._layer_types()

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word embeddings: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embed_tokens(input_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The arguments of `self_attn` by layer: its mask, and cosine and sine of its rotary positions."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        by_type = {
            kind: {
                "attention_mask": self._mask(kind, attention_mask, hidden, positions),
                "position_embeddings": self._base.rotary_emb(hidden, positions, *self._rotary_type(kind)),
            }
            for kind in set(self._kinds)
        }
        return [by_type[kind] for kind in self._kinds]

    def _layer_types(self) -> Sequence[str]:
        """Return the type of each layer, by the names of the configuration."""
        return ["full_attention"] * self.num_layers

    def _mask(self, kind: str, attention_mask: Tensor, hidden: Tensor, positions: Tensor) -> Any:
        """attention_mask (rows, S) in the form that attention of a layer's type takes."""
        raise NotImplementedError

    def _window(self, kind: str) -> tuple[int, int]:
        """Return how many keys before and behind its own token a query attends to; -1: all."""
        raise NotImplementedError

    def _rotary_type(self, kind: str) -> tuple[str, ...]:  # noqa: ARG002
        """The argument by which the module of rotary positions knows a layer's type; none: it has one for all."""
        return ()

    def _rope(self, kind: str) -> tuple[Tensor, Tensor]:
        """Cosine and sine of rotary positions for a layer's type."""
        return rotary_tables(self._base.rotary_emb, self.max_seqlen, *self._rotary_type(kind))

    def _hidden_act(self) -> Any:
        return self._model.config.hidden_act

    def _embedding_spec(self) -> EmbeddingSpec:
        words = self._base.embed_tokens
        scale = getattr(words, "embed_scale", torch.ones(1, dtype=torch.float32, device="cpu")).to(words.weight.dtype)
        return EmbeddingSpec(words=words.weight, scale=float(scale))

    def _final_norm(self) -> NormSpec:
        return rms_norm(self._base.norm)

    def _layer_specs(self) -> list[LayerSpec]:
        ropes = {kind: self._rope(kind) for kind in set(self._kinds)}
        layers = zip(self._layers, self._kinds, strict=True)
        return [self._layer_spec(layer, kind, ropes[kind]) for layer, kind in layers]

    def _layer_spec(self, layer: Any, kind: str, rope: tuple[Tensor, Tensor]) -> LayerSpec:
        config, attention, weights = self._model.config, layer.self_attn, self._weights(layer)
        norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        query_norm, key_norm = (None if norm is None else rms_norm(norm) for norm in norms)
        around_attention, around_feed_forward = self._norms(layer)
        before, behind = self._window(kind)
        return LayerSpec(
            attention=AttentionSpec(
                query=weights["query"],
                key=weights["key"],
                value=weights["value"],
                output=linear_weights(attention.o_proj),
                heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                before=before,
                behind=behind,
                query_norm=query_norm,
                key_norm=key_norm,
                rope=rope if getattr(attention, "use_rope", True) else None,  # SmolLM3 has layers without
            ),
            around_attention=around_attention,
            feed_forward=FeedForwardSpec(
                gate=weights["gate"],
                up=weights["up"],
                down=linear_weights(layer.mlp.down_proj),
                activation=activation_name(self._hidden_act()),
            ),
            around_feed_forward=around_feed_forward,
        )

    def _weights(self, layer: Any) -> dict[str, Affine | Int8Affine]:
        """The weights that sub-layers begin with."""
        (query, key, value), _, (gate, up), _ = self._linears(layer)
        named = {"query": query, "key": key, "value": value, "gate": gate, "up": up}
        return {name: linear_weights(linear) for name, linear in named.items()}

    @staticmethod
    def _norms(layer: Any) -> tuple[SubLayerNorms, SubLayerNorms]:
        """The norms around attention and around feed-forward."""
        norms = layer.input_layernorm, layer.post_attention_layernorm
        attention, feed_forward = (SubLayerNorms(before=rms_norm(norm)) for norm in norms)
        return attention, feed_forward

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        attention = layer.self_attn
        output: Tensor = hidden + attention(layer.input_layernorm(hidden), **context[attention.layer_idx])[0]
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return output

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        attention, mlp = layer.self_attn, layer.mlp
        yield from ((attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,))
        yield from ((mlp.gate_proj, mlp.up_proj), (mlp.down_proj,))


def rms_norm(module: Any) -> NormSpec:
    """Return what the packed kernels need of an RMSNorm."""
    weight = module.weight
    if type(module).__name__ in _FROM_ONE:
        return NormSpec((1 + weight.float(), torch.zeros_like(weight)), module.eps, rms=True)
    return NormSpec((weight, torch.zeros_like(weight)), module.variance_epsilon, rms=True)
