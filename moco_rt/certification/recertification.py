"""Recertification: the certificates of a model before and after fresh rows, and the promise that both are about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moco_rt.certification.certificate import Certificate
from moco_rt.certification.promises import Accuracy, Confident, PerClass, Promise
from moco_rt.statistics.guarantee import Guarantee


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
