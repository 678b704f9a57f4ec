"""What the rest of moco_rt knows of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from moco_rt._C import TransformerClassifier
from moco_rt.quantization.int8_linear import Int8Linear

if TYPE_CHECKING:
    from moco_rt._C import Affine, Int8Affine

#: Runs one sub-layer: hidden (rows, S, D) and what `Architecture.context` returned -> hidden (rows, S, D).
Step = Callable[[Tensor, Any], Tensor]


class Architecture(Protocol):
    """A sequence classifier as a sequence of sub-layers, run by the model's own modules."""

    num_layers: int
    num_classes: int
    hidden_size: int
    max_seqlen: int
    #: The model's own module paths -> sites.
    module_paths: dict[str, str]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings, LayerNorm included: (rows, S) -> (rows, S, D)."""
        ...

    def context(self, attention_mask: Tensor, hidden: Tensor) -> Any:
        """attention_mask (rows, S) in the form the attention modules take."""
        ...

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Every site in order with the step that leads to it; that of `embeddings` returns its input."""
        ...

    def classify(self, hidden: Tensor) -> Tensor:
        """Hidden states after the last layer (rows, S, D) -> logits (rows, C)."""
        ...

    def head_is_untrained(self) -> bool:
        """Whether the classifier still is as a fresh initialisation leaves it."""
        ...

    def linear_groups(self) -> Iterator[dict[str, Any]]:
        """The linear layers inside the encoder's layers, by module path; those that read the same input together."""
        ...

    def encoder(self, dtype: torch.dtype) -> TransformerClassifier:
        """The model on the packed kernels; raises ValueError where they do not cover it or dtype."""
        ...


def affine(module: Any) -> Affine:
    """Weight and bias of a linear layer or a LayerNorm.

    Raises:
        ValueError: it is neither, but for example an adapted layer, which does more than its weights say.
    """
    if type(module) not in (torch.nn.Linear, torch.nn.LayerNorm):
        raise ValueError(f"layers must be torch's own Linear and LayerNorm (got {type(module).__name__})")
    return module.weight, module.bias


def linear_weights(module: Any) -> Affine | Int8Affine:
    """What the packed kernels need of a linear layer inside the encoder's layers.

    Raises:
        ValueError: it is neither torch's own nor an `Int8Linear`.
    """
    if type(module) is Int8Linear:
        return module.weight, module.bias, module.scale, module.smooth
    return affine(module)


def activation_name(hidden_act: Any) -> str:
    """A configuration's activation function by the name of the kernel that computes it, else as it is."""
    kernels = {"gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}
    return kernels.get(hidden_act, str(hidden_act))
