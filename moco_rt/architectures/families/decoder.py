"""Llama and the decoders built like it, with a classifier on their last token: Mistral, Qwen, Gemma, SmolLM3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from moco_rt._C import HeadSpec
from moco_rt.architectures.base import affine
from moco_rt.architectures.families.llama_like import LlamaLike

_MASKS = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}


class Decoder(LlamaLike):
    """A causal model: tokens attend to those before them, and the last one answers for its row.

    Here all attend to all of those, whatever the configuration says of windows: Llama and Gemma do not read it.

    Raises:
        ValueError: tokens attend to those behind them, too.
    """

    pooled_token = "last"

    def __init__(self, model: Any):
        if not getattr(model.config, "is_causal", True):
            raise ValueError("config.is_causal must be True (got False)")
        super().__init__(model)

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

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Final norm, classifier, and of its logits those of the last token: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.score(self._base.norm(hidden))
        last = attention_mask.sum(dim=1) - 1
        return logits[torch.arange(len(logits), device=logits.device), last]

    @property
    def output(self) -> str:
        """The path of the layer to the logits within the model."""
        return "score"

    def _head_spec(self) -> HeadSpec:
        return HeadSpec(output=affine(self._model.score), final_norm=self._final_norm())

    def _mask(self, kind: str, attention_mask: Tensor, hidden: Tensor, positions: Tensor) -> Any:
        return _MASKS[kind](self._model.config, hidden, attention_mask, None, position_ids=positions)

    def _window(self, kind: str) -> tuple[int, int]:
        return (self._model.config.sliding_window - 1 if kind == "sliding_attention" else -1), 0


class WindowDecoder(Decoder):
    """A decoder all layers of which have the window of the configuration, if it says one: Mistral, Phi-3."""

    def _layer_types(self) -> Sequence[str]:
        has_window = self._model.config.sliding_window is not None
        return ["sliding_attention" if has_window else "full_attention"] * self.num_layers


class LayerTypesDecoder(Decoder):
    """A decoder whose configuration says which layers have windows: Qwen, SmolLM3, Gemma 2 and 3."""

    def _layer_types(self) -> Sequence[str]:
        kinds: Sequence[str] = self._model.config.layer_types
        if unknown := set(kinds) - set(_MASKS):
            raise ValueError(f"config.layer_types must be of {', '.join(_MASKS)} (got {', '.join(sorted(unknown))})")
        return kinds
