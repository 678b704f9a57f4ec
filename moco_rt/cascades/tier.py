"""Tier: one model of a cascade, with the thresholds that decide whether its answer stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moco_rt.architectures import check_single_label, softmax
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import by_tokens
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.inputs.tokenizer_identity import tokenizer_fingerprint
from moco_rt.policies.fingerprints import check_tokenizer
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.runtime.outputs import EarlyExitOutput

#: Texts that a function is called with at a time.
_FUNCTION_ROWS = 512

#: A function, or a method of any library, from n texts to logits (n, C) in any array or tensor.
TextFunction = Callable[[list[TextInput]], Any]

#: (model, tokenizer): a Hugging Face `...ForSequenceClassification` or an `EarlyExitTextClassificationModel`.
TierLike = tuple[Any, Any] | TextFunction


@dataclass(frozen=True)
class TierOutput:
    """Answers of a tier for n rows, classes in the last tier's order.

    Attributes:
        logits: (n, C) float32.
        exit_site: (n,) int64, place in the model's `sites`; -1 = ran to the end.
        exit_rule: (n,) int64, place in the model's `policy.exits`; -1 = ran to the end.
        settled: (n,) bool, True where the answer stands.
    """

    logits: Tensor
    exit_site: Tensor
    exit_rule: Tensor
    settled: Tensor


@dataclass(frozen=True, eq=False)
class Tier:
    """One model of a cascade. `Tier.of` builds it from what a user passes; `dataclasses.replace` changes it.

    Attributes:
        model: an `EarlyExitTextClassificationModel`, with exits or without, or a function of texts.
        tokenizer: the model's tokenizer; None for a function.
        max_length: texts are truncated to so many tokens; 0 for a function, which gets whole texts.
        class_names: names in the model's own order of classes; None for a function, whose order is the last tier's.
        temperature: logits are divided by it before their softmax is compared with thresholds.
        thresholds: (C,) float32, by predicted class in the last tier's order: what the highest probability must exceed
            for the answer to stand; None: every answer stands, as the last tier's do.
        batch_tokens: tokens in one batch; None: as many as for any model.
        order: (C,) int64, the model's own number of each of the last tier's classes; None before `align_classes`.
    """

    model: Any
    tokenizer: Any = None
    max_length: int = 0
    class_names: tuple[str, ...] | None = None
    temperature: float = 1.0
    thresholds: Tensor | None = None
    batch_tokens: int | None = None
    order: Tensor | None = None

    @classmethod
    def of(cls, tier: TierLike, max_length: int | None = None) -> Tier:
        """Build a tier from a pair (model, tokenizer), or from a function of texts.

        Args:
            tier: the pair or the function; a Hugging Face model is wrapped.
            max_length: texts are truncated to so many tokens; None: to what policy, model and tokenizer allow.

        Raises:
            TypeError: it is neither.
            ValueError: the model does not choose one label of at least two, or the tokenizer is not its policy's.
        """
        model, tokenizer = tier if isinstance(tier, tuple | list) and len(tier) == 2 else (tier, None)
        if tokenizer is None:
            if isinstance(model, torch.nn.Module) or not callable(model):
                raise TypeError(
                    "tiers must be a list, and a tier (model, tokenizer) or a function from texts to logits "
                    f"(got {type(model).__name__})"
                )
            return cls(model)
        if not isinstance(model, EarlyExitTextClassificationModel):
            model = EarlyExitTextClassificationModel(model)
            model.tokenizer = tokenizer
        check_single_label(model.config)
        made_for = model.policy.made_for
        check_tokenizer(made_for, tokenizer)
        limit = made_for.get("max_length") if max_length is None else max_length
        return cls(model, tokenizer, length_limit(tokenizer, model.max_seqlen, limit), model.class_names)

    def tokenises_like(self, other: Tier) -> bool:
        """Return True if both tiers make the same tokens of any text, so that one can reuse the other's."""
        if self.tokenizer is None or other.tokenizer is None:
            return self.tokenizer is other.tokenizer
        if self.max_length != other.max_length:
            return False
        return self.tokenizer is other.tokenizer or (
            tokenizer_fingerprint(self.tokenizer) == tokenizer_fingerprint(other.tokenizer)
        )

    def encode(self, texts: Sequence[TextInput]) -> Sequence[Any]:
        """Return texts in the form that `answer` takes: tokenised; for a function the texts themselves.

        Raises:
            ValueError: the tokenizer has been changed, and is not the one that the model's policy was found with; or
                see `inputs.tokenization.encode`.
        """
        if self.tokenizer is None:
            return list(texts)
        check_tokenizer(self.model.policy.made_for, self.tokenizer)
        return encode(self.tokenizer, texts, self.max_length)

    def batches(self, rows: Sequence[Any]) -> Iterator[list[int]]:
        """Yield the places of all rows in batches: shortest rows first, for a function in their order."""
        if self.tokenizer is None:
            places = range(len(rows))
            return (list(places[start : start + _FUNCTION_ROWS]) for start in places[::_FUNCTION_ROWS])
        return by_tokens(rows, self.batch_tokens)

    def answer(self, rows: Sequence[Any]) -> TierOutput:
        """Answer a batch of rows as `encode` returns them. Rows that leave by an exit are settled.

        Raises:
            ValueError: a function's logits are not (n, C).
        """
        if self.tokenizer is not None:
            return self.decide(self.model.forward_packed(EncodedTexts.of(rows)))
        assert self.order is not None, "align_classes comes first"
        with torch.no_grad():
            returned = self.model(list(rows))
        logits = returned if isinstance(returned, Tensor) else torch.as_tensor(np.asarray(returned), device="cpu")
        expected = (len(rows), len(self.order))
        if logits.shape != expected:
            raise ValueError(f"a tier must answer texts with logits of shape {expected} (got {tuple(logits.shape)})")
        none = torch.full((len(rows),), -1, device="cpu")
        return self.decide(EarlyExitOutput(logits.detach().float().cpu(), none, none))

    def decide(self, output: EarlyExitOutput) -> TierOutput:
        """Bring a model's output into the last tier's order of classes, and decide which rows it settles."""
        assert output.logits is not None
        assert output.exit_site is not None
        assert output.exit_rule is not None
        assert self.order is not None, "align_classes comes first"
        left = output.exit_rule.cpu() >= 0
        logits = output.logits.float().cpu()[:, self.order]
        logits = torch.where(left[:, None], logits, logits / self.temperature)
        score, predicted = top_class(logits)
        stands = torch.ones_like(left) if self.thresholds is None else score > self.thresholds[predicted]
        return TierOutput(logits, output.exit_site.cpu(), output.exit_rule.cpu(), left | stands)


