"""DistilBERT (DistilBertForSequenceClassification)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import EmbeddingWeights, Encoder, HeadWeights, LayerWeights
from moco_rt.architectures.architecture import Step, activation_name, affine
from moco_rt.sites import EMBEDDINGS, attention_site, output_site


class DistilBert:
    """DistilBERT's sub-modules, driven one by one: no token types, no pooler, names of its own."""

    def __init__(self, model: Any):
        config = model.config
        self._model = model
        self._base = model.distilbert
        self._layers = list(self._base.transformer.layer)
        self.num_layers = len(self._layers)
        self.num_classes: int = config.num_labels
        self.hidden_size: int = config.dim
        self.max_seqlen: int = config.max_position_embeddings
        self.module_paths = {"distilbert.embeddings": EMBEDDINGS}
        for i in range(self.num_layers):
            layer = f"distilbert.transformer.layer.{i}"
            self.module_paths[f"{layer}.sa_layer_norm"] = attention_site(i)
            self.module_paths[f"{layer}.output_layer_norm"] = output_site(i)
            self.module_paths[layer] = output_site(i)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self._model.device
        return device

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        """Word + position embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids)
        return hidden

    def mask(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """attention_mask (rows, S) in the form of the model's attention implementation."""
        return create_bidirectional_mask(config=self._model.config, inputs_embeds=hidden, attention_mask=attention_mask)

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Every site in order with the step that leads to it."""
        yield EMBEDDINGS, lambda hidden, _: hidden
        for i, layer in enumerate(self._layers):
            yield attention_site(i), partial(_attention, layer)
            yield output_site(i), partial(_feed_forward, layer)

    def classify(self, hidden: Tensor) -> Tensor:
        """Dense layer and classifier of the first token: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.classifier(torch.relu(self._model.pre_classifier(hidden[:, 0])))
        return logits

    def head_is_untrained(self) -> bool:
        """Whether the classifier's bias is exactly zero, as initialised: one training step moves it."""
        return not bool(self._model.classifier.bias.any())

    def encoder(self, dtype: torch.dtype) -> Encoder:
        """The model on the packed kernels.

        Raises:
            ValueError: they do not cover its activation function, or dtype.
        """
        tables = self._base.embeddings
        return Encoder(
            EmbeddingWeights(
                words=tables.word_embeddings.weight,
                positions=tables.position_embeddings.weight,
                types=None,
                norm=affine(tables.LayerNorm),
            ),
            [_layer_weights(layer) for layer in self._layers],
            HeadWeights(
                dense=affine(self._model.pre_classifier), activation="relu", output=affine(self._model.classifier)
            ),
            heads=self._model.config.n_heads,
            activation=activation_name(self._model.config.activation),
            eps=tables.LayerNorm.eps,
            dtype=dtype,
        )


def _attention(layer: Any, hidden: Tensor, mask: Any) -> Tensor:
    output: Tensor = layer.sa_layer_norm(layer.attention(hidden, attention_mask=mask)[0] + hidden)
    return output


def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
    output: Tensor = layer.output_layer_norm(layer.ffn(hidden) + hidden)
    return output


def _layer_weights(layer: Any) -> LayerWeights:
    attention = layer.attention
    return LayerWeights(
        query=affine(attention.q_lin),
        key=affine(attention.k_lin),
        value=affine(attention.v_lin),
        attention_output=affine(attention.out_lin),
        attention_norm=affine(layer.sa_layer_norm),
        intermediate=affine(layer.ffn.lin1),
        output=affine(layer.ffn.lin2),
        output_norm=affine(layer.output_layer_norm),
    )
