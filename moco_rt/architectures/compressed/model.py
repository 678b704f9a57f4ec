"""The model type by which transformers saves and loads narrower classifiers, and those that leave out tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from moco_rt.architectures.base import Architecture
from moco_rt.architectures.compressed.layers import Widths, resize
from moco_rt.architectures.compressed.shortening import check_lengths, keeps_of, shorten
from moco_rt.architectures.genuine import check_modules
from moco_rt.architectures.registry import architecture_of, register
from moco_rt.architectures.sites import EMBEDDINGS, layer_of_attention

#: Version of the entries of the configuration.
VERSION = 1


class CompressedConfig(PreTrainedConfig):
    """The configuration of a smaller model: that of the model which it was made from, and what is left of its layers.

    What it does not have itself (`hidden_size`, `max_position_embeddings` ...) is read from `base_config`.

    Args:
        base_config: the configuration of the model which it was made from.
        heads: attention heads of each layer.
        neurons: neurons of each layer's feed-forward network.
        lengths: after the attention of each layer, the share of a row's tokens that go on; none: all of them do.
        version: of these entries.

    Raises:
        ValueError: the version is not this one's, a width is not a number from 1 on, or lengths are no shares that
            never rise.
    """

    model_type = "moco_rt_compressed"
    sub_configs = {"base_config": AutoConfig}  # noqa: RUF012 -- transformers reads it so

    def __init__(
        self,
        base_config: PreTrainedConfig | dict[str, Any] | None = None,
        heads: Sequence[int] = (),
        neurons: Sequence[int] = (),
        lengths: Sequence[float] = (),
        version: int = VERSION,
        **others: Any,
    ):
        if version != VERSION:
            raise ValueError(f"the configuration of a smaller model must be of version {VERSION} (got {version})")
        for name, widths in (("heads", heads), ("neurons", neurons)):
            if not all(isinstance(width, int) and width > 0 for width in widths):
                raise ValueError(f"{name} must be whole numbers from 1 on (got {list(widths)})")
        self.base_config = AutoConfig.for_model(**base_config) if isinstance(base_config, dict) else base_config
        check_lengths(lengths, len(heads))
        self.heads, self.neurons, self.lengths, self.version = list(heads), list(neurons), list(lengths), version
        if self.base_config is not None:
            of_labels = {name: getattr(self.base_config, name) for name in ("id2label", "label2id", "problem_type")}
            others = {**of_labels, **others}
        super().__init__(**others)

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base_config")
        if base is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(base, name)

    @property
    def widths(self) -> Widths:
        """The widths of all layers."""
        return Widths(tuple(self.heads), tuple(self.neurons))


class CompressedForSequenceClassification(PreTrainedModel):
    """A Hugging Face classifier whose layers have fewer heads and neurons, each its own number, and fewer tokens.

    Args:
        config: says which model, and what is left of its layers.
    """

    config: CompressedConfig
    config_class = CompressedConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: CompressedConfig):
        super().__init__(config)
        self.model = AutoModelForSequenceClassification.from_config(config.base_config, trust_remote_code=False)
        resize(self.model, config.widths)
        self.post_init()  # type: ignore[no-untyped-call]

    def describe(self) -> str:
        """Say what is left of its layers, in a line."""
        heads, neurons = (", ".join(map(str, widths)) for widths in (self.config.heads, self.config.neurons))
        shares = ", ".join(f"{share:.0%}" for share in self.config.lengths) or "all"
        sparsity = getattr(self.config, "compression", {}).get("sparsity", 0.0)
        zeros = f"; zeros {sparsity:.0%}" if sparsity > 0 else ""
        return f"heads {heads}; neurons {neurons}; tokens {shares}{zeros}"

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the embeddings of words."""
        embeddings: torch.nn.Module = self.model.get_input_embeddings()
        return embeddings

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **others: Any
    ) -> SequenceClassifierOutput:
        """Do what the model of the original family does, with what is left of its layers.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S).
            others: what else that model's `forward` takes; where tokens are left out `token_type_ids` and
                `output_hidden_states` alone count.
        """
        if not self.config.lengths:
            output: SequenceClassifierOutput = self.model(input_ids=input_ids, attention_mask=attention_mask, **others)
            return output
        assert input_ids is not None
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self._forward_shortened(
            input_ids, mask, others.get("token_type_ids"), bool(others.get("output_hidden_states"))
        )

    def _forward_shortened(
        self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None, all_states: bool
    ) -> SequenceClassifierOutput:
        """Run one sub-layer after the other; after some attentions only a share of each row's tokens goes on."""
        architecture = _architecture(self)
        began_with = mask.sum(dim=1)
        hidden = architecture.embed(input_ids, token_type_ids)
        states, context = [hidden], architecture.context(mask, hidden)
        for site, step in architecture.steps():
            before, hidden = hidden, step(hidden, context)
            layer = layer_of_attention(site)
            if layer is not None and architecture.keeps[layer] < 1:
                received = architecture.received_attention(layer, before, mask)
                hidden, mask = shorten(hidden, mask, received, began_with, architecture.keeps[layer])
                context = architecture.context(mask, hidden)
            elif layer is None and site != EMBEDDINGS:
                states.append(hidden)
        return SequenceClassifierOutput(
            logits=architecture.classify(hidden, mask), hidden_states=tuple(states) if all_states else None
        )


def _architecture(model: CompressedForSequenceClassification) -> Architecture:
    """Return what drives the model inside, which leaves tokens out where the configuration says so."""
    check_modules(model, [""])
    found = architecture_of(model.model).inside("model")
    found.keeps = keeps_of(model.config.lengths, found.num_layers)
    return found


register(CompressedForSequenceClassification, _architecture)
AutoConfig.register(CompressedConfig.model_type, CompressedConfig)
AutoModelForSequenceClassification.register(CompressedConfig, CompressedForSequenceClassification)
