"""Recertify a cascade: fresh rows, no search: whether the cascade as it is keeps its promise on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.comparison import frozen, parts_in_full
from moco_rt.cascades.monitor import ways_out
from moco_rt.cascades.prediction import predict_parts
from moco_rt.certification.certificate import ExitCount
from moco_rt.certification.promises import Outcomes
from moco_rt.certification.recertification import Recertification, check_rows, promise_of
from moco_rt.inputs.class_numbers import class_numbers
from moco_rt.inputs.texts import Texts, list_texts
from moco_rt.policies.fingerprints import check_made_for, model_identity
from moco_rt.runtime.outputs import Prediction
from moco_rt.runtime.prediction import join_parts
from moco_rt.statistics.bounds import upper_bound
from moco_rt.studies.splits import first_of_equals, without_copies
from moco_rt.tuning.cascade_study import other_tokens


def recertify_cascade(
    cascade: Cascade, inputs: Texts, labels: Any, columns: str | Sequence[str] | None
) -> Recertification:
    """Certify a cascade again on fresh rows, by the promise that it was found for.

    A cascade is one policy: it keeps its promise on these rows, or it does not. Expected seconds are those of the
    search; where other ways out are in use than it found they are by the time that these rows took. For arguments see
    `recertify`.

    Raises:
        ValueError: the cascade has no certificate; models of its tiers were changed since; there are no inputs, or they
            do not certify it; labels are missing or do not fit. The cascade is then as it was.
    """
    old = cascade.certificate
    if old is None:
        raise ValueError("cascade must have a certificate, which accelerate finds (it has none)")
    for tier in cascade.tiers:
        if tier.tokenizer is not None:
            check_made_for(tier.model.policy.made_for, model_identity(tier.model.model), "the policy")
    if old.max_drop is not None and labels is None:
        raise ValueError("labels must be given: the promise is about accuracy (got None)")
    last = cascade.tiers[-1]
    names = last.class_names or ()
    texts = list_texts(inputs, columns)
    numbers = None if labels is None else class_numbers(labels, names)
    unit, *others = (first_of_equals(tier.encode(texts)) for tier in (last, *other_tokens(cascade.tiers)))
    places, in_all = without_copies(unit, numbers, others)
    rows = [texts[place] for place in places]
    now = frozen(cascade)  # a monitor may close ways out meanwhile
    start = perf_counter()
    given = join_parts(parts_in_full(cascade, iter(rows)))
    halfway = perf_counter()
    ours = join_parts(predict_parts(now, iter(rows)))
    faster = (halfway - start) / (perf_counter() - halfway)
    assert given.labels is not None
    assert ours.labels is not None
    truth, found = given.labels.numpy(), ours.labels.numpy()
    differs = truth != found
    outcomes = Outcomes(differs[None], truth, None if numbers is None else in_all.drop(truth, found)[None])
    promise = promise_of(old)
    check_rows(promise, outcomes, names)
    if promise.last(outcomes) < 0:
        raise ValueError(
            f"inputs must certify the cascade: {int(differs.sum())} of {len(rows)} distinct rows differ (use the model "
            "as it was given, cascade.given)"
        )
    new = replace(
        old,
        **promise.stated(outcomes, 0),
        rows=len(rows),
        disagreements=int(differs.sum()),
        seconds=old.seconds if now.is_certified else old.seconds_full / faster,
        exits=_counts(now, ours, differs, promise.delta),
        accuracy_full=in_all.accuracy(truth),
        accuracy=in_all.accuracy(found),
        rows_in_all=len(in_all.distinct),
        disagreement_in_all=in_all.share(differs),
    )
    cascade.certify(new, now.tiers)
    cascade.search_report = None  # it is about the rows of before
    return Recertification(old, new, None, None)


def _counts(cascade: Cascade, found: Prediction, differs: NDArray[np.bool_], delta: float) -> tuple[ExitCount, ...]:
    """Count rows that left, and rows that left wrongly, by way out and class, as `count_exits` does."""
    assert found.labels is not None
    ways, classes = ways_out(cascade.tiers), cascade.config.num_labels
    tier, exit_rule, labels = (column.numpy() for column in (found.tier, found.exit_rule, found.labels))
    counted = []
    for way in ways:
        for c in range(classes):
            left = (tier == way.tier) & (exit_rule == way.place) & (labels == c)
            if left.any():
                counted.append((way.site(cascade.tiers), c, int(left.sum()), int(differs[left].sum())))
    each = 1 - delta / max(1, len(ways) * classes)
    return tuple(ExitCount(*count, upper_bound(count[3], count[2], each)) for count in counted)
