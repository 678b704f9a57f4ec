"""ViT and DeiT (ViTForImageClassification, DeiTForImageClassification): the patches of an image as tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import (
    AttentionSpec,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    PatchEmbeddingSpec,
    SubLayerNorms,
)
from moco_rt.architectures.base import activation_name, affine, linear_weights, norm
from moco_rt.architectures.families.layered import Layered


class ViT(Layered):
    """ViT: a class token before the patches, norms before sub-layers, a linear layer to the logits.

    Args:
        model: the classifier.
        name: of its encoder with the embeddings.
    """

    def __init__(self, model: Any, name: str = "vit"):
        super().__init__(model, name, "layers", "attention", None)
        patches = self._patches()
        self.image_size = (patches.num_channels, *patches.image_size)

    def embed(self, pixel_values: Tensor, token_type_ids: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Patches, the tokens before them, and positions: (rows, channels, height, width) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(pixel_values.to(self._patches().projection.weight.dtype))
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:  # noqa: ARG002
        """No mask at all, in the form of the model's attention implementation: all rows have all tokens."""
        return create_bidirectional_mask(config=self._model.config, inputs_embeds=hidden, attention_mask=None)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002
        """Final norm and classifier of the first token: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.classifier(self._base.layernorm(hidden)[:, 0, :])
        return logits

    def _embedding_spec(self) -> PatchEmbeddingSpec:
        projection, positions = self._patches().projection, self._base.embeddings.position_embeddings
        assert self.image_size is not None
        return PatchEmbeddingSpec(
            # A convolution whose steps are as long as its kernel is a linear layer over patches.
            projection=(projection.weight.flatten(1), projection.bias),
            first_tokens=torch.cat([token[0] for token in self._first_tokens()]),
            positions=positions[0],
            image_size=self.image_size,
            patch_size=projection.kernel_size,
        )

    def _layer_specs(self) -> list[LayerSpec]:
        return [self._layer_spec(layer) for layer in self._layers]

    def _head_spec(self) -> HeadSpec:
        return HeadSpec(output=affine(self._model.classifier), final_norm=self._final_norm())

    def _final_norm(self) -> NormSpec:
        return norm(self._base.layernorm)

    def _positions(self) -> int:
        return int(self._base.embeddings.position_embeddings.shape[1])

    def _patches(self) -> Any:
        return self._base.embeddings.patch_embeddings

    def _first_tokens(self) -> Sequence[Tensor]:
        """The tokens that stand before the patches: (1, 1, D) each."""
        return [self._base.embeddings.cls_token]

    def _layer_spec(self, layer: Any) -> LayerSpec:
        attention, config = layer.attention, self._model.config
        return LayerSpec(
            attention=AttentionSpec(
                query=linear_weights(attention.q_proj),
                key=linear_weights(attention.k_proj),
                value=linear_weights(attention.v_proj),
                output=linear_weights(attention.o_proj),
                heads=config.num_attention_heads,
            ),
            around_attention=SubLayerNorms(before=norm(layer.layernorm_before)),
            feed_forward=FeedForwardSpec(
                up=linear_weights(layer.mlp.fc1),
                down=linear_weights(layer.mlp.fc2),
                activation=activation_name(config.hidden_act),
            ),
            around_feed_forward=SubLayerNorms(before=norm(layer.layernorm_after)),
        )

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        output: Tensor = layer.attention(layer.layernorm_before(hidden), context)[0] + hidden
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, context: Any) -> Tensor:  # noqa: ARG004
        output: Tensor = layer.mlp(layer.layernorm_after(hidden)) + hidden
        return output

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        attention = layer.attention
        yield from ((attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,))
        yield from ((layer.mlp.fc1,), (layer.mlp.fc2,))


class DeiT(ViT):
    """DeiT: a distillation token stands between the class token and the patches."""

    def __init__(self, model: Any):
        super().__init__(model, "deit")

    def _first_tokens(self) -> Sequence[Tensor]:
        """The tokens that stand before the patches: (1, 1, D) each."""
        return [*super()._first_tokens(), self._base.embeddings.distillation_token]
