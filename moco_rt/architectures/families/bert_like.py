"""`BertLike`: the sub-modules of BERT, on which the families build that differ from it by a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import AttentionSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, LayerSpec, SubLayerNorms
from moco_rt.architectures.base import Head, activation_name, affine, linear_weights, norm
from moco_rt.architectures.compressed.layers import head_size
from moco_rt.architectures.families.layered import Layered

if TYPE_CHECKING:
    from moco_rt._C import Affine, DisentangledBias, DistanceBias, Int8Affine


class BertLike(Layered):
    """The sub-modules of BERT and of the families that differ from it by a few lines.

    Args:
        model: the classifier.
        name: of its encoder with the embeddings.
        layers: the path from there to the list of layers.
        ends: the modules within a layer that attention and feed-forward end with.

    Raises:
        ValueError: see `Layered`.
    """

    _norm = staticmethod(norm)

    def __init__(
        self, model: Any, name: str, layers: str = "encoder.layer", ends: tuple[str, str] = ("attention", "output")
    ):
        super().__init__(model, name, layers, "attention", ends)

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Word + position + token type embeddings, LayerNorm: (rows, S) -> (rows, S, D)."""
        hidden: Tensor = self._base.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        return hidden

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """attention_mask (rows, S) in the form of the model's attention implementation."""
        return create_bidirectional_mask(config=self._model.config, inputs_embeds=hidden, attention_mask=attention_mask)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002
        """Dense layer and classifier of the first token: (rows, S, D) -> (rows, C)."""
        for step in self._head().steps:
            hidden = step(hidden)
        return hidden

    @property
    def output(self) -> str:
        """The path of the layer to the logits within the model."""
        return self._head().output

    def _head(self) -> Head:
        """The classifier: here a module that holds both of its layers."""
        return Head((self._model.classifier,), "classifier.dense", "tanh", "classifier.out_proj")

    def _head_spec(self) -> HeadSpec:
        head = self._head()
        dense, output = (affine(self._model.get_submodule(path)) for path in (head.dense, head.output))
        return HeadSpec(dense=dense, activation=head.activation, output=output)

    def _embedding_spec(self, **special: Any) -> EmbeddingSpec:
        tables = self._base.embeddings
        if "types" not in special:
            special["types"] = tables.token_type_embeddings.weight
        return EmbeddingSpec(
            words=tables.word_embeddings.weight,
            positions=tables.position_embeddings.weight,
            norm=self._norm(tables.LayerNorm),
            **special,
        )

    def _biases(self) -> Sequence[DistanceBias | DisentangledBias | None]:
        """Return what each layer adds to the scores of attention: here nothing."""
        return [None] * self.num_layers

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

    @torch.no_grad()  # it is ranked, and no gradients go through ranks
    def received_attention(self, layer: int, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Attention that tokens receive, over heads and real queries: hidden (rows, S, D) -> (rows, S) float32."""
        linears, size = self._named_linears(self._layers[layer]), head_size(self._model.config)
        query, key = (
            linears[name](hidden).float().unflatten(2, (-1, size)).transpose(1, 2) for name in ("query", "key")
        )
        real = attention_mask.bool()
        scores = (query @ key.transpose(2, 3) / size**0.5).masked_fill(~real[:, None, None], float("-inf"))
        received: Tensor = (scores.softmax(dim=3) * real[:, None, :, None]).sum(dim=(1, 2))
        return received

    def _layer_specs(self) -> list[LayerSpec]:
        parts = zip(self._layers, self._biases(), self.keeps, strict=True)
        return [self._layer_spec(layer, bias, keep) for layer, bias, keep in parts]

    def _layer_spec(self, layer: Any, bias: DistanceBias | DisentangledBias | None, keep: float = 1.0) -> LayerSpec:
        linears = self._weights(layer)
        attention_norm, output_norm = self._norms(layer)
        _, query_bias, *_ = linears["query"]
        return LayerSpec(
            attention=AttentionSpec(
                query=linears["query"],
                key=linears["key"],
                value=linears["value"],
                output=linears["attention_output"],
                heads=len(query_bias) // head_size(self._model.config),
                bias=bias,
                keep=keep,
            ),
            around_attention=SubLayerNorms(after=self._norm(attention_norm)),
            feed_forward=FeedForwardSpec(
                up=linears["intermediate"],
                down=linears["output"],
                activation=activation_name(self._hidden_act()),
            ),
            around_feed_forward=SubLayerNorms(after=self._norm(output_norm)),
        )

    @classmethod
    def _weights(cls, layer: Any) -> dict[str, Affine | Int8Affine]:
        """The weights of a layer by the names of `_named_linears`."""
        return {name: linear_weights(linear) for name, linear in cls._named_linears(layer).items()}

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        linears = cls._named_linears(layer)
        for together in (("query", "key", "value"), ("attention_output",), ("intermediate",), ("output",)):
            yield [linears[name] for name in together]

    @staticmethod
    def _named_linears(layer: Any) -> dict[str, Any]:
        """A layer's linear layers by what they are called here."""
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
