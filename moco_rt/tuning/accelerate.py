"""One call from a model, or several, and some texts to the fastest policy that can be certified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt.architectures import load_tokenizer, unwrap
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.tier import Tier, TierLike, align_classes
from moco_rt.certification.selection import ExitCandidates, operating_points, select
from moco_rt.inputs.texts import TextInput, check_texts
from moco_rt.inputs.tokenization import length_limit
from moco_rt.policies.findings import SAMPLE, SearchReport
from moco_rt.policies.fingerprints import run_identity
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.tuning.baselines import all_baselines
from moco_rt.tuning.batch_tokens import tune_batch_tokens
from moco_rt.tuning.cascade_study import CascadeStudy, build_tiers, study_tiers
from moco_rt.tuning.quantize import quantize
from moco_rt.tuning.splits import Split, split_texts
from moco_rt.tuning.study import Study, score_exits, study


@overload
def accelerate(
    model: torch.nn.Module,
    texts: Sequence[TextInput],
    *,
    tokenizer: Any = None,
    agreement: float = 0.99,
    confidence: float = 0.95,
    dtype: Dtype | None = None,
    seed: int = 0,
    calibration: Sequence[TextInput] | None = None,
    labels: Sequence[int] | None = None,
    max_length: int | None = None,
) -> EarlyExitTextClassificationModel: ...
@overload
def accelerate(
    model: list[TierLike] | tuple[TierLike, ...],
    texts: Sequence[TextInput],
    *,
    tokenizer: Any = None,
    agreement: float = 0.99,
    confidence: float = 0.95,
    dtype: Dtype | None = None,
    seed: int = 0,
    calibration: Sequence[TextInput] | None = None,
    labels: Sequence[int] | None = None,
    max_length: int | None = None,
) -> Cascade: ...
def accelerate(
    model: Any,
    texts: Sequence[TextInput],
    *,
    tokenizer: Any = None,
    agreement: float = 0.99,
    confidence: float = 0.95,
    dtype: Dtype | None = None,
    seed: int = 0,
    calibration: Sequence[TextInput] | None = None,
    labels: Sequence[int] | None = None,
    max_length: int | None = None,
) -> EarlyExitTextClassificationModel | Cascade:
    """The fastest policy of exits whose disagreement with the full model is certified.

    Off-ramps learn the model's own probabilities at every layer; a search orders policies from "nobody leaves" to the
    fastest by the time they save on this machine for each label that changes; on rows that neither has seen, Learn-
    then-Test with fixed-sequence testing (arXiv:2110.01052) picks the last one that holds. The model is not changed.

    Args:
        model: a Hugging Face `...ForSequenceClassification`, or a pipeline or `EarlyExitTextClassificationModel` around
            one, whose exits are not taken over; or tiers of a cascade, see `Cascade`, from the fastest to
            the one whose labels count: exits inside tiers and the hand-over between them are then chosen together, and
            tiers that save no time are left out.
        texts: texts, or pairs, like those it will meet; labels are not needed. Texts that the model was fine-tuned on
            would make it look surer than it is: certify on others, see `calibration`.
        tokenizer: the model's; None: loaded from where the model came from. Tiers bring their own.
        agreement: the share of rows that must keep the full model's label.
        confidence: with which this must hold.
        dtype: compute in this dtype; None: the model's. `"int8"`: on the copy that `quantize` makes with some of
            the texts; the full model whose labels are promised is then that copy.
        seed: of the split of the texts and of the off-ramps.
        calibration: texts for the certificate alone; None: 35% of `texts` are kept apart for it.
        labels: true classes of the calibration texts, or of `texts` where there are none: adds accuracies to the
            certificate.
        max_length: in tokens; None: what model and tokenizer allow.

    Returns:
        The model with its policy; `.policy.certificate` says what is promised, of a cascade `.certificate`. With too
        few rows for the agreement that was asked for it promises what they can show, and says in the log how many are
        needed; where no exit pays, or none can be certified, it has none, and says so.

    Raises:
        TypeError: model is not a sequence classifier, or texts is a single text.
        ValueError: it does not choose one label of at least two, the texts are too few, or a share is not inside
            (0, 1).
    """
    for name, share in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be inside (0, 1) (got {share})")
    check_texts(texts)
    split = split_texts(texts, calibration, labels, seed)
    if isinstance(model, list | tuple):
        if tokenizer is not None:
            raise ValueError("tokenizer must be None: tiers bring their own")
        tiers = [_tier(given, split, dtype, max_length) for given in model]
        align_classes(tiers)
        studied = study_tiers(tiers, split, seed)
        return choose_cascade(tiers, studied, split, 1 - agreement, confidence)
    fast, tokenizer, longest = _prepare(model, tokenizer, split, dtype, max_length)
    found = study(fast, tokenizer, split, max_length=longest, seed=seed)
    choose(fast, found, 1 - agreement, confidence)
    assert fast.search_report is not None
    fast.search_report = replace(fast.search_report, paths={**fast.search_report.paths, **_preset_paths(found)})
    fast.policy.made_for |= run_identity(fast.model, tokenizer, longest)
    return fast


def _prepare(
    model: Any, tokenizer: Any, split: Split, dtype: Dtype | None, max_length: int | None
) -> tuple[EarlyExitTextClassificationModel, Any, int]:
    """A model as it will run, its tokenizer, and how many tokens of a text it will see."""
    model, tokenizer = unwrap(model, tokenizer)
    in_int8 = dtype == "int8" and not is_int8(model)
    fast = EarlyExitTextClassificationModel(model, dtype=None if in_int8 else dtype)
    fast.check_takes_exits()
    tokenizer = tokenizer or load_tokenizer(model)
    longest = length_limit(tokenizer, fast.max_seqlen, max_length)
    if in_int8:
        some = split.texts[: split.ordering_start]  # nothing else looks at these but off-ramps, to learn
        fast = EarlyExitTextClassificationModel(quantize(model, some, tokenizer=tokenizer, max_length=longest))
    return fast, tokenizer, longest


def _tier(given: TierLike, split: Split, dtype: Dtype | None, max_length: int | None) -> Tier:
    """A tier as it will run, on a model of its own; exits that are there are not taken over."""
    if not isinstance(given, tuple | list) or len(given) != 2 or given[1] is None:
        return Tier(given)  # a function, or it says what must hold
    model, tokenizer = given
    fast, tokenizer, longest = _prepare(model, tokenizer, split, dtype, max_length)
    return Tier((fast, tokenizer), longest)


def choose(fast: EarlyExitTextClassificationModel, found: Study, alpha: float, confidence: float) -> None:
    """Give a model the fastest policy that a study certifies, in place of what it has.

    Args:
        fast: the model that was studied.
        found: the study.
        alpha: share of labels that may differ.
        confidence: with which this must hold.
    """
    rows = found.calibration
    ways = ExitCandidates(
        sites=found.sites,
        costs=found.costs,
        ordering=score_exits(found.off_ramps, found.ordering),
        ordering_lengths=found.ordering.lengths,
        calibration=score_exits(found.off_ramps, rows),
        calibration_lengths=rows.lengths,
        labels=found.labels,
        num_classes=fast.policy.num_classes,
    )
    chosen = select(ways, alpha, confidence)
    certificate = chosen.certificate
    off_ramps = [found.off_ramps[place] for place in chosen.places]
    sites = [str(off_ramp.site) for off_ramp in off_ramps]
    answers = ways.calibration.at(chosen.places)
    fast.search_report = SearchReport(
        sites=sites,
        class_names=[str(fast.config.id2label[c]) for c in range(fast.policy.num_classes)],
        seconds_full=certificate.seconds_full,
        paths={"search": chosen.operating_points},
        chosen=np.array([certificate.seconds, certificate.disagreements / certificate.rows]),
        alpha=certificate.alpha,
        exits=answers.exit_of_row(chosen.thresholds),
        lengths=rows.lengths,
        labels=rows.labels,
        predicted=answers.predicted,
        scores=answers.score,
        sample=rows.feature(sites[-1], off_ramps[-1].feature)[:SAMPLE] if sites else np.empty((0, 1), np.float32),
    )
    fast.policy = fast.policy.without_exits()
    fast.policy.certificate = certificate
    for off_ramp, site, thresholds in zip(off_ramps, sites, chosen.thresholds, strict=True):
        fast.add_off_ramp(replace(off_ramp, thresholds=thresholds, bounds=chosen.bounds(site)), site)


def choose_cascade(
    tiers: Sequence[Tier],
    found: CascadeStudy,
    split: Split,
    alpha: float,
    confidence: float,
    groups: Sequence[Sequence[int]] | None = None,
) -> Cascade:
    """The fastest certified cascade of exits, of tiers, or of both.

    Args:
        tiers: aligned, those that were studied; they get thresholds, temperatures and exits.
        found: the study.
        split: its texts.
        alpha: share of labels that may differ.
        confidence: with which this must hold.
        groups: of ways out, see `search`; None: `found.groups()`.
    """
    chosen = select(found.candidates, alpha, confidence, groups or found.groups())
    used, certificate = build_tiers(tiers, found, chosen)
    tune_batch_tokens(used, split.texts[split.ordering_start : split.calibration_start])
    return Cascade.of(used, certificate)


def _preset_paths(found: Study) -> dict[str, NDArray[np.float64]]:
    """What the published methods would do on the calibration rows, for a report."""
    # One layer or two: what is timed is the way to the site and a look at it.
    places = {ramp.site: place for place, ramp in enumerate(found.off_ramps) if ramp.feature == "cls"}
    paths = {}
    for name, preset in all_baselines(found).items():
        answers = score_exits(preset.off_ramps, found.calibration)
        seconds = found.costs.seconds(found.calibration.lengths, [places[ramp.site] for ramp in preset.off_ramps])
        paths[name] = operating_points(preset.leaving(answers), answers, seconds)
    return paths
