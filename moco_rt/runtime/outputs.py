"""The outputs of models and cascades."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from moco_rt.certification.rows_certificate import RowsCertificate

#: The probability from which a label holds where several may hold at once.
_HOLDS = 0.5

#: Classifies a batch of a model's, as `run_batch` takes it: gives `logits`, `exit_site` and `exit_rule` by row.
Answer = Callable[[Any], Any]


@dataclass
class EarlyExitOutput(ModelOutput):
    """The output of a model's forward, by row of the batch.

    Attributes:
        logits: (B, C). A row that left by an off-ramp has the off-ramp's log-probabilities; one that left by a rule
            those of 1 - the rule's bound for its class, the rest shared by the other classes.
        exit_site: (B,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (B,) int64, place in `model.policy.exits`; -1 = ran to the end.
    """

    logits: Tensor | None = None
    exit_site: Tensor | None = None
    exit_rule: Tensor | None = None


@dataclass
class CascadeOutput(EarlyExitOutput):
    """The output of a cascade's forward, by row of the batch.

    Attributes:
        tier: (B,) int64, the place of the model that answered, whose sites and exits are meant.
    """

    tier: Tensor | None = None


@dataclass(frozen=True)
class RowNames:
    """Names for the numbers in a prediction.

    Attributes:
        labels: name by number of the class.
        sites: of each tier the names of its sites; of a model by itself there is one tier.
        tiers: rows say which tier answered.
        several: several labels may hold at once.
        holds_from: the probability from which each of these holds, by number; 0.5 where nothing stands.
    """

    labels: Mapping[int, str]
    sites: Sequence[Sequence[str]]
    tiers: bool = False
    several: bool = False
    holds_from: Mapping[int, float] = field(default_factory=dict)


@dataclass
class Prediction:
    """The answers of `predict`, in the order of the texts.

    It has a length, and iterating over it gives a dict for each text: `label` (the name), `prob` (the label's) and
    `exit` (name of the site where the row left, or None); `score` in place of `label` and `prob` where there are no
    labels; of a cascade also `tier`. Where several labels may hold at once, `label` and `prob` are lists of those with
    at least probability 0.5, or the thresholds of the policy's task. So `pandas.DataFrame(prediction)` is its table. A
    text that no tier answered, or whose probability is not a number, has None in place of its label.

    Attributes:
        labels: (N,) int64, the class with the highest probability; None: the model has one label, or is a regression.
        probs: (N, C) float32; a model with one label, or with several that may hold at once, gives each its own
            (sigmoid); None: a regression has none.
        exit_site: (N,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (N,) int64, place in `model.policy.exits`; -1 = ran to the end.
        tier: (N,) int64, the place in a cascade of the model that answered, whose sites and exits are meant; 0 of a
            model by itself.
        scores: (N,) float32, the logit of a model with one label, such as a reranker, as it is; (N, C) of a regression
            to C numbers; None: there are labels.
        names: what rows are called when they are iterated; None: by their numbers.
        certificate: what is promised of these answers, where that was asked for; `exit_rule` is then a place in
            `model.policy.path.exits(certificate.step)`.
    """

    labels: Tensor | None
    probs: Tensor | None
    exit_site: Tensor
    exit_rule: Tensor
    tier: Tensor
    scores: Tensor | None = None
    names: RowNames | None = None
    certificate: RowsCertificate | None = None

    def __len__(self) -> int:
        return len(self.exit_site)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        values = self._values()
        exits = zip(self.exit_site.tolist(), self.tier.tolist(), strict=True)
        for value, (site, tier) in zip(values, exits, strict=True):
            row = {**value, "exit": self._site(tier, site)}
            if self.names is not None and self.names.tiers:
                row["tier"] = None if tier < 0 else tier
            yield row

    def _values(self) -> Iterator[dict[str, Any]]:
        """Yield label and probability, or score, of each text."""
        if self.labels is None:
            assert self.scores is not None
            yield from ({"score": score} for score in self.scores.tolist())
            return
        assert self.probs is not None
        if self.names is not None and self.names.several:
            yield from (_holding(probs, self.names) for probs in self.probs.tolist())
            return
        # Of a text without a label, -1, any probability will do: it is not used.
        highest = self.probs.gather(1, self.labels.clamp(min=0)[:, None])[:, 0]
        for label, prob in zip(self.labels.tolist(), highest.tolist(), strict=True):
            if label < 0 or not math.isfinite(prob):
                yield {"label": None, "prob": None}
            else:
                yield {"label": label if self.names is None else self.names.labels.get(label, label), "prob": prob}

    def _site(self, tier: int, site: int) -> str | int | None:
        if site < 0:
            return None
        return site if self.names is None else self.names.sites[tier][site]


def _holding(probs: Sequence[float], names: RowNames) -> dict[str, Any]:
    """Return the labels that hold where several may hold at once, with their probabilities."""
    if not all(map(math.isfinite, probs)):
        return {"label": None, "prob": None}
    holding = [label for label, prob in enumerate(probs) if prob >= names.holds_from.get(label, _HOLDS)]
    return {"label": [names.labels.get(label, label) for label in holding], "prob": [probs[label] for label in holding]}


def concatenate(parts: Sequence[Prediction]) -> Prediction:
    """Join predictions of one model, at least one, in their order."""
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _columns(parts[0])}
    return replace(parts[0], **columns)


def select(prediction: Prediction, rows: Tensor) -> Prediction:
    """Take some rows of a prediction, by their places or by a bool mask."""
    columns: dict[str, Any] = {name: getattr(prediction, name)[rows] for name in _columns(prediction)}
    return replace(prediction, **columns)


def _columns(prediction: Prediction) -> list[str]:
    return [field.name for field in fields(prediction) if isinstance(getattr(prediction, field.name), Tensor)]
