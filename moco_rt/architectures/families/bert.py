"""BERT and the families that differ from it by a few lines: RoBERTa (XLM-RoBERTa, CamemBERT) and ELECTRA.

`BertLike` drives what they share, layers of attention and feed-forward and a classifier of two layers on the first
token; DistilBERT, which names its parts otherwise, builds on it in a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import EmbeddingWeights, HeadWeights, LayerWeights, TransformerClassifier
from moco_rt.architectures.base import Head, Step, activation_name, affine, linear_weights
from moco_rt.architectures.genuine import check_modules
from moco_rt.architectures.sites import EMBEDDINGS, attention_site, output_site


class BertLike:
    """The sub-modules of a model whose encoder is its attribute `name`, driven one by one.

    Args:
        model: the classifier.
        name: of its encoder with the embeddings.
        layers: the path from there to the list of layers.
        ends: the modules within a layer that attention and feed-forward end with.

    Raises:
        ValueError: the model is a decoder, or modules that are passed by, or called with other arguments than by the
            model itself, are not its class's own or have hooks.
    """

    def __init__(
        self, model: Any, name: str, layers: str = "encoder.layer", ends: tuple[str, str] = ("attention", "output")
    ):
        config = model.config
        if getattr(config, "is_decoder", False):
            raise ValueError("model must be an encoder (got config.is_decoder=True)")
        stack = f"{name}.{layers}"
        paths = [path for path, _ in model.named_modules(remove_duplicate=False)]  # layers may share their weights
        every_layer = [path for path in paths if re.fullmatch(rf"{stack}\.\d+", path)]
        self.passed_by: Sequence[str] = ["", name, stack.rpartition(".")[0], stack, *every_layer]
        called = [f"{name}.embeddings", *(f"{path}.attention" for path in every_layer)]
        check_modules(model, [*self.passed_by, *called], may_have_hooks=called)
        self._model = model
        self._base = getattr(model, name)
        self._layers = list(self._base.get_submodule(layers))
        self.num_layers = len(self._layers)
        self.num_classes: int = config.num_labels
        self.hidden_size: int = config.hidden_size
        self.max_seqlen: int = config.max_position_embeddings
        self.module_paths = {f"{name}.embeddings": EMBEDDINGS}
        for i in range(self.num_layers):
            layer = f"{name}.{layers}.{i}"
            self.module_paths[f"{layer}.{ends[0]}"] = attention_site(i)
            self.module_paths[f"{layer}.{ends[1]}"] = output_site(i)
            self.module_paths[layer] = output_site(i)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self._model.device
        return device

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Word + position + token type embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """attention_mask (rows, S) in the form of the model's attention implementation."""
        return create_bidirectional_mask(config=self._model.config, inputs_embeds=hidden, attention_mask=attention_mask)

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Every site in order with the step that leads to it."""
        yield EMBEDDINGS, lambda hidden, _: hidden
        for i, layer in enumerate(self._layers):
            yield attention_site(i), partial(self._attention, layer)
            yield output_site(i), partial(self._feed_forward, layer)

    def linear_groups(self) -> Iterator[dict[str, Any]]:
        """The linear layers inside the encoder's layers, by module path; those that read the same input together."""
        paths = {module: path for path, module in self._model.named_modules()}
        for layer in self._layers:
            linears = self._linears(layer)
            for together in (("query", "key", "value"), ("attention_output",), ("intermediate",), ("output",)):
                yield {paths[linears[name]]: linears[name] for name in together}

    def classify(self, hidden: Tensor) -> Tensor:
        """Dense layer and classifier of the first token: (rows, S, D) -> (rows, C)."""
        for step in self._head().steps:
            hidden = step(hidden)
        return hidden

    def head_is_untrained(self) -> bool:
        """Tell whether the classifier's bias is exactly zero, as initialised: one training step moves it."""
        output = dict(self._model.named_modules()).get(self._head().output)
        return type(output) is torch.nn.Linear and output.bias is not None and not bool(output.bias.any())

    def encoder(self, dtype: torch.dtype) -> TransformerClassifier:
        """The model on the packed kernels.

        Raises:
            ValueError: they do not cover its activation function, or dtype.
        """
        head = self._head()
        dense, output = (affine(self._model.get_submodule(path)) for path in (head.dense, head.output))
        return TransformerClassifier(
            self._embedding_weights(),
            [self._layer_weights(layer) for layer in self._layers],
            HeadWeights(dense=dense, activation=head.activation, output=output),
            heads=self._model.config.num_attention_heads,
            activation=activation_name(self._hidden_act()),
            eps=self._base.embeddings.LayerNorm.eps,
            dtype=dtype,
        )

    def _head(self) -> Head:
        """The classifier: here a module that holds both of its layers."""
        return Head((self._model.classifier,), "classifier.dense", "tanh", "classifier.out_proj")

    def _embedding_weights(self, **special: Any) -> EmbeddingWeights:
        tables = self._base.embeddings
        if "types" not in special:
            special["types"] = tables.token_type_embeddings.weight
        return EmbeddingWeights(
            words=tables.word_embeddings.weight,
            positions=tables.position_embeddings.weight,
            norm=affine(tables.LayerNorm),
            **special,
        )

    def _hidden_act(self) -> Any:
        return self._model.config.hidden_act

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, mask: Any) -> Tensor:
        output: Tensor = layer.attention(hidden, mask)[0]
        return output

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, _: Any) -> Tensor:
        output: Tensor = layer.feed_forward_chunk(hidden)
        return output

    def _layer_weights(self, layer: Any) -> LayerWeights:
        attention_norm, output_norm = self._norms(layer)
        return LayerWeights(
            **{name: linear_weights(linear) for name, linear in self._linears(layer).items()},
            attention_norm=affine(attention_norm),
            output_norm=affine(output_norm),
        )

    @staticmethod
    def _linears(layer: Any) -> dict[str, Any]:
        """A layer's linear layers by what `LayerWeights` calls them."""
        attention = layer.attention
        return {
            "query": attention.self.query,
            "key": attention.self.key,
            "value": attention.self.value,
            "attention_output": attention.output.dense,
            "intermediate": layer.intermediate.dense,
            "output": layer.output.dense,
        }

    @staticmethod
    def _norms(layer: Any) -> tuple[Any, Any]:
        """The LayerNorms that attention and feed-forward end in."""
        return layer.attention.output.LayerNorm, layer.output.LayerNorm


