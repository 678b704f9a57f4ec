"""What a model answers, and many texts to labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers.utils.generic import ModelOutput

from moco_rt.batches import Encoded, Text, by_tokens, encode, length_limit, pad
from moco_rt.policy_files import tokenizer_fingerprint

#: Texts tokenised at a time, while those before them are computed.
_TEXTS = 4096


@dataclass
class EarlyExitOutput(ModelOutput):
    """What the model returns.

    Attributes:
        logits: (B, C). A row that left early has log-probabilities: 1 - the exit's bound for its class, the rest
            shared by the other classes.
        exit_site: (B,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (B,) int64, place in `model.policy.exits`; -1 = ran to the end.
    """

    logits: Tensor | None = None
    exit_site: Tensor | None = None
    exit_rule: Tensor | None = None


@dataclass
class Prediction:
    """What `predict` returns, by text.

    Attributes:
        labels: (N,) int64, the class with the highest probability.
        probs: (N, C) float32; a model with one label, or with several that may hold at once, gives each its own.
        exit_site: (N,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (N,) int64, place in `model.policy.exits`; -1 = ran to the end.
    """

    labels: Tensor
    probs: Tensor
    exit_site: Tensor
    exit_rule: Tensor


def predict(model: Any, texts: Sequence[Text], tokenizer: Any, max_length: int | None) -> Prediction:
    """The body of `EarlyExitTextClassificationModel.predict`, which says what it takes and returns."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of texts (got one str)")
    if len(texts) == 0:
        raise ValueError("texts must hold at least one text (got none)")
    if model.config.problem_type == "regression":
        raise ValueError("model must classify (got problem_type=regression)")
    made_for = model.policy.made_for
    if made_for.get("tokenizer", "") not in ("", tokenizer_fingerprint(tokenizer)):
        raise ValueError("tokenizer must be the one that the policy was found with (its fingerprint is another)")
    max_length = made_for.get("max_length") if max_length is None else max_length
    longest = length_limit(tokenizer, model.max_seqlen, max_length)
    logits: Tensor | None = None
    exit_site = torch.full((len(texts),), -1)
    exit_rule = torch.full((len(texts),), -1)
    with tqdm(total=len(texts), unit="text", delay=2, leave=False) as progress:
        for start, rows in _tokenised(tokenizer, texts, longest):
            for places in by_tokens(rows):
                output = model(**pad([rows[i] for i in places], model.device))
                index = start + torch.tensor(places)
                if logits is None:
                    logits = torch.empty(len(texts), output.logits.shape[1], dtype=torch.float32)
                logits[index] = output.logits.float().cpu()
                exit_site[index] = output.exit_site.cpu()
                exit_rule[index] = output.exit_rule.cpu()
                progress.update(len(places))
    assert logits is not None
    one_of_many = logits.shape[1] > 1 and model.config.problem_type != "multi_label_classification"
    probs = logits.softmax(dim=1) if one_of_many else logits.sigmoid()
    return Prediction(logits.argmax(dim=1), probs, exit_site, exit_rule)


def _tokenised(tokenizer: Any, texts: Sequence[Text], longest: int) -> Iterator[tuple[int, list[Encoded]]]:
    """The texts from place `start` on, tokenised; the next ones are on their way meanwhile."""
    starts = [*range(0, len(texts), _TEXTS), len(texts)]
    with ThreadPoolExecutor(max_workers=1) as background:
        # One of them waits, one is in work: what is ahead of the model stays small.
        waiting = background.submit(encode, tokenizer, texts[: starts[1]], longest)
        for start, stop in pairwise(starts):
            rows = waiting.result()
            if stop < len(texts):
                waiting = background.submit(encode, tokenizer, texts[stop : stop + _TEXTS], longest)
            yield start, rows
