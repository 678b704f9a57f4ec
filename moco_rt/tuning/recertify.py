"""Recertify: fresh rows, no search: how far along its certified path a saved model keeps its promise on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moco_rt.architectures import IMAGES
from moco_rt.cascades.cascade import Cascade
from moco_rt.certification.exit_scores import ExitScores, count_exits, count_ways_out, join_rows
from moco_rt.certification.policy_path import NOT_TESTED
from moco_rt.certification.promises import Outcomes
from moco_rt.certification.recertification import Recertification, check_rows, promise_of
from moco_rt.certification.selection import RowsInAll
from moco_rt.inputs.batching import by_lengths
from moco_rt.inputs.class_numbers import class_numbers
from moco_rt.inputs.images import check_column, first_of_equal_images, list_images
from moco_rt.inputs.texts import Texts, list_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import check_image_processor, check_made_for, check_tokenizer, model_identity
from moco_rt.policies.policy import CertifiedPath
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.comparison import PathScorer
from moco_rt.studies.splits import first_of_equals, without_copies
from moco_rt.tuning.recertify_cascade import recertify_cascade
from moco_rt.tuning.search_report import describe_fresh_rows


def recertify(
    model: EarlyExitClassifier | Cascade,
    inputs: Texts,
    *,
    labels: Any = None,
    columns: str | Sequence[str] | None = None,
) -> Recertification:
    """Certify a model again on fresh rows, by the promise that it was found for, and take the fastest policy they show.

    Nothing is searched or fitted: the policies of the path that run the model's form are tested from the safe end
    (fixed-sequence testing, arXiv:2110.01052), so that the rows are used once, as calibration rows are. Use it where
    texts have drifted, or on another machine. Expected seconds are those of the search. A cascade has no path: it is
    certified as it is, or refused.

    Args:
        model: what `accelerate` returned or `from_pretrained` loaded; its policy, with the counts along its path, its
            certificate and its search report are changed; a cascade has no report from then on.
        inputs: rows that neither the search nor the fine-tuning has seen, as for `accelerate`; equal ones are one unit.
        labels: true classes; with the promise "accuracy" they are needed.
        columns: see `accelerate`.

    Raises:
        TypeError: inputs are of another kind.
        ValueError: the model has no certified path, or the cascade no certificate; weights or settings were changed
            since; there are no inputs, or they certify no policy of its form; labels are missing or do not fit. The
            model is then as it was.
    """
    if isinstance(model, Cascade):
        return recertify_cascade(model, inputs, labels, columns)
    policy, path = model.policy, model.policy.path
    if path is None or policy.certificate is None:
        raise ValueError("model must have a certified path, which accelerate finds (it has none)")
    check_made_for(policy.made_for, model_identity(model.model), "the policy")
    if labels is not None and not policy.task.has_labels:
        raise ValueError(f"labels must be None for {policy.task} (got labels)")
    promise = promise_of(policy.certificate)
    if policy.certificate.max_drop is not None and labels is None:
        raise ValueError("labels must be given: the promise is about accuracy (got None)")
    rows, in_all = _rows(model, inputs, labels, columns)
    scores = _score(model, path, rows)
    steps = path.possible_steps()
    exits = [scores.exit_of_row(path.policies.thresholds[step]) for step in steps]
    differs = np.array([scores.disagrees(of_step) for of_step in exits])
    answers = [scores.label_of_row(of_step) for of_step in exits]
    drop = None if in_all.labels is None else np.array([in_all.drop(scores.given, of_step) for of_step in answers])
    outcomes = Outcomes(differs, scores.given, drop)
    check_rows(promise, outcomes, model.class_names)
    last = promise.last(outcomes)
    if last < 0:
        raise ValueError(
            f"inputs must certify a policy of the path: under the safest of this form {int(differs[0].sum())} of "
            f"{len(rows)} distinct rows differ (use the model as it was given, model.given)"
        )
    seconds = path.policies.seconds[steps]
    taken = int(seconds[: last + 1].argmin())
    new = replace(
        policy.certificate,
        **promise.stated(outcomes, taken),
        rows=len(rows),
        disagreements=int(differs[taken].sum()),
        seconds=float(seconds[taken]),
        exits=_counts(scores, path, steps[taken], promise.delta),
        accuracy_full=in_all.accuracy(scores.given),
        accuracy=in_all.accuracy(answers[taken]),
        rows_in_all=len(in_all.distinct),
        disagreement_in_all=in_all.share(differs[taken]),
    )
    found = Recertification(policy.certificate, new, policy.step, steps[taken])
    policy.path = _tested(path, scores, exits, differs, (steps[last], steps[taken]))
    lengths = model.lengths_of(rows)
    model.search_report = describe_fresh_rows(policy.path, new, scores, lengths, model.class_names)
    policy.take_step(steps[taken])
    policy.certificate = new
    return found


def _tested(
    path: CertifiedPath,
    scores: ExitScores,
    exits: Sequence[NDArray[np.int64]],
    differs: NDArray[np.bool_],
    certified_and_chosen: tuple[int, int],
) -> CertifiedPath:
    """Return a path with the counts of fresh rows in place of those it had.

    Args:
        path: the path.
        scores: those of the n rows by all exits of the path.
        exits: by possible step the exit of each row, (n,).
        differs: (steps, n) whether its answer is another than the given model's.
        certified_and_chosen: indices on the path of the last policy that is certified, and of the one that is taken.
    """
    old, steps = path.policies, path.possible_steps()
    disagreements = np.full(len(old.seconds), NOT_TESTED)
    disagreements[0] = 0  # the path begins with the given model without exits, whatever the rows
    disagreements[steps] = differs.sum(axis=1)
    count = len(path.off_ramps)
    fired, wrong = np.zeros((2, len(old.seconds), count), np.int64)
    for step, of_step, wrongly in zip(steps, exits, differs, strict=True):
        fired[step], wrong[step] = count_ways_out(of_step, wrongly, range(count), count)
    certified, chosen = certified_and_chosen
    policies = replace(
        old,
        disagreements=disagreements,
        rows=scores.rows,
        certified=certified,
        chosen=chosen,
        fired=fired,
        wrong=wrong,
    )
    return replace(path, policies=policies)


def _rows(
    model: EarlyExitClassifier, inputs: Texts, labels: Any, columns: str | Sequence[str] | None
) -> tuple[Sequence[Any], RowsInAll]:
    """Return the distinct rows as the model takes them, and all of them with their true classes."""
    rows: Sequence[Any]
    if model.takes == IMAGES:
        if model.image_processor is None:
            raise ValueError("image_processor must be set on the model (got None)")
        check_image_processor(model.policy.made_for, model.image_processor)
        rows = list_images(inputs, check_column(columns))
        first = first_of_equal_images(rows, model.config.num_channels)
    else:
        tokenizer, made_for = model.tokenizer, model.policy.made_for
        if tokenizer is None:
            raise ValueError("tokenizer must be set on the model (got None)")
        check_tokenizer(made_for, tokenizer)
        limit = length_limit(tokenizer, model.max_seqlen, made_for.get("max_length"))
        rows = encode(tokenizer, list_texts(inputs, columns), limit)
        first = first_of_equals(rows)
    places, in_all = without_copies(first, None if labels is None else class_numbers(labels, model.class_names))
    return [rows[int(place)] for place in places], in_all


def _score(model: EarlyExitClassifier, path: CertifiedPath, rows: Sequence[Any]) -> ExitScores:
    """Score rows by all off-ramps of the path, and compare with the model as it was given."""
    scorer = PathScorer(model, path)
    scores, order = [], []
    with tqdm(total=len(rows), unit="row", desc="recertify", delay=2, leave=False) as progress:
        for places in by_lengths(model.lengths_of(rows)):
            scores.append(scorer.score(model.batch_of([rows[place] for place in places]))[1])
            order.append(places)
            progress.update(len(places))
    return join_rows(scores, np.concatenate(order))


def _counts(scores: ExitScores, path: CertifiedPath, step: int, delta: float) -> Any:
    thresholds: NDArray[np.float32] = path.policies.thresholds[step]
    used = [place for place, levels in enumerate(thresholds) if not np.isposinf(levels).all()]
    sites = [str(path.off_ramps[place].site) for place in used]
    return count_exits(scores.at(used), thresholds[used], sites, delta)
