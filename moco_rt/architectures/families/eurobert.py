"""EuroBERT (EuroBertForSequenceClassification): Llama's layers, in which every token attends to all others."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from moco_rt._C import HeadSpec
from moco_rt.architectures.base import affine
from moco_rt.architectures.families.llama_like import LlamaLike

#: What the classifier pools, by the names of the configuration; `late`: the logits of all tokens. Their mean is that
#: of what the last layer reads, by the same layer.
_POOLINGS = {"bos": "token", "mean": "mean", "late": "dense_mean"}


class EuroBert(LlamaLike):
    """EuroBERT: an encoder; its classifier has a dense layer.

    Raises:
        ValueError: the model pools in a way that is not known.
    """

    def __init__(self, model: Any):
        if (pooling := model.config.classifier_pooling) not in _POOLINGS:
            raise ValueError(f"config.classifier_pooling must be one of {', '.join(_POOLINGS)} (got {pooling})")
        super().__init__(model)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Final norm, pooling, dense layer, activation and classifier: (rows, S, D) -> (rows, C)."""
        pooling, hidden = self._model.config.classifier_pooling, self._base.norm(hidden)
        if pooling == "bos":
            hidden = hidden[:, 0]
        elif pooling == "mean":
            hidden = _mean(hidden, attention_mask)
        logits: Tensor = self._model.classifier(self._model.activation(self._model.dense(hidden)))
        return _mean(logits, attention_mask) if pooling == "late" else logits

    def _mask(self, kind: str, attention_mask: Tensor, hidden: Tensor, positions: Tensor) -> Any:  # noqa: ARG002
        return create_bidirectional_mask(config=self._model.config, inputs_embeds=hidden, attention_mask=attention_mask)

    def _window(self, kind: str) -> tuple[int, int]:  # noqa: ARG002
        return -1, -1

    def _head_spec(self) -> HeadSpec:
        model = self._model
        return HeadSpec(
            dense=affine(model.dense),
            activation="gelu",
            output=affine(model.classifier),
            final_norm=self._final_norm(),
            pooling=_POOLINGS[model.config.classifier_pooling],
        )


def _mean(values: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over a row's tokens: values (rows, S, any), attention_mask (rows, S) -> (rows, any)."""
    return (values * attention_mask.unsqueeze(-1)).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)
