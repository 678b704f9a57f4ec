"""One call from a model and some texts to the fastest policy that can be certified."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.answers import certified, count_exits
from moco_rt.architectures import check_settles_one_label, load_tokenizer
from moco_rt.architectures.int8 import is_int8
from moco_rt.batches import Text, length_limit
from moco_rt.calibrate import allowed_errors, rows_needed
from moco_rt.certificate import Certificate
from moco_rt.findings import SAMPLE, Findings, trace
from moco_rt.int8_models import Dtype
from moco_rt.policy_files import made_for, tokenizer_fingerprint
from moco_rt.presets import all_presets
from moco_rt.quantization import quantize
from moco_rt.search import search
from moco_rt.study import Study, ask, fit_texts, study
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

_log = logging.getLogger(__name__)


def accelerate(
    model: Any,
    texts: Sequence[Text],
    *,
    tokenizer: Any = None,
    agreement: float = 0.99,
    confidence: float = 0.95,
    dtype: Dtype | None = None,
    seed: int = 0,
    calibration: Sequence[Text] | None = None,
    labels: Sequence[int] | None = None,
    max_length: int | None = None,
) -> EarlyExitTextClassificationModel:
    """The fastest policy of exits whose disagreement with the full model is certified.

    Off-ramps learn the model's own probabilities at every layer; a search orders policies from "nobody leaves" to the
    fastest by the time they save on this machine for each label that changes; on rows that neither has seen, Learn-
    then-Test with fixed-sequence testing (arXiv:2110.01052) picks the last one that holds. The model is not changed.

    Args:
        model: a Hugging Face `...ForSequenceClassification`.
        texts: texts, or pairs, like those it will meet; labels are not needed. Texts that the model was fine-tuned on
            would make it look surer than it is: certify on others, see `calibration`.
        tokenizer: the model's; None: loaded from where the model came from.
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
        The model with its policy; `.policy.certificate` says what is promised. With too few rows for the agreement that
        was asked for it promises what they can show, and says in the log how many are needed; where no exit pays, or
        none can be certified, it has none, and says so.

    Raises:
        TypeError: model is not a sequence classifier, or texts is a single text.
        ValueError: it does not choose one label of at least two, the texts are too few, or a share is not inside
            (0, 1).
    """
    for name, share in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be inside (0, 1) (got {share})")
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of texts (got one str)")
    in_int8 = dtype == "int8" and not is_int8(model)
    fast = EarlyExitTextClassificationModel(model, dtype=None if in_int8 else dtype)
    check_settles_one_label(fast.config)
    tokenizer = tokenizer or load_tokenizer(model)
    longest = length_limit(tokenizer, fast.max_seqlen, max_length)
    if in_int8:
        some = fit_texts(texts, calibration, seed)
        fast = EarlyExitTextClassificationModel(quantize(model, some, tokenizer=tokenizer, max_length=longest))
    found = study(fast, tokenizer, texts, calibration=calibration, labels=labels, max_length=longest, seed=seed)
    choose(fast, found, 1 - agreement, confidence)
    assert fast.findings is not None
    fast.findings = replace(fast.findings, paths={**fast.findings.paths, **_preset_paths(found)})
    fast.policy.made_for |= {
        **made_for(fast.model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "max_length": longest,
    }
    return fast


def choose(fast: EarlyExitTextClassificationModel, found: Study, alpha: float, confidence: float) -> None:
    """Give a model the fastest policy that a study certifies, in place of what it has.

    Args:
        fast: the model that was studied.
        found: the study.
        alpha: share of labels that may differ.
        confidence: with which this must hold.
    """
    rows = found.calibration
    alpha = _what_can_be_certified(alpha, confidence, len(rows.lengths))
    chosen, path = search(
        ask(found.off_ramps, found.path),
        found.sites,
        found.costs,
        found.path.lengths,
        allowed_errors(len(rows.lengths), alpha, confidence) / len(rows.lengths),
        fast.policy.num_classes,
    )
    answers = ask([found.off_ramps[place] for place in chosen], rows)
    traced = trace(map(answers.leaves, path), answers, found.costs.of(rows.lengths, chosen))
    last = max(0, certified(map(answers.leaves, path), answers, alpha, confidence))
    thresholds = path[int(traced[: last + 1, 0].argmin())]
    used = np.flatnonzero(~np.isposinf(thresholds).all(axis=1))  # nobody leaves by the others: they are not asked
    _take(fast, found, [chosen[place] for place in used], thresholds[used], alpha, confidence)
    assert fast.findings is not None
    fast.findings = replace(fast.findings, paths={"search": traced})


def _take(
    fast: EarlyExitTextClassificationModel,
    found: Study,
    chosen: Sequence[int],
    thresholds: NDArray[np.float32],
    alpha: float,
    confidence: float,
) -> None:
    """Give a model the off-ramps at some places with thresholds (chosen, C); none, where they save no time."""
    rows = found.calibration
    off_ramps = [found.off_ramps[place] for place in chosen]
    sites = [found.sites[place] for place in chosen]
    answers = ask(off_ramps, rows)
    exits = answers.leaves(thresholds)
    seconds = float(found.costs.of(rows.lengths, chosen)[np.arange(len(exits)), exits].mean())
    seconds_full = float(found.costs.of(rows.lengths, []).mean())
    if chosen and seconds >= seconds_full:
        _take(fast, found, [], thresholds[:0], alpha, confidence)
        return
    if not chosen:
        _log.warning("no exits: none was certified for an agreement of %.2f%% and saved time", 100 * (1 - alpha))
    wrong = answers.wrong(exits)
    predicted = np.vstack([answers.predicted, rows.labels])[exits, np.arange(len(exits))]
    certificate = Certificate(
        alpha=alpha,
        delta=1 - confidence,
        rows=len(exits),
        disagreements=int(wrong.sum()),
        seconds_full=seconds_full,
        seconds=seconds,
        exits=count_exits(answers, thresholds, sites, confidence),
        accuracy_full=None if found.labels is None else float((rows.labels == found.labels).mean()),
        accuracy=None if found.labels is None else float((predicted == found.labels).mean()),
    )
    fast.findings = Findings(
        sites=sites,
        class_names=[str(fast.config.id2label[c]) for c in range(fast.policy.num_classes)],
        seconds_full=seconds_full,
        paths={},
        chosen=np.array([seconds, wrong.mean()]),
        alpha=alpha,
        exits=exits,
        lengths=rows.lengths,
        labels=rows.labels,
        predicted=answers.predicted,
        scores=answers.score,
        sample=rows.feature(sites[-1], off_ramps[-1].feature)[:SAMPLE] if sites else np.empty((0, 1), np.float32),
    )
    fast.policy = fast.policy.empty()
    fast.policy.certificate = certificate
    for off_ramp, site, leaves_above in zip(off_ramps, sites, thresholds, strict=True):
        bounds = np.full(len(leaves_above), 0.99 * (1 - 1 / len(leaves_above)), np.float32)
        for count in certificate.exits:
            if count.site == site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        fast.add_off_ramp(replace(off_ramp, thresholds=leaves_above, bounds=bounds), site)


def _preset_paths(found: Study) -> dict[str, NDArray[np.float64]]:
    """What the published methods would do on the calibration rows, for a report."""
    # One layer or two: what is timed is the way to the site and a look at it.
    places = {ramp.site: place for place, ramp in enumerate(found.off_ramps) if ramp.feature == "cls"}
    paths = {}
    for name, preset in all_presets(found).items():
        answers = ask(preset.off_ramps, found.calibration)
        seconds = found.costs.of(found.calibration.lengths, [places[ramp.site] for ramp in preset.off_ramps])
        paths[name] = trace(preset.leaving(answers), answers, seconds)
    return paths


def _what_can_be_certified(alpha: float, confidence: float, rows: int) -> float:
    """Alpha, or the least that so many rows can show: 1 - (1 - confidence)^(1 / rows)."""
    needed = rows_needed(alpha, confidence)
    if rows >= needed:
        return alpha
    least = float((1 - (1 - confidence) ** (1 / rows)) * (1 + 1e-9))  # whatever rounding says
    _log.warning(
        "%d calibration rows cannot certify an agreement of %.2f%%: that needs %d at least; certifying %.2f%%",
        rows,
        100 * (1 - alpha),
        needed,
        100 * (1 - least),
    )
    return least
