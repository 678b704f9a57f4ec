"""The ways out that a cascade's certificate is about, as against those that are in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moco_rt.cascades.monitor import CascadeMonitor
from moco_rt.cascades.tier import Tier
from moco_rt.certification.certificate import Certificate
from moco_rt.policies.policy import PolicyState
from moco_rt.policies.promised import OF_ANOTHER_MODEL


@dataclass(frozen=True, eq=False)
class WaysInUse:
    """The ways out of tiers at one moment.

    Attributes:
        tiers: whose they are.
        states: by tier its policy's; None for a function.
        thresholds: by tier (C,) float32; None for the last.
    """

    tiers: tuple[Tier, ...]
    states: tuple[PolicyState | None, ...]
    thresholds: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, tiers: Sequence[Tier]) -> WaysInUse:
        """Return those of tiers as they are now, whatever becomes of them."""
        policies = [getattr(tier.model, "policy", None) for tier in tiers]
        return cls(
            tuple(tiers),
            tuple(None if policy is None else policy.state for policy in policies),
            tuple(None if tier.thresholds is None else tier.thresholds.clone() for tier in tiers),
        )

    def same_as(self, other: WaysInUse) -> bool:
        """Return whether rows leave the same models by the same exits, at the same thresholds."""
        return (
            len(self.tiers) == len(other.tiers)
            and all(map(_same_scores, self.tiers, other.tiers))
            and all(map(_same_exits, self.states, other.states))
            and all(map(_same_thresholds, self.thresholds, other.thresholds))
        )


class WithPromise:
    """A cascade's certificate, which is about the ways out there are when it is set.

    A row that finds a way out closed may take a later one, which nobody has counted it at: that nothing but closing has
    happened does not keep the promise.
    """

    tiers: list[Tier]
    watched_by: CascadeMonitor | None
    _certificate: Certificate | None
    _certified: WaysInUse | None

    @property
    def certificate(self) -> Certificate | None:
        """The promise about all tiers together, see `is_certified`; None: nothing is promised."""
        return self._certificate

    @certificate.setter
    def certificate(self, certificate: Certificate | None) -> None:
        self.certify(certificate, self.tiers)

    def certify(self, certificate: Certificate | None, tiers: Sequence[Tier]) -> None:
        """Take a certificate about the ways out of these tiers: others may be in use by now."""
        self._certificate, self._certified = certificate, WaysInUse.of(tiers)
        if self.watched_by is not None and certificate is not None:
            self.watched_by.begin(certificate, self.is_certified)

    @property
    def is_certified(self) -> bool:
        """True where the certificate is about what runs: no tier was replaced or changed, no exit added or closed."""
        known = self._certified
        if self.certificate is None or known is None or not self._are_of_models:
            return False
        return known.same_as(WaysInUse.of(self.tiers))

    @property
    def _are_of_models(self) -> bool:
        """True where no tier's model was seen to be another one by now than its exits were found for."""
        policies = (getattr(tier.model, "policy", None) for tier in self.tiers)
        return all(policy is None or policy.is_of_model for policy in policies)

    def promised(self) -> str:
        """Return what is promised of the ways out in use, and what was counted of them, as aligned text."""
        if self.certificate is None:
            return "no certificate"
        if self.is_certified:
            return self.certificate.table()
        if not self._are_of_models:
            return f"{OF_ANOTHER_MODEL}\n{self.certificate.table()}"
        said = "other ways out are in use than were certified: nothing is promised of them, but of these:"
        return f"{said}\n{self.certificate.table()}"


def seems_certified(tiers: Sequence[Tier], certificate: Certificate | None) -> bool:
    """Return whether no way out that a certificate counts is closed: files of earlier versions do not say more."""
    counted = set() if certificate is None else {count.site for count in certificate.exits}
    ways = WaysInUse.of(tiers)
    for number, (state, thresholds) in enumerate(zip(ways.states, ways.thresholds, strict=True)):
        shut = thresholds is not None and bool(torch.isposinf(thresholds).all())
        if (state is not None and state.closed) or (shut and f"tier {number} end" in counted):
            return False
    return True


def _same_scores(one: Tier, other: Tier) -> bool:
    """Return whether two tiers give a text the same scores: exits and thresholds apart."""
    weights, others = (getattr(tier.model, "model", tier.model) for tier in (one, other))  # copies share them
    same_model = weights is others and one.tokenizer is other.tokenizer
    return same_model and (one.max_length, one.temperature) == (other.max_length, other.temperature)


def _same_exits(one: PolicyState | None, other: PolicyState | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.exits == other.exits and one.closed == other.closed


def _same_thresholds(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
