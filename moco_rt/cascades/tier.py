"""One tier of a cascade: a model, and what decides whether its answer stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moco_rt.architectures import check_single_label
from moco_rt.inputs.batching import by_tokens, pad
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.inputs.tokenizer_identity import tokenizer_fingerprint
from moco_rt.policies.fingerprints import check_tokenizer
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import EarlyExitOutput

#: Texts that a function is given at a time.
_FUNCTION_ROWS = 512

#: What answers texts with logits (n, C), in any array or tensor: a function, or a method of whatever library.
TextFunction = Callable[[list[TextInput]], Any]

#: (model, tokenizer): a Hugging Face `...ForSequenceClassification` or an `EarlyExitTextClassificationModel`.
TierLike = tuple[Any, Any] | TextFunction


@dataclass(frozen=True)
class TierOutput:
    """Of n rows, classes in the last tier's order.

    Attributes:
        logits: (n, C) float32.
        exit_site: (n,) int64, place in the model's `sites`; -1 = ran to the end.
        exit_rule: (n,) int64, place in the model's `policy.exits`; -1 = ran to the end.
        settled: (n,) bool: the answer stands.
    """

    logits: Tensor
    exit_site: Tensor
    exit_rule: Tensor
    settled: Tensor


class Tier:
    """A model among others.

    Attributes:
        model: with exits or without, or a function of texts.
        tokenizer: the model's; a function has none.
        max_length: texts are truncated to so many tokens.
        class_names: in the model's own order; of a function in the last tier's.
        temperature: logits are divided by it before they are top_class.
        thresholds: (C,) float32, by predicted class in the last tier's order: what the highest probability must exceed
            for the answer to stand; None: whatever it says stands, as what the last tier says does.
        batch_tokens: tokens in one batch; None: as many as any model's.
        order: (C,) int64, its own number of each of the last tier's classes; None: it has not been aligned.
    """

    def __init__(self, given: TierLike, max_length: int | None = None):
        pair: Any = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
        self.model: Any = pair[0]
        self.tokenizer: Any = pair[1]
        self.max_length = 0
        self.class_names: list[str] | None = None
        self.temperature = 1.0
        self.thresholds: Tensor | None = None
        self.batch_tokens: int | None = None
        self.order: Tensor | None = None
        if self.tokenizer is None:
            if isinstance(self.model, torch.nn.Module) or not callable(self.model):
                raise TypeError(
                    "tiers must be a list, and a tier (model, tokenizer) or a function from texts to logits "
                    f"(got {type(self.model).__name__})"
                )
            return
        if not isinstance(self.model, EarlyExitTextClassificationModel):
            self.model = EarlyExitTextClassificationModel(self.model)
            self.model.tokenizer = self.tokenizer
        check_single_label(self.model.config)
        made_for = self.model.policy.made_for
        check_tokenizer(made_for, self.tokenizer)
        limit = made_for.get("max_length") if max_length is None else max_length
        self.max_length = length_limit(self.tokenizer, self.model.max_seqlen, limit)
        labels = self.model.config.id2label
        self.class_names = [str(labels[c]) for c in range(len(labels))]

    def tokenises_like(self, other: Tier) -> bool:
        """Whether what the other's tokenizer makes of a text is what its own would."""
        if None in (self.tokenizer, other.tokenizer):
            return self.tokenizer is other.tokenizer
        same = self.tokenizer is other.tokenizer
        same = same or tokenizer_fingerprint(self.tokenizer) == tokenizer_fingerprint(other.tokenizer)
        return same and self.max_length == other.max_length

    def encode(self, texts: Sequence[TextInput]) -> list[Any]:
        """What `answer` takes: tokenised texts, or the texts themselves."""
        if self.tokenizer is None:
            return list(texts)
        return encode(self.tokenizer, texts, self.max_length)

    def batches(self, rows: Sequence[Any]) -> Iterator[list[int]]:
        """The places of all rows, shortest first, in batches."""
        if self.tokenizer is None:
            places = range(len(rows))
            return (list(places[start : start + _FUNCTION_ROWS]) for start in places[::_FUNCTION_ROWS])
        return by_tokens(rows, self.batch_tokens)

    def answer(self, rows: Sequence[Any]) -> TierOutput:
        """Of a batch of rows as `encode` makes them; those that left early stand.

        Raises:
            ValueError: a function's logits are not (n, C).
        """
        if self.tokenizer is not None:
            return self.decide(self.model(**pad(rows, self.model.device)))
        assert self.order is not None
        with torch.no_grad():
            said = self.model(list(rows))
        logits = (said if isinstance(said, Tensor) else torch.as_tensor(np.asarray(said))).detach().float().cpu()
        expected = (len(rows), len(self.order))
        if logits.shape != expected:
            raise ValueError(f"a tier must answer texts with logits of shape {expected} (got {tuple(logits.shape)})")
        nobody = torch.full((len(rows),), -1)
        return self.decide(EarlyExitOutput(logits, nobody, nobody))

    def decide(self, output: EarlyExitOutput) -> TierOutput:
        """What the model said, in the last tier's order of classes, and which rows it settles."""
        assert output.logits is not None
        assert output.exit_site is not None
        assert output.exit_rule is not None
        assert self.order is not None, "align it first"
        left = output.exit_rule.cpu() >= 0
        logits = output.logits.float().cpu()[:, self.order]
        logits = torch.where(left[:, None], logits, logits / self.temperature)
        score, predicted = top_class(logits)
        stands = torch.ones_like(left) if self.thresholds is None else score > self.thresholds[predicted]
        return TierOutput(logits, output.exit_site.cpu(), output.exit_rule.cpu(), left | stands)


def align_classes(tiers: Sequence[Tier]) -> None:
    """From now on all answer in the last one's order of classes.

    Raises:
        ValueError: there is no tier, the last is a function, one has other classes, or two classes have one name.
    """
    names = tiers[-1].class_names if tiers else None
    if names is None:
        raise ValueError("tiers must end with a pair (model, tokenizer), whose labels count")
    if len(set(names)) < len(names):
        raise ValueError(f"classes must have different names, by which tiers are aligned (got {', '.join(names)})")
    for number, tier in enumerate(tiers):
        own = tier.class_names or names
        if sorted(own) != sorted(names):
            raise ValueError(
                f"tier {number} must have the last tier's classes, {', '.join(names)}, by its config.id2label "
                f"(got {', '.join(own)})"
            )
        tier.order = torch.tensor([own.index(name) for name in names])


def top_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """How sure logits (n, C) are, the highest probability, and of which class: (n,) and (n,)."""
    score, predicted = logits.softmax(dim=1).max(dim=1)
    return score, predicted
