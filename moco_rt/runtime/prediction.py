"""Many texts to labels, with one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures import probabilities, softmax
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import packed_batches
from moco_rt.inputs.prefetch import prefetch_encoded
from moco_rt.inputs.texts import TextInput, Texts, take_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import check_tokenizer
from moco_rt.runtime.outputs import Answer, Prediction, RowNames, concatenate


def predict_parts(
    model: Any,
    texts: Texts,
    tokenizer: Any = None,
    max_length: int | None = None,
    columns: str | Sequence[str] | None = None,
    answer: Answer | None = None,
) -> Iterator[Prediction]:
    """Label texts part by part, in their order: tokenised in one thread across the whole run, one progress bar.

    Texts are checked as `take_texts` does it. Parts that were given away are not lost when a later text is refused.

    Args:
        model: an `EarlyExitTextClassificationModel`.
        texts: as for `predict`; an iterator is read one part ahead.
        tokenizer: the model's; None: the one that it carries.
        max_length: in tokens; None: what policy, model and tokenizer allow.
        columns: as for `predict`.
        answer: what classifies batches; None: the model with its policy.

    Raises:
        TypeError: texts, or one of them, is of another kind.
        ValueError: there is no tokenizer, or it is not the policy's; max_length leaves no room for a text; a text is
            not valid Unicode or a row has none.
    """
    tokenise = tokeniser_of(model, tokenizer, max_length)
    return _parts(model, take_texts(texts, columns), tokenise, answer or model.forward_packed)


def join_parts(parts: Iterable[Prediction], of: str = "text") -> Prediction:
    """Join all parts of a prediction.

    Args:
        parts: in their order.
        of: what is labelled, for the error.

    Raises:
        ValueError: there is none.
        BaseException: whatever making them raises; its attribute `prediction` then holds the parts before, if there
            are any, and what it held itself.
    """
    found: list[Prediction] = []
    try:
        found.extend(parts)
    except BaseException as error:
        rest = getattr(error, "prediction", None)
        found += [] if rest is None else [rest]
        if found:
            vars(error)["prediction"] = concatenate(found)
        raise
    if not found:
        raise ValueError(f"{of}s must hold at least one {of} (got none)")
    return concatenate(found)


def tokeniser_of(model: Any, tokenizer: Any, max_length: int | None) -> Callable[[Sequence[TextInput]], EncodedTexts]:
    """Return what tokenises texts for a model, which are truncated.

    Args:
        model: an `EarlyExitTextClassificationModel`.
        tokenizer: the model's; None: the one that it carries.
        max_length: in tokens; None: what policy, model and tokenizer allow.

    Raises:
        ValueError: there is no tokenizer, or it is not the policy's; max_length leaves no room for a text.
    """
    longest = longest_of(model, tokenizer, max_length)
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    return lambda texts: encode(tokenizer, texts, longest)


def longest_of(model: Any, tokenizer: Any, max_length: int | None) -> int:
    """Return how many tokens a text may have; takes what `tokeniser_of` takes, and raises what it raises."""
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError("tokenizer must be given where the model carries none (got None)")
    known = model.prepared_for
    check_tokenizer(known, tokenizer)
    return length_limit(tokenizer, model.max_seqlen, known.get("max_length") if max_length is None else max_length)


def _parts(
    model: Any, texts: Iterable[TextInput], tokenise: Callable[[Sequence[TextInput]], EncodedTexts], answer: Answer
) -> Iterator[Prediction]:
    total = len(texts) if isinstance(texts, Sized) else None
    with tqdm(total=total, unit="text", delay=2, leave=False) as progress:
        for _, _, rows in prefetch_encoded(texts, tokenise):
            yield predict_rows(model, rows, answer, progress.update)


def predict_rows(
    model: Any, rows: EncodedTexts, answer: Answer, told: Callable[[int], object] = lambda _: None
) -> Prediction:
    """Label tokenised texts in batches of their own lengths.

    Args:
        model: an `EarlyExitTextClassificationModel`.
        rows: N texts.
        answer: classifies a batch, such as the model's `forward_packed`.
        told: is called with the number of rows after each batch.
    """
    logits = torch.empty(len(rows), model.policy.num_classes, dtype=torch.float32, device="cpu")
    exit_site, exit_rule = (torch.full((len(rows),), -1, device="cpu") for _ in range(2))
    for order, batch in packed_batches(rows):
        output = answer(batch)
        places = torch.from_numpy(order)
        logits[places] = output.logits.float().cpu()
        exit_site[places] = output.exit_site.cpu()
        exit_rule[places] = output.exit_rule.cpu()
        told(len(batch))
    return prediction_of(model, logits, exit_site, exit_rule)


def prediction_of(model: Any, logits: Tensor, exit_site: Tensor, exit_rule: Tensor) -> Prediction:
    """Return what a model's outputs for N rows say: logits (N, C) float32, exit_site and exit_rule (N,) int64."""
    labels, probs, scores = _answers(logits, model.config.problem_type)
    several = model.config.problem_type == "multi_label_classification"
    holds_from = dict(enumerate(model.policy.task.holds_from(logits.shape[1])))
    names = RowNames(model.config.id2label, [model.sites], several=several, holds_from=holds_from)
    return Prediction(labels, probs, exit_site, exit_rule, torch.zeros_like(exit_rule), scores, names)


def _answers(logits: Tensor, problem_type: str | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return labels (N,), probabilities (N, C) and scores (N,) from logits (N, C); None for those the task has not."""
    alone = logits.shape[1] == 1
    if problem_type == "regression":
        return None, None, logits[:, 0] if alone else logits
    if alone:  # argmax would call everything label 0
        return None, logits.sigmoid(), logits[:, 0]
    several = problem_type == "multi_label_classification"
    return logits.argmax(dim=1), probabilities(logits) if several else softmax(logits), None
