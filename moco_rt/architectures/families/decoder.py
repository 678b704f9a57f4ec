"""Llama and the decoders built like it, with a classifier on their last token: Mistral, Qwen2, Qwen3, Gemma."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from moco_rt._C import (
    AttentionSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    SubLayerNorms,
)
from moco_rt.architectures.base import activation_name, affine, linear_weights
from moco_rt.architectures.families.layered import Layered
from moco_rt.architectures.families.rotary import rotary_tables

_MASKS = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}


class Decoder(Layered):
    """A causal model: tokens attend to those before them, and the last one answers for its row."""

    pooled_token = "last"

    def __init__(self, model: Any):
        super().__init__(model, "model", "layers", "self_attn", None, embeddings="embed_tokens")
        everywhere = "full_attention" if getattr(model.config, "sliding_window", None) is None else "sliding_attention"
        kinds: Sequence[str] | None = getattr(model.config, "layer_types", None)
        self._kinds = kinds or [everywhere] * self.num_layers
        if unknown := set(self._kinds) - set(_MASKS):
            raise ValueError(f"config.layer_types must be of {', '.join(_MASKS)} (got {', '.join(sorted(unknown))})")

    def real_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Move rows that are padded on the left to the left, and end each with the token that Hugging Face pools.

        That is the last one that is not padding's by its id, whatever the mask says; no token reads those behind it.
        """
        padding = self._model.config.pad_token_id
        real = attention_mask != 0
        read = real if padding is None else real & (input_ids != padding)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        first = real.int().argmax(1, keepdim=True)
        last = torch.where(read, places, first).amax(1, keepdim=True)
        if not bool((first > 0).any() | (real & (places > last)).any()):
            return input_ids, attention_mask
        from_first = (places + first) % input_ids.shape[1]
        kept = attention_mask * ((places >= first) & (places <= last))
        return input_ids.gather(1, from_first), kept.gather(1, from_first)

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word embeddings: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embed_tokens(input_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """The arguments of `self_attn` by layer: its mask, and cosine and sine of its rotary positions."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        masks = {
            kind: _MASKS[kind](self._model.config, hidden, attention_mask, None, position_ids=positions)
            for kind in set(self._kinds)
        }
        turned = self._base.rotary_emb(hidden, position_ids=positions)
        return [{"attention_mask": masks[kind], "position_embeddings": turned} for kind in self._kinds]

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Final norm, classifier, and of its logits those of the last token: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.score(self._base.norm(hidden))
        last = attention_mask.sum(dim=1) - 1
        return logits[torch.arange(len(logits), device=logits.device), last]

    @property
    def output(self) -> str:
        """The path of the layer to the logits within the model."""
        return "score"

    def _embedding_spec(self) -> EmbeddingSpec:
        words = self._base.embed_tokens
        scale = getattr(words, "embed_scale", torch.ones(1)).to(words.weight.dtype)
        return EmbeddingSpec(words=words.weight, scale=float(scale))

    def _layer_specs(self) -> list[LayerSpec]:
        rope = rotary_tables(self._base.rotary_emb, self.max_seqlen)
        return [self._layer_spec(layer, kind, rope) for layer, kind in zip(self._layers, self._kinds, strict=True)]

    def _head_spec(self) -> HeadSpec:
        return HeadSpec(output=affine(self._model.score), final_norm=self._final_norm())

    def _final_norm(self) -> NormSpec:
        return _rms_norm(self._base.norm)

    def _layer_spec(self, layer: Any, kind: str, rope: tuple[Tensor, Tensor]) -> LayerSpec:
        config, attention, mlp = self._model.config, layer.self_attn, layer.mlp
        norms = {name: getattr(attention, name, None) for name in ("q_norm", "k_norm")}
        query_norm, key_norm = (None if norm is None else _rms_norm(norm) for norm in norms.values())
        return LayerSpec(
            attention=AttentionSpec(
                query=linear_weights(attention.q_proj),
                key=linear_weights(attention.k_proj),
                value=linear_weights(attention.v_proj),
                output=linear_weights(attention.o_proj),
                heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                before=config.sliding_window - 1 if kind == "sliding_attention" else -1,
                behind=0,
                query_norm=query_norm,
                key_norm=key_norm,
                rope=rope,
            ),
            around_attention=SubLayerNorms(before=_rms_norm(layer.input_layernorm)),
            feed_forward=FeedForwardSpec(
                gate=linear_weights(mlp.gate_proj),
                up=linear_weights(mlp.up_proj),
                down=linear_weights(mlp.down_proj),
                activation=activation_name(config.hidden_act),
            ),
            around_feed_forward=SubLayerNorms(before=_rms_norm(layer.post_attention_layernorm)),
        )

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


def _rms_norm(module: Any) -> NormSpec:
    """Return what the packed kernels need of an RMSNorm; Gemma's weights count from 1."""
    weight = module.weight
    if type(module).__name__ == "GemmaRMSNorm":
        return NormSpec((1 + weight.float(), torch.zeros_like(weight)), module.eps, rms=True)
    return NormSpec((weight, torch.zeros_like(weight)), module.variance_epsilon, rms=True)
