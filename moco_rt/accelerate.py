"""One call from a model and some texts to the fastest policy that can be certified."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moco_rt.architectures import check_settles_one_label, load_tokenizer
from moco_rt.batches import Text, encode, length_limit
from moco_rt.calibrate import rows_needed
from moco_rt.certificate import Certificate, certified, count_exits
from moco_rt.costs import Costs, measure_costs
from moco_rt.distill import distill
from moco_rt.exits import compile_off_ramp
from moco_rt.record import Recording, record
from moco_rt.rules import OffRamp
from moco_rt.search import Answers, find_path
from moco_rt.sites import EMBEDDINGS, output_site
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

#: Of texts that are given for everything: the shares that off-ramps learn from and that order the path.
_FIT, _PATH = 0.5, 0.15
#: Of texts that the certificate does not rest on.
_FIT_OF_OTHERS = 0.8
_HIDDEN = 64
#: Rows that speak for the lengths when costs are measured.
_COST_ROWS = 2000

_log = logging.getLogger(__name__)


def accelerate(
    model: Any,
    texts: Sequence[Text],
    *,
    tokenizer: Any = None,
    agreement: float = 0.99,
    confidence: float = 0.95,
    dtype: torch.dtype | None = None,
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
        dtype: compute in this dtype; None: the model's.
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
        TypeError: model is not a sequence classifier.
        ValueError: it does not choose one label of at least two, the texts are too few, or a share is not inside (0, 1).
    """
    for name, share in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be inside (0, 1) (got {share})")
    check_settles_one_label(model.config)
    fast = EarlyExitTextClassificationModel(model, dtype=dtype)
    tokenizer = tokenizer or load_tokenizer(model)
    longest = length_limit(tokenizer, fast.max_seqlen, max_length)
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = [texts[i] for i in order]
    if calibration is None:
        fit, path = int(_FIT * len(texts)), int((_FIT + _PATH) * len(texts))
        if labels is not None:
            labels = [labels[i] for i in order[path:]]
    else:
        fit, path = int(_FIT_OF_OTHERS * len(texts)), len(texts)
        shuffled += list(calibration)
    if min(fit, path - fit, len(shuffled) - path) < 50:
        raise ValueError(f"texts must be at least some hundred (got {len(texts)})")

    rows = encode(tokenizer, shuffled, longest)
    sites = candidate_sites(fast)
    recorded = record(fast, rows, sites)
    off_ramps = _fit(recorded.take(slice(0, fit)), sites, seed)
    path_rows, calibration_rows = recorded.take(slice(fit, path)), recorded.take(slice(path, None))
    costs = measure_costs(fast, rows[path : path + _COST_ROWS], sites, off_ramps[0])
    alpha = _what_can_be_certified(1 - agreement, confidence, len(calibration_rows.lengths))
    chosen, found = search(ask(off_ramps, path_rows), costs, path_rows.lengths, alpha)

    kept = [off_ramps[place] for place in chosen]
    answers = ask(kept, calibration_rows)
    place = certified([answers.leaves(thresholds) for thresholds in found], answers, alpha, confidence)
    thresholds = found[max(place, 0)]
    if np.isposinf(thresholds).all():
        _log.warning("no exits: none could be certified for %.2f%% agreement and paid for itself", 100 * (1 - alpha))
    seconds = costs.of(calibration_rows.lengths, chosen)
    exits = answers.leaves(thresholds)
    counts = count_exits(answers, thresholds, [ramp.site for ramp in kept], confidence)
    fast.policy.certificate = Certificate(
        alpha=alpha,
        delta=1 - confidence,
        rows=len(exits),
        disagreements=int(answers.wrong(exits).sum()),
        seconds_full=float(costs.of(calibration_rows.lengths, []).mean()),
        seconds=float(seconds[np.arange(len(exits)), exits].mean()),
        exits=counts,
    )
    for place, ramp in enumerate(kept):
        bounds = np.full(fast.policy.num_classes, 0.99 * (1 - 1 / fast.policy.num_classes), np.float32)
        for count in counts:
            if count.site == ramp.site:
                bounds[count.predicted_class] = min(bounds[count.predicted_class], count.upper_bound)
        if not np.isposinf(thresholds[place]).all():
            fast.add_off_ramp(replace(ramp, thresholds=thresholds[place], bounds=bounds), ramp.site)
    return fast


