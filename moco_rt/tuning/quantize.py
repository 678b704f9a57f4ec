"""Quantise a classifier to int8 and compare its answers; inputs that are hard to quantise are smoothed first."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.architectures import (
    Task,
    architecture_of,
    load_image_processor,
    load_tokenizer,
    takes_images,
    task_of,
    unwrap,
)
from moco_rt.architectures.compressed.model import CompressedForSequenceClassification
from moco_rt.architectures.conversion import check_quantizable, int8_copy, to_dtype
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.images import Images, check_column, list_images
from moco_rt.inputs.texts import TextInput, Texts, list_texts
from moco_rt.inputs.tokenization import TokenlessTextError, length_limit
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.choice import class_for
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel

#: Texts that the copy is compared on.
_ROWS = 512
_BATCH_ROWS = 64
#: How far large input channels are scaled down and their weights up (0: not at all, 1: fully); 0 is tried as well.
_STRENGTHS = (0.25, 0.5, 0.75)
#: Share of answers that must stay; otherwise some products are left in float32.
_AGREEMENT = 0.995

_log = logging.getLogger(__name__)

Batches = Sequence[dict[str, Tensor]]


def quantize(
    model: Any,
    texts: Texts,
    *,
    tokenizer: Any = None,
    image_processor: Any = None,
    max_length: int | None = None,
    columns: str | Sequence[str] | None = None,
) -> Any:
    """Return a copy of a model with int8 weights, see `int8_copy`, that keeps the model's answers.

    Input channels are divided by max |x|^strength / max |weight|^(1 - strength) (SmoothQuant, arXiv:2211.10438), or by
    nothing, whichever changes the logits least. Where too many answers still change, products are left in float32,
    those first that change the logits most, and the log says which: answers are labels; sets of labels with at least
    probability 0.5, where several may hold at once; of numbers, their variance. Nothing is trained. Of what `compress`
    made all products are in int8: its own answers are not those that count, and the log says how many of them stay.

    Args:
        model: a Hugging Face `...ForSequenceClassification` or `...ForImageClassification`, or a pipeline or one of our
            models around it, on a CPU.
        texts: a few hundred texts, pairs, or rows with named columns, in whatever holds them (see `list_texts`), like
            those it will meet; of more than 512, so many spread evenly over them are looked at. For a model that takes
            them, images, see its `predict`.
        tokenizer: the model's; None: loaded from where the model came from.
        image_processor: the same of a model that takes images.
        max_length: in tokens; None: what model and tokenizer allow.
        columns: names the column that holds the text, or the two that hold a pair; None: `text`, and where there is one
            `text2` or `text_pair`.

    Returns:
        The copy, in evaluation mode, which `EarlyExitTextClassificationModel`, `accelerate` and `save_pretrained` take
        like any other.

    Raises:
        TypeError: model is not a sequence classifier, or texts is a single text or holds something else.
        ValueError: its family is not covered; there are no texts, or only one where answers are
            numbers; the tokenizer makes no token of a text.
    """
    if takes_images(unwrap(model)[0]):
        return _quantize_on_images(model, texts, image_processor, check_column(columns))
    taken = list_texts(texts, columns)
    model, tokenizer = unwrap(model, tokenizer)
    max_seqlen = architecture_of(model).max_seqlen
    tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
    longest = length_limit(tokenizer, max_seqlen, max_length)
    batches = _batches_of(taken, tokenizer, longest)
    return quantize_on(model, batches, 0.0 if isinstance(model, CompressedForSequenceClassification) else None)


def quantize_variant(model: Any, texts: Sequence[TextInput], tokenizer: Any, max_length: int) -> Any:
    """Return a copy of a variant of a model with int8 weights in all layers, whatever becomes of its own answers.

    Those of the given model count, and a certificate compares with them.

    Args:
        model: the variant.
        texts: those it learns from.
        tokenizer: the model's.
        max_length: in tokens.
    """
    return quantize_on(model, _batches_of(texts, tokenizer, max_length), agreement=0.0)


def _quantize_on_images(model: Any, images: Images, image_processor: Any, column: str | None) -> Any:
    some = _spread(list_images(images, column))
    model, processor = unwrap(model, image_processor, "image_processor")
    with _same_modes_afterwards(model):
        fast = EarlyExitImageClassificationModel(model)
        fast.image_processor = load_image_processor(model) if processor is None else processor
        batches = [fast.batch_of(some[start : start + _BATCH_ROWS]) for start in range(0, len(some), _BATCH_ROWS)]
        return quantize_on(model, [{"pixel_values": batch} for batch in batches])


def _batches_of(texts: Sequence[TextInput], tokenizer: Any, max_length: int) -> Batches:
    """Tokenise some of the texts into padded batches; raises as `encode`, by the places among all of them."""
    places = _spread(range(len(texts)))
    try:
        return length_sorted_batches(tokenizer, [texts[place] for place in places], max_length, _BATCH_ROWS)[0]
    except TokenlessTextError as error:
        raise TokenlessTextError(error.text, places[error.place], len(texts)) from None


def _spread(rows: Sequence[Any]) -> list[Any]:
    """Return so many rows, or all, spread evenly: they may be sorted by class."""
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(_ROWS, len(rows)), dtype=int)]


@contextlib.contextmanager
def _same_modes_afterwards(model: Any) -> Iterator[None]:
    """Give every module of a model its mode back, training or evaluation: our classes put it in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def quantize_on(model: Any, batches: Batches, agreement: float | None = None) -> Any:
    """Do what `quantize` does, on texts that are tokenised and padded already, or on images that are prepared.

    Args:
        model: the model.
        batches: texts or images.
        agreement: share of answers that must stay; None: that of `quantize`.

    Raises:
        ValueError: the model is not covered, or there is only one row where answers are numbers.
    """
    with _same_modes_afterwards(model):
        return _quantized(model, batches, _AGREEMENT if agreement is None else agreement)


