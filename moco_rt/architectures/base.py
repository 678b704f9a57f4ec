"""The face that every model family shows to the rest of moco_rt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from moco_rt._C import NormSpec, TransformerClassifier
from moco_rt.quantization.int8_linear import Int8Linear

if TYPE_CHECKING:
    from moco_rt._C import Affine, Int8Affine

#: Runs one sub-layer: hidden (rows, S, D) and what `Architecture.context` returned -> hidden (rows, S, D).
Step = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Head:
    """The classifier of a family, as modules to be called and as two linear layers.

    Attributes:
        steps: called one after the other, from hidden states (rows, S, D) to logits (rows, C).
        dense: path of the first linear layer within the model.
        activation: name of the function that follows it.
        output: path of the layer to the logits.
    """

    steps: tuple[Callable[[Tensor], Tensor], ...]
    dense: str
    activation: str
    output: str


class Architecture(Protocol):
    """A classifier as a sequence of sub-layers, run by the model's own modules."""

    num_layers: int
    num_classes: int
    hidden_size: int
    max_seqlen: int
    #: Channels, height and width of the images that it takes; None: it takes texts.
    image_size: tuple[int, int, int] | None
    #: The model's own module paths -> sites.
    module_paths: dict[str, str]
    #: Modules that `steps` passes by: their own forward is not called, nor are hooks of theirs.
    passed_by: Sequence[str]
    #: The token that answers for its row: `first` or `last`.
    pooled_token: str
    #: After the attention of each layer the share of a row's tokens, as many as it began with, that go on; 1: all.
    keeps: Sequence[float]

    def inside(self, path: str) -> Architecture:
        """Name modules as a model does that holds this one under a path."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        ...

    def real_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask, (rows, S) each, padded on the right, without tokens that no answer depends on."""
        ...

    def embed(self, inputs: Tensor, token_type_ids: Tensor | None, /) -> Tensor:
        """Embeddings, LayerNorm included: input_ids (rows, S), or images (rows, *image_size) -> (rows, S, D)."""
        ...

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """attention_mask (rows, S) in the form the attention modules take."""
        ...

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Every site in order with the step that leads to it; that of `embeddings` returns its input."""
        ...

    def received_attention(self, layer: int, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Attention that tokens receive, over heads and queries, from what a layer reads: (rows, S) float32."""
        ...

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states after the last layer (rows, S, D), attention_mask (rows, S) -> logits (rows, C)."""
        ...

    def pool(self, hidden: Tensor) -> Tensor:
        """Hidden states (rows, S, D) by the pooler of the base model, where it has one: (rows, D)."""
        ...

    def head_is_untrained(self) -> bool:
        """Tell whether the classifier still is as a fresh initialisation leaves it."""
        ...

    def linear_groups(self) -> Iterator[dict[str, Any]]:
        """The linear layers inside the encoder's layers, by module path; those that read the same input together."""
        ...

    def encoder(self, dtype: torch.dtype, *, classifier: bool = True) -> TransformerClassifier:
        """The model on the packed kernels, or its encoder alone; ValueError where they do not cover it or dtype."""
        ...


def norm(module: Any) -> NormSpec:
    """Return what the packed kernels need of a LayerNorm.

    Raises:
        ValueError: it is none of torch's.
    """
    return NormSpec(affine(module), module.eps)


def affine(module: Any) -> Affine:
    """Weight and bias of a linear layer or a LayerNorm.

    Raises:
        ValueError: it is neither, but for example an adapted layer, which does more than its weights say.
    """
    kind = type(module)
    if kind not in (torch.nn.Linear, torch.nn.LayerNorm):
        raise ValueError(f"layers must be torch's own Linear and LayerNorm (got {kind.__module__}.{kind.__qualname__})")
    return module.weight, _bias(module)


def _bias(module: Any) -> Tensor:
    """A layer's bias; zeros where it has none."""
    bias: Tensor | None = module.bias
    return module.weight.new_zeros(len(module.weight)) if bias is None else bias


def linear_weights(module: Any) -> Affine | Int8Affine:
    """Return what the packed kernels need of a linear layer inside the encoder's layers.

    Raises:
        ValueError: it is neither torch's own nor an `Int8Linear`.
    """
    if type(module) is Int8Linear:
        return module.weight, module.bias, module.scale, module.smooth
    return affine(module)


def parts_of(module: Any, *shares: int) -> list[Affine | Int8Affine]:
    """`linear_weights` of a layer that holds several, one after the other, with these shares of its outputs."""
    outputs = len(module.scale) if type(module) is Int8Linear else len(affine(module)[0])
    ends = [outputs * sum(shares[: i + 1]) // sum(shares) for i in range(len(shares))]
    ranges = list(pairwise((0, *ends)))
    if type(module) is Int8Linear:
        return [module.part(first, last) for first, last in ranges]
    weight, bias = affine(module)
    return [(weight[first:last], bias[first:last]) for first, last in ranges]


def activation_name(hidden_act: Any) -> str:
    """A configuration's activation function by the name of the kernel that computes it, else as it is."""
    kernels = {"gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
    return kernels.get(hidden_act, str(hidden_act))
