"""Gemma 2 and 3 of texts (Gemma2ForSequenceClassification, Gemma3TextForSequenceClassification)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from moco_rt._C import SubLayerNorms
from moco_rt.architectures.families.decoder import LayerTypesDecoder
from moco_rt.architectures.families.llama_like import rms_norm


class Gemma2(LayerTypesDecoder):
    """Gemma 2: norms before and behind sub-layers, and a number of its own by which scores are scaled.

    Raises:
        ValueError: scores are capped, as in the published models, or tokens attend to those behind them.
    """

    def __init__(self, model: Any):
        config = model.config
        if config.attn_logit_softcapping is not None:
            raise ValueError(f"config.attn_logit_softcapping must be None (got {config.attn_logit_softcapping})")
        if config.use_bidirectional_attention:
            raise ValueError("config.use_bidirectional_attention must be False (got True)")
        super().__init__(model)

    def _rope(self, kind: str) -> tuple[Tensor, Tensor]:
        """Cosine and sine times what scores lack of their scale: queries and keys are turned by both, and take it."""
        lacking = self._layers[0].self_attn.head_dim / self._model.config.query_pre_attn_scalar
        cos, sin = super()._rope(kind)
        return cos * lacking**0.25, sin * lacking**0.25

    def _hidden_act(self) -> Any:
        return self._model.config.hidden_activation

    @staticmethod
    def _norms(layer: Any) -> tuple[SubLayerNorms, SubLayerNorms]:
        before, behind = layer.input_layernorm, layer.post_attention_layernorm
        attention = SubLayerNorms(before=rms_norm(before), output=rms_norm(behind))
        before, behind = layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm
        return attention, SubLayerNorms(before=rms_norm(before), output=rms_norm(behind))

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        attention = layer.self_attn
        output = attention(layer.input_layernorm(hidden), **context[attention.layer_idx])[0]
        added: Tensor = hidden + layer.post_attention_layernorm(output)
        return added

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output = layer.mlp(layer.pre_feedforward_layernorm(hidden))
        added: Tensor = hidden + layer.post_feedforward_layernorm(output)
        return added


class Gemma3(Gemma2):
    """Gemma 3: norms of queries and keys, and rotary positions of its own for each type of layer."""

    def _rotary_type(self, kind: str) -> tuple[str, ...]:
        return (kind,)