def align_classes(tiers: Sequence[Tier]) -> list[Tier]:
    """Return the tiers, each answering in the last one's order of classes; classes are matched by name.

    Raises:
        ValueError: there is no tier, the last is a function, one has other classes, or two classes have one name.
    """
    names = tiers[-1].class_names if tiers else None
    if names is None:
        raise ValueError("tiers must end with a pair (model, tokenizer), whose labels count")
    if len(set(names)) < len(names):
        raise ValueError(f"classes must have different names, by which tiers are aligned (got {', '.join(names)})")
    aligned = []
    for number, tier in enumerate(tiers):
        own = tier.class_names or names
        if sorted(own) != sorted(names):
            raise ValueError(
                f"tier {number} must have the last tier's classes, {', '.join(names)}, by its config.id2label "
                f"(got {', '.join(own)})"
            )
        aligned.append(replace(tier, order=torch.tensor([own.index(name) for name in names], device="cpu")))
    return aligned


def read_thresholds(given: Any, tiers: int, classes: int) -> list[Tensor]:
    """Return (classes,) float32 thresholds for each of some tiers: from one number, or from one for each class.

    Raises:
        ValueError: they are not as many, or not numbers.
    """
    try:
        listed = list(given)
    except TypeError:
        raise ValueError(f"thresholds must be a list, one for each tier but the last (got {given!r})") from None
    if len(listed) != tiers:
        raise ValueError(f"thresholds must be one for each tier but the last, {tiers} (got {len(listed)})")
    return [_threshold_of_class(threshold, classes) for threshold in listed]


def _threshold_of_class(threshold: Any, classes: int) -> Tensor:
    try:
        levels = torch.as_tensor(threshold, dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        levels = torch.tensor(torch.nan, device="cpu")
    if levels.shape not in ((), (classes,)) or levels.isnan().any():
        raise ValueError(f"a threshold must be a number, or one for each of {classes} classes (got {threshold!r})")
    return levels.expand(classes).clone()


def backend_to_keep(model: EarlyExitClassifier) -> str:
    """Return the backend to ask for where a model is built again: `reference` if it runs on it, else `auto`."""
    return "reference" if model.backend == "reference" else "auto"


def top_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest probability of each row of logits (n, C) and its class: (n,) and (n,)."""
    probs = softmax(logits)
    predicted = probs.argmax(dim=1)
    return probs.gather(1, predicted[:, None])[:, 0], predicted
