"""`accelerate` for a cascade: exits inside tiers and the hand-over between them, chosen together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moco_rt.architectures import load_tokenizer, unwrap
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.tier import Tier, TierLike, align_classes, backend_to_keep
from moco_rt.certification.promises import Promise
from moco_rt.certification.selection import select
from moco_rt.inputs.class_numbers import class_numbers
from moco_rt.inputs.texts import TextInput, Texts, list_texts
from moco_rt.inputs.tokenization import length_limit
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.studies.splits import Split, split_texts
from moco_rt.tuning.batch_tokens import tune_batch_tokens
from moco_rt.tuning.cascade_study import CascadeStudy, build_tiers, names_in_use, study_tiers
from moco_rt.tuning.quantize import quantize
from moco_rt.tuning.search_report import describe_cascade_search


def prepare_tiers(tiers: Sequence[TierLike], dtype: Dtype | None, max_length: int | None) -> list[Tier]:
    """Return the tiers as they will run, with the classes of the last; for errors see `accelerate`."""
    return align_classes([_prepare_tier(tier, dtype, max_length) for tier in tiers])


def accelerate_tiers(
    tiers: list[Tier],
    inputs: Texts,
    calibration: Texts | None,
    labels: Any,
    columns: str | Sequence[str] | None,
    promise: Promise,
    dtype: Dtype | None,
    seed: int,
) -> Cascade:
    """Do what `accelerate` does, for aligned tiers of a cascade."""
    texts = list_texts(inputs, columns)
    split = split_texts(
        texts,
        tiers[-1].encode,
        calibration=None if calibration is None else list_texts(calibration, columns),
        labels=None if labels is None else class_numbers(labels, tiers[-1].class_names or ()),
        seed=seed,
    )
    if dtype == "int8":
        tiers = [_in_int8(tier, split.texts[split.fit]) for tier in tiers]
    return choose_cascade(tiers, study_tiers(tiers, split, seed), split, promise)


def choose_cascade(
    tiers: Sequence[Tier],
    found: CascadeStudy,
    split: Split,
    promise: Promise,
    groups: Sequence[Sequence[int]] | None = None,
) -> Cascade:
    """Build the fastest certified cascade of exits, of tiers, or of both.

    Args:
        tiers: the aligned tiers that were studied; their models get exits.
        found: the study.
        split: its texts.
        promise: the statement to be shown.
        groups: sets of ways out, see `ExitsToSearch`; None: the study's. Benchmarks compare exits alone and tiers
            alone.
    """
    candidates = found.candidates if groups is None else replace(found.candidates, groups=groups)
    chosen = select([candidates], promise, tiers[-1].class_names or ())
    used, certificate = build_tiers(tiers, found, chosen)
    cascade = Cascade.of(tune_batch_tokens(used, split.texts[split.ordering]), certificate)
    sites = list(names_in_use(tiers, found, chosen).values())
    cascade.search_report = describe_cascade_search(candidates, sites, tiers[-1].class_names or (), chosen)
    return cascade


def _prepare(model: Any, tokenizer: Any, dtype: Dtype | None, max_length: int | None) -> Tier:
    """Return a model as it will run, with its tokenizer; int8 waits for the texts that it learns from."""
    backend = "auto"
    if isinstance(model, EarlyExitTextClassificationModel):
        backend = backend_to_keep(model)
    model, tokenizer = unwrap(model, tokenizer)
    fast = EarlyExitTextClassificationModel(model, backend=backend, dtype=None if dtype == "int8" else dtype)
    fast.check_takes_exits()
    fast.tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
    return Tier.of((fast, fast.tokenizer), length_limit(fast.tokenizer, fast.max_seqlen, max_length))


def _prepare_tier(tier: TierLike, dtype: Dtype | None, max_length: int | None) -> Tier:
    """Return a tier as it will run, on a model of its own: exits of the model that was passed are not used."""
    if isinstance(tier, tuple | list) and len(tier) == 2 and tier[1] is not None:
        return _prepare(*tier, dtype, max_length)
    return Tier.of(tier)  # a function; anything else is refused there


def _in_int8(tier: Tier, texts: Sequence[TextInput]) -> Tier:
    """Return a tier on the int8 copy of its model, unless it is a function or in int8 already."""
    if tier.tokenizer is None or is_int8(tier.model.model):
        return tier
    copy = quantize(tier.model.model, texts, tokenizer=tier.tokenizer, max_length=tier.max_length)
    fast = EarlyExitTextClassificationModel(copy)
    fast.tokenizer = tier.tokenizer
    return replace(tier, model=fast)
