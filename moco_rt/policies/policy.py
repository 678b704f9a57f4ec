"""Policy: all exits of a model, with the certificate that goes with them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moco_rt.architectures.tasks import SINGLE_LABEL, Task
from moco_rt.certification.certificate import Certificate
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.policies.bag_of_tokens import TOKENS, AnyOffRamp, BagOfTokens
from moco_rt.policies.conditions import Condition, LinearCondition, OffRamp, check_feature, exit_logits


@dataclass(frozen=True, eq=False)
class Exit:
    """Rows at `site` whose `feature` meets `condition` leave with `predicted_class`.

    Attributes:
        site: canonical name, see `moco_rt.architectures.sites`.
        predicted_class: the class that rows leave with; None: the off-ramp's own answer.
        condition: a `LinearCondition`, an `OffRamp`, a `BagOfTokens`, or any callable on features (rows, size) that
            returns a bool mask (rows,).
        feature: `cls`, `mean`, `flat` or `cls+mean`; of a bag of tokens `ids`.
        bound: upper bound on the share of wrong labels among the rows that meet the condition. Measured over all rows;
            behind other exits only harder rows arrive: pass a bound measured on those. For an off-ramp, the highest of
            its bounds.
    """

    site: str
    predicted_class: int | None
    condition: Condition | AnyOffRamp
    feature: str
    bound: float

    @classmethod
    def of(cls, off_ramp: AnyOffRamp, site: str) -> Exit:
        """Build the exit of an off-ramp at a site."""
        return cls(site, None, off_ramp, off_ramp.feature, float(off_ramp.bounds.max()))

    def logits(self, num_classes: int) -> list[float]:
        """Return the logits (C) that all rows leave with by a rule: probability 1 - bound for its class.

        Rows that leave by an off-ramp have its own log-probabilities instead.
        """
        assert self.predicted_class is not None
        return exit_logits(self.predicted_class, self.bound, num_classes)


@dataclass(frozen=True, eq=False)
class CertifiedPath:
    """The whole path of policies that a certificate was looked for along.

    Attributes:
        off_ramps: E off-ramps, in the order of their sites; those that the policy has, and those that no row leaves by
            in the policy that was chosen. Their thresholds are infinite: `policies` has the ones to put in place.
        policies: thresholds, counts and times of all policies.
    """

    off_ramps: Sequence[AnyOffRamp]
    policies: PolicyPath

    def possible_steps(self) -> list[int]:
        """Return the indices of the policies that run the variant which was chosen, in their order."""
        variant = self.policies.variant
        return [int(step) for step in np.flatnonzero(variant == variant[self.policies.chosen])]

    def exits(self, step: int) -> tuple[Exit, ...]:
        """Return the exits of a policy, by its index on the path."""
        thresholds = self.policies.thresholds[step]
        used = [(self.off_ramps[place], thresholds[place]) for place in self.places_used(step)]
        return tuple(Exit.of(replace(ramp, thresholds=levels), str(ramp.site)) for ramp, levels in used)

    def counts(self, step: int) -> list[tuple[int, int]] | None:
        """Return how many calibration rows left by each exit of a policy, and how many wrongly; None: it is not known.

        Args:
            step: the policy's index on the path; its exits are those that `exits` returns.
        """
        fired, wrong = self.policies.fired, self.policies.wrong
        if fired is None or wrong is None:
            return None
        return [(int(fired[step, place]), int(wrong[step, place])) for place in self.places_used(step)]

    def places_used(self, step: int) -> list[int]:
        """Return the places of the off-ramps that a policy uses."""
        return [place for place, levels in enumerate(self.policies.thresholds[step]) if not np.isposinf(levels).all()]


#: Held while a policy is changed; readers take its state, which never changes.
_CHANGING = threading.Lock()


@dataclass(frozen=True, eq=False)
class PolicyState:
    """The exits of a policy at one moment: an object that never changes, and another one after every change.

    Attributes:
        exits: all of them, in the order they were added.
        closed: places in `exits` by which no row leaves any more.
        step: index on the certified path of the policy that these exits are; None: there is no path, or exits were
            added by hand since.
        origin: index on it of the policy that the first of these exits are, though others may stand behind them; None:
            there is no path.
    """

    exits: tuple[Exit, ...] = ()
    closed: frozenset[int] = frozenset()
    step: int | None = None
    origin: int | None = None

    def at(self, site: str) -> list[tuple[int, Exit]]:
        """The open exits of a site with their places in `exits`, in their order: the first that fires wins."""
        return [
            (place, exit) for place, exit in enumerate(self.exits) if exit.site == site and place not in self.closed
        ]


class Policy:
    """The exits of one model, in the order they were added; `exit_rule` numbers are places in `exits`.

    Threads may change it while others read it: a reader that looks twice takes `state` once.

    Attributes:
        sites: names of the model's sites, in their order.
        num_classes: C.
        hidden_size: D.
        task: what "the same answer" means where rows leave.
        state: the exits as they are now.
        certificate: the promise about the exits that were found, all of them together, see `is_certified`; None:
            nothing is promised.
        path: the policies that the certificate was looked for along; None: the exits were added by hand.
        made_for: what the certificate rests on, see `fingerprints.run_identity`.
        is_of_model: False where the model was seen to be another one by now than the certificate is about.
    """

    def __init__(self, sites: tuple[str, ...], num_classes: int, hidden_size: int, task: Task = SINGLE_LABEL):
        self.sites = sites
        self.num_classes = num_classes
        self.hidden_size = hidden_size
        self.task = task
        self.state = PolicyState()
        self.certificate = None
        self.path: CertifiedPath | None = None
        self.made_for: dict[str, Any] = {}
        self.is_of_model = True

    @property
    def certificate(self) -> Certificate | None:
        """The promise about the exits that were found; where there is no path, about those there are when it is set."""
        return self._certificate

    @certificate.setter
    def certificate(self, certificate: Certificate | None) -> None:
        self._certificate, self._certified = certificate, self.state

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits in the order they were added, the closed ones included."""
        return self.state.exits

    @property
    def closed(self) -> frozenset[int]:
        """Places in `exits` by which no row leaves any more; see `close`."""
        return self.state.closed

    @property
    def step(self) -> int | None:
        """Index on the certified path of the policy in use; None: it is not one of the path's."""
        return self.state.step

    @property
    def is_certified(self) -> bool:
        """True where the certificate is about the exits in use: not where some were added or closed by hand since.

        Nor where the model was changed since, or where a step behind the last that was certified is in use; steps
        before it keep the promise as well.
        """
        if self.certificate is None or not self.is_of_model:
            return False
        if self.path is None:
            return self.state.exits == self._certified.exits and self.state.closed == self._certified.closed
        return self.step is not None and self.step <= self.path.policies.certified and not self.closed

    @property
    def has_stepped(self) -> bool:
        """True where a certified step of the path is in use, but not the chosen one, which the certificate counts."""
        return self.is_certified and self.path is not None and self.step != self.path.policies.chosen

    def take_step(self, step: int) -> None:
        """Put another policy of the certified path in place of the exits that there are.

        Args:
            step: its index on the path: lower ones are safer and slower.

        Raises:
            ValueError: there is no path, or the policy there is of another variant of the model, which this is not.
        """
        if self.path is None:
            raise ValueError(f"step must be of a certified path, which the policy has not (got {step})")
        if step not in (possible := self.path.possible_steps()):
            raise ValueError(f"step must be one of {', '.join(map(str, possible))} (got {step})")
        exits = self.path.exits(step)
        with _CHANGING:
            self.state = PolicyState(exits, step=step, origin=step)

    def safer_step(self) -> int | None:
        """Return the step to go back to where the one in use errs too often; None: there is no safer one.

        It is the fastest that changed at most half as many answers of the calibration rows, but fewer, and failing that
        the safest of all: next to a policy of the path stands one that is hardly safer.
        """
        if self.path is None or self.step is None:
            return None
        counts = self.path.policies.disagreements
        now = counts[self.step]
        safer = [step for step in self.path.possible_steps() if step < self.step]
        enough = [step for step in safer if 2 * counts[step] <= now and counts[step] < now]
        return max(enough) if enough else min(safer, default=None)

    def without_exits(self, made_for: dict[str, Any] | None = None) -> Policy:
        """Return a policy of the same model, without exits."""
        policy = Policy(self.sites, self.num_classes, self.hidden_size, self.task)
        policy.made_for = made_for or {}
        return policy

    def add(self, exit: Exit) -> None:
        """Append an exit; raises ValueError where it does not fit the model, and changes nothing then."""
        if exit.site not in self.sites:
            raise ValueError(f"site must be one of {', '.join(self.sites)} (got {exit.site!r})")
        if exit.site == [site for site in self.sites if site != TOKENS][-1]:
            raise ValueError(f"site must have a layer left to save (got {exit.site!r}, the last)")
        if (exit.site == TOKENS) != isinstance(exit.condition, BagOfTokens):
            kind = type(exit.condition).__name__
            raise ValueError(f"a BagOfTokens, and nothing else, must stand at {TOKENS} (got {kind} at {exit.site})")
        if isinstance(exit.condition, AnyOffRamp):
            if exit.condition.num_classes != self.num_classes:
                raise ValueError(
                    f"off-ramp must have the model's {self.num_classes} classes (got {exit.condition.num_classes})"
                )
            if exit.condition.score not in self.task.scores:
                scores = " or ".join(self.task.scores)
                raise ValueError(f"off-ramp must score by {scores} for {self.task} (got {exit.condition.score})")
        elif not self.task.has_labels:
            raise ValueError(f"exit must be an off-ramp for {self.task} (got {type(exit.condition).__name__})")
        elif exit.predicted_class is None or not 0 <= exit.predicted_class < self.num_classes:
            raise ValueError(f"class must be from 0 to {self.num_classes - 1} (got {exit.predicted_class!r})")
        highest = 1 - 1 / self.num_classes if self.task.has_labels else 1
        if not 0 < exit.bound < highest:
            raise ValueError(
                f"bound must be inside (0, {highest:.3g}), or another class would be likelier (got {exit.bound})"
            )
        if not isinstance(exit.condition, BagOfTokens):
            self._check_feature(exit)
        with _CHANGING:
            self.state = replace(self.state, exits=(*self.state.exits, exit), step=None)

    def close(self, places: Iterable[int]) -> None:
        """Let no row leave any more by the exits at these places in `exits`."""
        with _CHANGING:
            self.state = replace(self.state, closed=self.state.closed | frozenset(places))

    def at(self, site: str) -> list[tuple[int, Exit]]:
        """Return what `PolicyState.at` returns of the exits as they are now."""
        return self.state.at(site)

    def _check_feature(self, exit: Exit) -> None:
        check_feature(exit.feature)
        if isinstance(exit.condition, LinearCondition | OffRamp):
            self._check_fit(exit.condition, exit)
        elif not callable(exit.condition):
            raise TypeError(f"condition must be callable (got {type(exit.condition).__name__})")
        elif exit.feature == "flat":
            raise ValueError(
                "feature must be cls or mean for a plain callable: the width of flat depends on the batch (got flat)"
            )

    def _check_fit(self, condition: LinearCondition | OffRamp, exit: Exit) -> None:
        site = exit.site
        if condition.feature != exit.feature:
            raise ValueError(f"feature must be {condition.feature}, the condition's own (got {exit.feature})")
        if condition.site is not None and condition.site != site:
            raise ValueError(f"a rule fitted at {condition.site} must stay at that site (got {site})")
        size, unit = condition.size, self.hidden_size
        times = {"flat": "a multiple of ", "cls+mean": "2 * "}.get(condition.feature, "")
        if size % unit != 0 if condition.feature == "flat" else size != unit * (2 if times else 1):
            raise ValueError(f"weight must have size {times}{unit}, the hidden size at {site} (got {size})")