def candidate_sites(model: EarlyExitTextClassificationModel) -> list[str]:
    """Where off-ramps are tried: the embeddings, and the peek over every layer but the last, which decides itself."""
    layers = len(model.sites) // 2
    return [EMBEDDINGS, *(output_site(layer) for layer in range(layers - 1))]


def _fit(rows: Recording, sites: Sequence[str], seed: int) -> list[OffRamp]:
    """An off-ramp for each site; nobody leaves by them yet."""
    shifted = np.exp(rows.logits - rows.logits.max(axis=1, keepdims=True))
    probs = shifted / shifted.sum(axis=1, keepdims=True)
    never = np.full(probs.shape[1], np.inf, np.float32)
    unknown = np.full(probs.shape[1], 0.5, np.float32)
    return [
        OffRamp(distill(rows.features[site], probs, hidden=_HIDDEN, seed=seed), never, unknown, site=site)
        for site in tqdm(sites, desc="off-ramps", delay=2, leave=False)
    ]


def ask(off_ramps: Sequence[OffRamp], rows: Recording) -> Answers:
    """What the off-ramps say of recorded rows, scored by the code that will score them later."""
    both = [
        compile_off_ramp(ramp, torch.device("cpu")).score(torch.from_numpy(rows.features[ramp.site])).numpy()
        for ramp in off_ramps
    ]
    scores = np.array(both).reshape(len(both), 2, len(rows.lengths))
    return Answers(scores[:, 1].astype(np.int64), scores[:, 0], rows.labels)


def search(
    answers: Answers, costs: Costs, lengths: NDArray[np.int64], alpha: float
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The sites whose exits pay, and the path of policies over them.

    Sites are dropped one by one as long as the time at a disagreement of alpha on the path's own rows falls: every
    site that is asked costs every row that reaches it.
    """
    sites = list(range(len(answers.score)))
    num_classes = int(max(answers.label.max(), answers.predicted.max())) + 1
    best, path = _time_along(answers, costs, lengths, alpha, sites, num_classes)
    while len(sites) > 1:
        without = [[site for site in sites if site != left_out] for left_out in sites]
        tried = [_time_along(answers, costs, lengths, alpha, fewer, num_classes) for fewer in without]
        fastest = min(range(len(tried)), key=lambda i: tried[i][0])
        if tried[fastest][0] > best:
            break
        best, path = tried[fastest]
        sites = without[fastest]
    return sites, path


def _time_along(
    answers: Answers, costs: Costs, lengths: NDArray[np.int64], alpha: float, sites: list[int], num_classes: int
) -> tuple[float, list[NDArray[np.float32]]]:
    """Time of a row where the path over some sites reaches alpha, and the path."""
    some = answers.at(sites)
    seconds = costs.of(lengths, sites)
    path = find_path(some, seconds, num_classes)
    time = math.inf
    for thresholds in path:
        exits = some.leaves(thresholds)
        if some.wrong(exits).mean() > alpha:
            break
        time = float(seconds[np.arange(len(exits)), exits].mean())
    return time, path


def _what_can_be_certified(alpha: float, confidence: float, rows: int) -> float:
    """alpha, or the least that so many rows can show: 1 - (1 - confidence)^(1 / rows)."""
    needed = rows_needed(alpha, confidence)
    if rows >= needed:
        return alpha
    least = 1 - (1 - confidence) ** (1 / rows)
    _log.warning(
        "%d calibration rows cannot certify an agreement of %.2f%%: that needs %d at least; certifying %.2f%%",
        rows,
        100 * (1 - alpha),
        needed,
        100 * (1 - least),
    )
    return float(np.nextafter(least, 1))
