"""BERT (BertForSequenceClassification), and whatever is published under that class, as MiniLM is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt.architectures.architecture import Step
from moco_rt.sites import EMBEDDINGS, attention_site, output_site


class Bert:
    """BERT's sub-modules, driven one by one."""

    def __init__(self, model: Any):
        config = model.config
        if config.is_decoder:
            raise ValueError("model must be an encoder (got config.is_decoder=True)")
        self._model = model
        self._layers = list(model.bert.encoder.layer)
        self.num_layers = len(self._layers)
        self.num_classes: int = config.num_labels
        self.hidden_size: int = config.hidden_size
        self.max_seqlen: int = config.max_position_embeddings
        self.module_paths = {"bert.embeddings": EMBEDDINGS}
        for i in range(self.num_layers):
            layer = f"bert.encoder.layer.{i}"
            self.module_paths[f"{layer}.attention"] = attention_site(i)
            self.module_paths[f"{layer}.output"] = output_site(i)
            self.module_paths[layer] = output_site(i)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self._model.device
        return device

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Word + position + token type embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._model.bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
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
        """Pooler and classifier: (rows, S, D) -> (rows, C)."""
        logits: Tensor = self._model.classifier(self._model.dropout(self._model.bert.pooler(hidden)))
        return logits

    def head_is_untrained(self) -> bool:
        """Whether the classifier's bias is exactly zero, as initialised: one training step moves it."""
        return not bool(self._model.classifier.bias.any())


def _attention(layer: Any, hidden: Tensor, mask: Any) -> Tensor:
    output: Tensor = layer.attention(hidden, mask)[0]
    return output


def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
    output: Tensor = layer.feed_forward_chunk(hidden)
    return output
