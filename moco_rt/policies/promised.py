"""The promise about the exits in use: as text, and by exit as the share of wrong rows that a monitor holds it to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from moco_rt.certification.certificate import Certificate
from moco_rt.policies.policy import CertifiedPath, Exit, Policy, PolicyState
from moco_rt.statistics.bounds import upper_bound

#: What stands above a certificate that is not about the model any more.
OF_ANOTHER_MODEL = "the model was changed since it was certified: nothing is promised of it, but of what it was:"


def describe_promise(policy: Policy) -> str:
    """Return what is promised of the exits in use, and what was counted of them, as aligned text.

    The certificate's table is about the chosen step: of another certified one the path knows the errors and the time.
    """
    certificate, path, step = policy.certificate, policy.path, policy.step
    if certificate is None:
        return "no certificate"
    if not policy.is_of_model:
        return f"{OF_ANOTHER_MODEL}\n{certificate.table()}"
    if not policy.is_certified:
        said = "other exits are in use than were certified: nothing is promised of them, but of these:"
        return f"{said}\n{certificate.table()}"
    if path is None or step is None or not policy.has_stepped:
        return certificate.table()
    policies = path.policies
    in_use = replace(certificate, seconds=float(policies.seconds[step]))
    lines = [
        f"step {step} of the path is in use, which keeps what is promised of step {policies.chosen}, the chosen one:",
        certificate.sentence(),
        f"by step {step}: {policies.disagreements[step]} of {policies.rows:,} distinct calibration rows differ",
        in_use.expected(),
    ]
    return "\n".join(lines)


def identity_of(certificate: Certificate | None, path: CertifiedPath | None = None) -> str:
    """Return a hash of a promise, and of the path that it was looked for along: evidence is about these."""
    policies = None if path is None else path.policies
    ends = None if policies is None else [policies.certified, policies.chosen]
    said = [None if certificate is None else asdict(certificate), ends]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if policies is not None:
        digest.update(np.ascontiguousarray(policies.thresholds).tobytes())
    return digest.hexdigest()


def promised_error_rates(policy: Policy) -> list[float]:
    """Return the error rate that each exit promises: from what calibration rows counted, else the exit's own bound."""
    certificate, state = policy.certificate, policy.state
    if certificate is None:
        return [exit.bound for exit in state.exits]
    each = 1 - certificate.delta / max(1, len(state.exits))
    counts = _counts(policy, state, certificate)
    return [
        upper_bound(wrong, fired, each) if fired else exit.bound
        for exit, (fired, wrong) in zip(state.exits, counts, strict=True)
    ]


def _counts(policy: Policy, state: PolicyState, certificate: Certificate) -> list[tuple[int, int]]:
    """Return by exit how many calibration rows left, and how many wrongly, under the step in use where that is known.

    Files of earlier versions know it of the chosen step alone. Of exits that were added by hand nothing was counted.
    """
    path = policy.path
    of_step = None if path is None or state.origin is None else path.counts(state.origin)
    counts = [(0, 0)] * len(state.exits)
    if of_step is not None:
        return [*of_step, *counts[len(of_step) :]]
    for place in certified_places(state.exits, policy.is_certified):
        counted = [count for count in certificate.exits if count.site == state.exits[place].site]
        counts[place] = sum(count.fired for count in counted), sum(count.wrong for count in counted)
    return counts


def certified_places(exits: Sequence[Exit], is_certified: bool) -> list[int]:
    """Return the places of the exits that a certificate speaks of.

    Args:
        exits: all of a model.
        is_certified: whether they are as they were certified; else some were added or closed by hand since. A search
            takes at most one off-ramp a site, and what is added by hand stands behind it.
    """
    if is_certified:
        return list(range(len(exits)))
    first: dict[str, int] = {}
    for place, exit in enumerate(exits):
        if exit.predicted_class is None:
            first.setdefault(exit.site, place)
    return list(first.values())
