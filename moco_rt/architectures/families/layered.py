"""The base of all families: an encoder with a list of layers, each of attention and feed-forward, driven one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moco_rt._C import EmbeddingSpec, HeadSpec, LayerSpec, NormSpec, PatchEmbeddingSpec, TransformerClassifier
from moco_rt.architectures.base import Step
from moco_rt.architectures.genuine import check_modules
from moco_rt.architectures.sites import EMBEDDINGS, attention_site, output_site

if TYPE_CHECKING:
    from typing_extensions import Self


class Layered:
    """The sub-modules of a model whose encoder is its attribute `name`.

    Args:
        model: the classifier.
        name: of its encoder with the embeddings.
        layers: the path from there to the list of layers.
        attention: the module of a layer that is called in its place, and has its own hooks.
        ends: the modules within a layer that attention and feed-forward end with; None: the layer's alone is known.
        embeddings: the path from the encoder to the module that embeds tokens.

    Raises:
        ValueError: the model is a decoder, or modules that are passed by, or called with other arguments than by the
            model itself, are not its class's own or have hooks.
    """

    #: What the path of a layer within the list of them looks like.
    layer_path = r"\d+"
    pooled_token = "first"
    image_size: tuple[int, int, int] | None = None

    def __init__(
        self,
        model: Any,
        name: str,
        layers: str,
        attention: str,
        ends: tuple[str, str] | None,
        *,
        embeddings: str = "embeddings",
    ):
        config = model.config
        if getattr(config, "is_decoder", False):
            raise ValueError("model must be an encoder (got config.is_decoder=True)")
        stack = f"{name}.{layers}"
        paths = [path for path, _ in model.named_modules(remove_duplicate=False)]  # layers may share their weights
        every_layer = [path for path in paths if re.fullmatch(rf"{stack}\.{self.layer_path}", path)]
        around = [path for path in paths if any(f"{layer}.".startswith(f"{path}.") for layer in every_layer)]
        self._path = ""
        self.passed_by: Sequence[str] = ["", *around]
        called = [f"{name}.{embeddings}", *(f"{path}.{attention}" for path in every_layer)]
        check_modules(model, [*self.passed_by, *called], may_have_hooks=called)
        self._model = model
        self._base = getattr(model, name)
        self._layers = self._in_order(self._base.get_submodule(layers))
        self.num_layers = len(self._layers)
        self.keeps: Sequence[float] = (1.0,) * self.num_layers
        self.num_classes: int = config.num_labels
        self.hidden_size: int = config.hidden_size
        self.max_seqlen: int = self._positions()
        self.module_paths = {f"{name}.{embeddings}": EMBEDDINGS}
        if len(every_layer) != self.num_layers:  # a layer that is run several times names no site
            return
        for i, layer in enumerate(every_layer):
            if ends is not None:
                self.module_paths[f"{layer}.{ends[0]}"] = attention_site(i)
                self.module_paths[f"{layer}.{ends[1]}"] = output_site(i)
            self.module_paths[layer] = output_site(i)

    def inside(self, path: str) -> Self:
        """Name modules as a model does that holds this one under a path."""
        self._path = f"{path}."
        self.passed_by = ["", *(f"{path}.{inner}".rstrip(".") for inner in self.passed_by)]
        self.module_paths = {f"{path}.{inner}": site for inner, site in self.module_paths.items()}
        return self

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states and logits."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def real_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as they come, which must be padded on the right."""
        return input_ids, attention_mask

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Every site in order with the step that leads to it."""
        yield EMBEDDINGS, lambda hidden, _: hidden
        for i, layer in enumerate(self._layers):
            yield attention_site(i), partial(self._attention, layer)
            yield output_site(i), partial(self._feed_forward, layer)

    def received_attention(self, layer: int, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Refuse: in this family all tokens go through all layers."""
        raise NotImplementedError

    def linear_groups(self) -> Iterator[dict[str, Any]]:
        """The linear layers inside the encoder's layers, by module path; those that read the same input together."""
        paths = {module: f"{self._path}{path}" for path, module in self._model.named_modules()}
        for layer in dict.fromkeys(self._layers):
            for together in self._linears(layer):
                yield {paths[linear]: linear for linear in together}

    def encoder(self, dtype: torch.dtype, *, classifier: bool = True) -> TransformerClassifier:
        """The model on the packed kernels.

        Args:
            dtype: of hidden states.
            classifier: whether with it; else the model ends with its hidden states.

        Raises:
            ValueError: they do not cover its activation functions, its positions, or dtype.
        """
        head = self._head_spec() if classifier else HeadSpec(final_norm=self._final_norm())
        specs = self._layer_specs()
        return TransformerClassifier(self._embedding_spec(), specs, head, dtype=dtype, order=self._order())

    @property
    def output(self) -> str:
        """The path of the layer to the logits within the model."""
        return "classifier"

    def pool(self, hidden: Tensor) -> Tensor:
        """Hidden states (rows, S, D) by the pooler of the base model, where it has one: (rows, D)."""
        pooled: Tensor = self._base.pooler(hidden)
        return pooled

    def head_is_untrained(self) -> bool:
        """Tell whether the classifier's bias is exactly zero, as initialised: one training step moves it."""
        output = dict(self._model.named_modules()).get(self.output)
        return type(output) is torch.nn.Linear and output.bias is not None and not bool(output.bias.any())

    def _positions(self) -> int:
        """Return how many tokens a row may have."""
        positions: int = self._model.config.max_position_embeddings
        return positions

    def _in_order(self, stack: Any) -> list[Any]:
        """The layers as they are run, from the module that holds them; one may stand in several places."""
        return list(stack)

    def _embedding_spec(self) -> EmbeddingSpec | PatchEmbeddingSpec:
        raise NotImplementedError

    def _layer_specs(self) -> list[LayerSpec]:
        raise NotImplementedError

    def _order(self) -> list[int] | None:
        """Return which of `_layer_specs` is run at each place; None: each once."""
        return None

    def _head_spec(self) -> HeadSpec:
        raise NotImplementedError

    def _final_norm(self) -> NormSpec | None:
        """The norm behind the last layer, where there is one."""
        return None

    @staticmethod
    def _attention(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        """A layer's first half, from what `context` returned of the batch."""
        raise NotImplementedError

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor, context: Any) -> Tensor:
        raise NotImplementedError

    @classmethod
    def _linears(cls, layer: Any) -> Iterator[Sequence[Any]]:
        """A layer's linear layers; those that read the same input together."""
        raise NotImplementedError