def _quantized(model: Any, batches: Batches, agreement: float) -> Any:
    numbers = model.config.problem_type == "regression" or model.config.num_labels == 1
    task = None if numbers else task_of(model.config)
    check_quantizable(model)
    if numbers and (rows := sum(len(next(iter(batch.values()))) for batch in batches)) < 2:
        raise ValueError(f"rows must be at least 2 where answers are numbers, for they must vary (got {rows})")
    model = to_dtype(model, None)
    kind = class_for(model)
    expected = _logits(kind(model), batches)

    def compare(smooth: dict[str, Tensor] | None, keep: Sequence[str] = ()) -> tuple[float, float]:
        """Return the mean squared error of the logits, and the share of answers that stay."""
        logits = _logits(kind(int8_copy(model, smooth, keep)), batches)
        return float((logits - expected).square().mean()), _agreement(logits, expected, task)

    smooths: dict[float, dict[str, Tensor] | None] = {0.0: None}
    tries = {0.0: compare(None)}  # before the work: raises where int8 cannot be
    largest = _largest_inputs(model, batches)
    for strength in tqdm(_STRENGTHS, desc="int8", delay=2, leave=False):
        smooths[strength] = _smooth(model, largest, strength)
        tries[strength] = compare(smooths[strength])
    strength = min(tries, key=lambda strength: tries[strength][0])
    kept = tries[strength][1]
    keep: list[str] = []
    if kept < agreement:
        products = [list(linears) for linears in architecture_of(model).linear_groups()]
        errors = [compare(smooths[strength], names)[0] for names in tqdm(products, desc="int8", delay=2, leave=False)]
        for place in np.argsort(errors):
            keep += products[place]
            kept = compare(smooths[strength], keep)[1]
            if kept >= agreement:
                break
        _log.warning("int8: for %.2f%% of answers, in float32 stay %s", 100 * kept, ", ".join(keep))
    else:
        _log.info("int8: %.2f%% of answers stay", 100 * kept)
    return int8_copy(model, smooths[strength], keep).eval()


def _agreement(logits: Tensor, expected: Tensor, task: Task | None) -> float:
    """Return the share of answers that stay; of numbers, of the variance of each, the least; 0 where that is NaN.

    Args:
        logits: (rows, C) float32.
        expected: the same of the model in its own dtype.
        task: what the answers are; None: numbers.
    """
    if task is not None:
        return float(task.same(expected.cpu().numpy(), logits.cpu().numpy()).mean())
    changed = float(((logits - expected).var(dim=0) / expected.var(dim=0).clamp(min=1e-12)).max())
    return 0.0 if math.isnan(changed) else 1 - changed


@torch.no_grad()
def _logits(model: EarlyExitClassifier, batches: Batches) -> Tensor:
    """Return the logits of all rows: (rows, C) float32."""
    return torch.cat([model(**batch).logits.float() for batch in batches])


@torch.no_grad()
def _largest_inputs(model: Any, batches: Batches) -> dict[str, Tensor]:
    """Return the largest absolute value of each input channel over all tokens: (inputs,) by module path."""
    reference = class_for(model)(model, backend="reference")
    largest: dict[str, Tensor] = {}
    mask = of_images = torch.tensor(True, device=model.device)

    def watch(name: str, x: Tensor) -> None:
        # DeBERTa's positions are not padded.
        tokens = x[mask] if x.shape[: mask.dim()] == mask.shape else x
        seen = tokens.flatten(0, -2).abs().amax(dim=0).float()
        largest[name] = torch.maximum(largest.get(name, seen), seen)

    hooks = [
        linear.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for linears in architecture_of(model).linear_groups()
        for name, linear in linears.items()
    ]
    try:
        for batch in batches:
            # Every token of an image is real.
            mask = batch["attention_mask"].bool() if "attention_mask" in batch else of_images
            reference(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _smooth(model: Any, largest: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Return the divisors of each layer's inputs: (inputs,) by module path, equal for layers that share their input."""
    smooth: dict[str, Tensor] = {}
    for linears in architecture_of(model).linear_groups():
        weight = torch.stack([linear.weight.detach().float().abs().amax(dim=0) for linear in linears.values()]).amax(0)
        x = largest[next(iter(linears))]
        x = x.clamp(min=max(1e-5, 0.01 * float(x.median())))  # channels near 0 here may be active elsewhere
        divisor = x**strength / weight.clamp(min=1e-5) ** (1 - strength)
        smooth |= dict.fromkeys(linears, divisor)
    return smooth