class Bert(BertLike):
    """BERT: the dense layer is the pooler."""

    def __init__(self, model: Any):
        super().__init__(model, "bert")

    def _head(self) -> Head:
        steps = (self._base.pooler, self._model.dropout, self._model.classifier)
        return Head(steps, "bert.pooler.dense", "tanh", "classifier")


class Roberta(BertLike):
    """RoBERTa: positions count from the padding token's id + 1."""

    def __init__(self, model: Any):
        if model.config.pad_token_id is None:
            raise ValueError("config.pad_token_id must be a number: positions are counted from it (got None)")
        super().__init__(model, "roberta")
        self._padding_idx: int = self._base.embeddings.padding_idx
        self.max_seqlen -= self._padding_idx + 1

    def _embedding_weights(self, **special: Any) -> EmbeddingWeights:
        return super()._embedding_weights(padding_idx=self._padding_idx, **special)


class Electra(BertLike):
    """ELECTRA: embeddings may be narrower than the layers, the head's activation is GELU."""

    def __init__(self, model: Any):
        super().__init__(model, "electra")
        self._project = getattr(self._base, "embeddings_project", None)
        if self._project is not None:
            self.module_paths["electra.embeddings_project"] = self.module_paths.pop("electra.embeddings")

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings as BERT's, projected to the layers' size where it is another: (rows, S) -> (rows, S, D)."""
        hidden = super().embed(input_ids, token_type_ids)
        return hidden if self._project is None else self._project(hidden)

    def _head(self) -> Head:
        return replace(super()._head(), activation="gelu")

    def _embedding_weights(self, **special: Any) -> EmbeddingWeights:
        projection = None if self._project is None else affine(self._project)
        return super()._embedding_weights(projection=projection, **special)
