"""`accelerate` for a cascade: exits inside tiers and the hand-over between them, chosen together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moco_rt.architectures import load_tokenizer, unwrap
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.tier import Tier, TierLike, align_classes, backend_to_keep
from moco_rt.certification.certificate import GIVEN
from moco_rt.certification.promises import Promise
from moco_rt.certification.selection import select
from moco_rt.inputs.class_numbers import class_numbers
from moco_rt.inputs.texts import Texts, list_texts
from moco_rt.inputs.tokenization import length_limit
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.studies.splits import Split, split_texts
from moco_rt.tuning.batch_tokens import tune_batch_tokens
from moco_rt.tuning.cascade_study import CascadeStudy, build_tiers, names_in_use, other_tokens, study_tiers
from moco_rt.tuning.quantize import quantize, quantize_variant
from moco_rt.tuning.search_report import describe_cascade_search
from moco_rt.tuning.variants import DtypeChoice, other_dtypes, try_form


def prepare_tiers(tiers: Sequence[TierLike], max_length: int | None) -> list[Tier]:
    """Return the tiers as they were given, with the classes of the last; for errors see `accelerate`."""
    return align_classes([_prepare_tier(tier, max_length) for tier in tiers])


def accelerate_tiers(
    tiers: list[Tier],
    inputs: Texts,
    calibration: Texts | None,
    labels: Any,
    columns: str | Sequence[str] | None,
    promise: Promise,
    dtype: DtypeChoice | None,
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
        before=[tier.encode for tier in other_tokens(tiers)],
    )
    return choose_cascade(study_tiers(tiers_in_forms(tiers, dtype, split), split, seed), split, promise, dtype)


def choose_cascade(
    forms: Sequence[CascadeStudy],
    split: Split,
    promise: Promise,
    dtype: DtypeChoice | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> Cascade:
    """Build the fastest certified cascade of exits, of tiers, or of both.

    Args:
        forms: what was studied, first the tiers as they were given; models of the tiers that are used get exits.
        split: the texts.
        promise: the statement to be shown.
        dtype: what was asked for: where it is one that was not given, the tiers as they were given have no exits.
        groups: sets of ways out, see `ExitsToSearch`; None: the study's. Benchmarks compare exits alone and tiers
            alone.
    """
    candidates = [form.candidates if groups is None else replace(form.candidates, groups=groups) for form in forms]
    if len(forms) > 1 and dtype != "auto":
        candidates[0] = candidates[0].without_exits()
    given = forms[0].tiers[-1]
    chosen = select(candidates, promise, given.class_names or ())
    form = forms[chosen.variant]
    used, certificate = build_tiers(form, chosen, given)
    cascade = Cascade.of(tune_batch_tokens(used, split.texts[split.ordering]), certificate)
    sites = list(names_in_use(form, chosen).values())
    cascade.search_report = describe_cascade_search(candidates, sites, given.class_names or (), chosen)
    return cascade


def tiers_in_forms(tiers: list[Tier], dtype: DtypeChoice | None, split: Split) -> dict[str, list[Tier]]:
    """Return the tiers as they were given, and in every other numeric form that is tried, by the names of the forms.

    A tier that is in a form already, or is a function, stands in it as it was given; so does one that cannot be in it,
    where all forms are tried.

    Args:
        tiers: as they were given.
        dtype: see `study_variants`.
        split: the texts; int8 learns from those that train off-ramps.

    Raises:
        ValueError: a tier cannot be in the dtype that was asked for.
    """
    models = [tier.model for tier in tiers if tier.tokenizer is not None]
    forms = {GIVEN: tiers}
    for form in dict.fromkeys(form for model in models for form in other_dtypes(model, dtype)):
        changed = [_in_form(tier, form, dtype, split, number == len(tiers) - 1) for number, tier in enumerate(tiers)]
        if any(new is not old for new, old in zip(changed, tiers, strict=True)):
            forms[str(form).removeprefix("torch.")] = changed
    return forms


def _prepare_tier(tier: TierLike, max_length: int | None) -> Tier:
    """Return a tier on a model of its own: exits of the model that was passed are not used."""
    if not (isinstance(tier, tuple | list) and len(tier) == 2 and tier[1] is not None):
        return Tier.of(tier)  # a function; anything else is refused there
    model, tokenizer = tier
    backend = backend_to_keep(model) if isinstance(model, EarlyExitTextClassificationModel) else "auto"
    model, tokenizer = unwrap(model, tokenizer)
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    fast.check_takes_exits()
    fast.tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
    return Tier.of((fast, fast.tokenizer), length_limit(fast.tokenizer, fast.max_seqlen, max_length))


def _in_form(tier: Tier, form: Dtype, dtype: DtypeChoice | None, split: Split, is_last: bool) -> Tier:
    """Return a tier in another form; itself, where that is its own or it is a function."""
    if tier.tokenizer is None or form not in other_dtypes(tier.model, dtype):
        return tier
    model, backend, texts = tier.model.model, backend_to_keep(tier.model), split.texts[split.fit]

    def make() -> EarlyExitTextClassificationModel:
        if form != "int8":
            return EarlyExitTextClassificationModel(model, backend=backend, dtype=form)
        if is_last:
            copy = quantize(model, texts, tokenizer=tier.tokenizer, max_length=tier.max_length)
        else:  # its own answers are not those that count
            copy = quantize_variant(model, texts, tier.tokenizer, tier.max_length)
        return EarlyExitTextClassificationModel(copy, backend=backend)

    fast = try_form(form, dtype, make)
    if fast is None:
        return tier
    fast.tokenizer = tier.tokenizer
    return replace(tier, model=fast)
