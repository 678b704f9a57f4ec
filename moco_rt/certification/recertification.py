"""Recertification: the certificates of a model before and after fresh rows, and the promise that both are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moco_rt.certification.certificate import Certificate, all_but
from moco_rt.certification.promises import Accuracy, Confident, Outcomes, PerClass, Promise
from moco_rt.statistics.bounds import rows_needed
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.statistics.per_class import class_rows_needed


@dataclass(frozen=True)
class Recertification:
    """Certificates of a model, or a cascade, before and after, to be laid side by side.

    Attributes:
        old: from the rows that it was found on.
        new: from the fresh ones.
        old_step: index on the path of the policy in use before; None: it was on no path, as a cascade is.
        new_step: the same of the policy that is in use now.
    """

    old: Certificate
    new: Certificate
    old_step: int | None
    new_step: int | None

    def __str__(self) -> str:
        steps = ["" if step is None else f" (step {step})" for step in (self.old_step, self.new_step)]
        return "\n".join([f"before{steps[0]}:", self.old.table(), f"now{steps[1]}:", self.new.table()])


def promise_of(certificate: Certificate) -> Promise:
    """Return the promise that a certificate makes, to be tested again."""
    if certificate.max_drop is not None:
        return Accuracy(certificate.max_drop, certificate.delta)
    if certificate.alpha is not None:
        return Confident(Guarantee(certificate.alpha, certificate.delta))
    shares = tuple(np.nan if promised.alpha is None else promised.alpha for promised in certificate.classes)
    return PerClass(shares, certificate.delta)


def check_rows(promise: Promise, outcomes: Outcomes, class_names: Sequence[str]) -> None:
    """Refuse fresh rows that are too few to show a promise, however they are answered: it must not become a weaker one.

    Args:
        promise: the promise of before.
        outcomes: those of the fresh rows.
        class_names: the model's.

    Raises:
        ValueError: they are too few.
    """
    if isinstance(promise, Confident):
        rows, needed = outcomes.differs.shape[1], rows_needed(promise.guarantee)
        if rows < needed:
            share = all_but(promise.guarantee.max_disagreement)
            raise ValueError(f"inputs must have at least {needed} distinct rows to show {share} again (got {rows})")
    if isinstance(promise, PerClass):
        assert outcomes.given is not None
        shares = np.array(promise.max_disagreement)
        of_classes = np.bincount(outcomes.given, minlength=len(shares))
        for name, rows, needed in zip(class_names, of_classes, class_rows_needed(shares, promise.delta), strict=True):
            if rows < needed:
                raise ValueError(
                    f"inputs must have at least {needed} distinct rows that the given model calls {name} to show the "
                    f"promise again (got {rows})"
                )
