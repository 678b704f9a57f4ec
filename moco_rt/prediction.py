"""What a model answers, and many texts to labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers.utils.generic import ModelOutput

from moco_rt.batches import Text, by_tokens, encode, length_limit, pad
from moco_rt.policy_files import check_tokenizer

#: Texts tokenised at a time, while those before them are computed.
TEXTS = 4096


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
class CascadeOutput(EarlyExitOutput):
    """What a cascade returns.

    Attributes:
        tier: (B,) int64, the place of the model that answered, whose sites and exits are meant.
    """

    tier: Tensor | None = None


@dataclass
class Prediction:
    """What `predict` returns, by text.

    Attributes:
        labels: (N,) int64, the class with the highest probability.
        probs: (N, C) float32; a model with one label, or with several that may hold at once, gives each its own.
        exit_site: (N,) int64, place in `model.sites`; -1 = ran to the end.
        exit_rule: (N,) int64, place in `model.policy.exits`; -1 = ran to the end.
        tier: (N,) int64, the place in a cascade of the model that answered, whose sites and exits are meant; 0 of a
            model by itself.
    """

    labels: Tensor
    probs: Tensor
    exit_site: Tensor
    exit_rule: Tensor
    tier: Tensor


def predict(model: Any, texts: Sequence[Text], tokenizer: Any, max_length: int | None) -> Prediction:
    """The body of `EarlyExitTextClassificationModel.predict`, which says what it takes and returns."""
    check_texts(texts)
    if len(texts) == 0:
        raise ValueError("texts must hold at least one text (got none)")
    if model.config.problem_type == "regression":
        raise ValueError("model must classify (got problem_type=regression)")
    made_for = model.policy.made_for
    check_tokenizer(made_for, tokenizer)
    max_length = made_for.get("max_length") if max_length is None else max_length
    longest = length_limit(tokenizer, model.max_seqlen, max_length)
    logits: Tensor | None = None
    exit_site = torch.full((len(texts),), -1)
    exit_rule = torch.full((len(texts),), -1)
    with tqdm(total=len(texts), unit="text", delay=2, leave=False) as progress:
        for start, _, rows in encoded_ahead(texts, lambda chunk: encode(tokenizer, chunk, longest)):
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
    return Prediction(logits.argmax(dim=1), probs, exit_site, exit_rule, torch.zeros_like(exit_rule))


def encoded_ahead(
    texts: Iterable[Text], encode: Callable[[list[Text]], list[Any]]
) -> Iterator[tuple[int, list[Text], list[Any]]]:
    """Texts from place `start` on with what `encode` makes of them; the next ones are on their way meanwhile.

    Raises:
        TypeError: one of them is neither a text nor a pair of texts.
    """
    chunks = _chunks(texts)
    with ThreadPoolExecutor(max_workers=1) as background:

        def begin() -> tuple[int, list[Text], Future[list[Any]]] | None:
            return next(((start, chunk, background.submit(encode, chunk)) for start, chunk in chunks), None)

        # One chunk waits, one is in work: what is ahead of the model stays small.
        begun = begin()
        while begun is not None:
            start, chunk, rows = begun
            found = rows.result()
            begun = begin()
            yield start, chunk, found


def _chunks(texts: Iterable[Text]) -> Iterator[tuple[int, list[Text]]]:
    rest = iter(texts)
    start = 0
    while chunk := list(islice(rest, TEXTS)):
        for place, text in enumerate(chunk, start):
            check_text(text, place)
        yield start, chunk
        start += len(chunk)


def check_texts(texts: Any) -> None:
    """Raise TypeError where texts is a single one."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of texts (got one str)")


def check_text(text: Any, place: int) -> None:
    """Raise TypeError unless text is one, or a pair of them."""
    pair = isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(part, str) for part in text)
    if not (isinstance(text, str) or pair):
        raise TypeError(f"texts must hold texts or pairs of texts (got {type(text).__name__} at place {place})")
