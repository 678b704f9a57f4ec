"""CascadeMonitor: runs some of the rows that were answered early through the last tier too, and closes what errs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.architectures import SINGLE_LABEL
from moco_rt.cascades.tier import Tier, TierOutput
from moco_rt.certification.certificate import Certificate
from moco_rt.policies.monitor import Alarm, WithLock, check_rates, drawing_by
from moco_rt.policies.promised import certified_places, identity_of
from moco_rt.statistics.bounds import upper_bound
from moco_rt.statistics.e_process import EProcess

_log = logging.getLogger(__name__)
#: The number of a tier's end, among the places of its exits.
_END = -1
#: What a way out promises at most: an e-process needs a share below 1.
_HIGHEST = 0.99


class Way(NamedTuple):
    """A way out of a cascade.

    Attributes:
        tier: number of the tier.
        place: of the exit in its policy; -1: the tier's end.
    """

    tier: int
    place: int

    def site(self, tiers: Sequence[Tier]) -> str:
        """Return its name, as certificates call it."""
        return (
            f"tier {self.tier} {'end' if self.place == _END else tiers[self.tier].model.policy.exits[self.place].site}"
        )


class CascadeMonitor(WithLock):
    """The evidence against every way out of a cascade; threads may share it.

    Ways out are the exits inside tiers, and the ends of all tiers but the last, where rows stand that a tier is sure
    of. One that errs more often than its certificate counted is closed for good: its rows go on, to be answered later.

    Args:
        tiers: the cascade's.
        certificate: the promise about all of them together.
        rate: share of the rows that are answered early which are checked, inside (0, 1].
        on_alarm: called when a way out has been closed.
        delta: chance of a false alarm, ever, of any way out; None: that of the certificate.
        seed: of the choice of rows; None: chance, so that no two processes draw alike.
        is_certified: whether the certificate is about the ways out in use; else exits that were added by hand are held
            to their own bounds.

    Attributes:
        ways: the ways out.
        processes: the evidence against each.

    Raises:
        ValueError: rate or delta is out of range, or there is no certificate, or no way out but the last tier's end.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        certificate: Certificate | None,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int | None = None,
        is_certified: bool = True,
    ):
        if certificate is None:
            raise ValueError("cascade must have a certificate to be watched, which accelerate finds (it has none)")
        delta = certificate.delta if delta is None else delta
        self.rate, self.delta = check_rates(rate, delta)
        self._tiers, self._on_alarm = tiers, on_alarm
        if not ways_out(tiers):
            raise ValueError("cascade must have a way out before the last tier's end to be watched (it has none)")
        self._random = drawing_by(seed)
        self._counting = threading.Lock()
        self.begin(certificate, is_certified)

    def begin(self, certificate: Certificate, is_certified: bool = True) -> None:
        """Begin with no evidence against the ways out in use, by what a certificate counted."""
        with self._counting:
            self._certificate = certificate
            self.ways = ways_out(self._tiers)
            levels = [self._promised(certificate, place, is_certified) for place in range(len(self.ways))]
            self.processes = [EProcess(level) for level in levels]

    def site(self, way: int) -> str:
        """Return the name of a way out, as the certificate calls it."""
        return self.ways[way].site(self._tiers)

    def _promised(self, certificate: Certificate, way: int, is_certified: bool) -> float:
        """Return the share of wrong rows that a way out has at most, by what the certificate counted, or its bound."""
        tier, place = self.ways[way]
        exits = self._tiers[tier].model.policy.exits if place != _END else ()
        if exits and place not in certified_places(exits, is_certified):
            return min(_HIGHEST, float(exits[place].bound))
        counts = [count for count in certificate.exits if count.site == self.site(way)]
        wrong, fired = (sum(getattr(count, name) for count in counts) for name in ("wrong", "fired"))
        return min(_HIGHEST, upper_bound(wrong, fired, 1 - certificate.delta / len(self.ways))) if fired else _HIGHEST

    def watch(self, number: int, answers: TierOutput, run_full: Callable[[NDArray[np.int64]], Tensor]) -> None:
        """Run some of the rows that a tier has settled through the last tier, and count those with another label.

        Args:
            number: of the tier.
            answers: those to n rows.
            run_full: the last tier's logits for some of the rows, by their places, without exits.
        """
        ways = self.ways
        way_of_row = self._way_of_row(number, answers)
        places = np.flatnonzero(way_of_row >= 0)
        with self._counting:
            places = places[self._random.random(len(places)) < self.rate]
        if len(places) == 0:
            return
        full, ours = run_full(places), answers.logits[torch.from_numpy(places)]
        wrong = ~SINGLE_LABEL.same(full.float().cpu().numpy(), ours.float().cpu().numpy())
        for way in np.unique(way_of_row[places]).tolist():
            of_way = wrong[way_of_row[places] == way]
            if ways is self.ways:  # else the cascade has been certified again meanwhile
                self._add(way, int(of_way.sum()), len(of_way))

    def _way_of_row(self, number: int, answers: TierOutput) -> NDArray[np.int64]:
        """Return the way out of each row that a tier has answered early, and -1 of all others: (n,) int64."""
        found = np.full(len(answers.settled), -1, np.int64)
        exit_rule, settled = answers.exit_rule.numpy(), answers.settled.numpy()
        for way, (tier, place) in enumerate(self.ways):
            if tier == number:
                found[settled & (exit_rule == place)] = way
        return found

    def _add(self, way: int, wrong: int, rows: int) -> None:
        """Add checked rows of a way out, and close it where there is too much evidence against it."""
        tier, place = self.ways[way]
        with self._counting:
            process = self.processes[way]
            process.update(wrong, rows)
            if process.evidence < len(self.ways) / self.delta or not self._close(tier, place):
                return
            alarm = Alarm(way, self.site(way), process.rows, process.wrong, process.level)
        _log.warning(
            "%s errs more often than promised (%d of %d rows): it is closed", alarm.site, alarm.wrong, alarm.rows
        )
        if self._on_alarm is not None:
            self._on_alarm(alarm)

    def _close(self, tier: int, place: int) -> bool:
        """Let no row leave by a way out any more; returns whether it was open."""
        if place != _END:
            policy = self._tiers[tier].model.policy
            was_open = place not in policy.closed
            policy.close([place])
            return was_open
        thresholds = self._tiers[tier].thresholds
        assert thresholds is not None
        was_open = not bool(torch.isposinf(thresholds).all())
        thresholds.fill_(torch.inf)
        return was_open

    def merge(self, *states: Mapping[str, Any]) -> None:
        """Add what monitors of the same cascade have seen elsewhere since they began: each one's `state`, once.

        The evidence is judged when all are added; what one has seen under another certificate is left out.

        Raises:
            ValueError: a state is of another number of ways out.
        """
        ours = [state for state in states if self._is_ours(state)]
        for way in range(len(self.ways)):
            wrong, rows = (sum(state[name][way] for state in ours) for name in ("wrong", "rows"))
            if rows:
                self._add(way, wrong, rows)

    def state(self) -> dict[str, Any]:
        """Return the counts that a later monitor of the same cascade goes on from: plain numbers and text, for JSON."""
        with self._counting:
            counts = {"rows": [p.rows for p in self.processes], "wrong": [p.wrong for p in self.processes]}
            return {"rate": self.rate, "delta": self.delta, **counts, "identity": identity_of(self._certificate)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; of another certificate, or other ways out, nothing is taken."""
        if len(state["rows"]) != len(self.ways) or not self._is_ours(state):
            return
        for process, rows, wrong in zip(self.processes, state["rows"], state["wrong"], strict=True):
            process.rows, process.wrong = rows, wrong

    def go_on_from(self, before: CascadeMonitor) -> None:
        """Take over what a monitor of the same tiers and certificate has seen, of the ways out that are still there."""
        if before._certificate != self._certificate:
            return
        seen = dict(zip(before.ways, before.processes, strict=True))
        for way, process in zip(self.ways, self.processes, strict=True):
            if way in seen:
                process.rows, process.wrong = seen[way].rows, seen[way].wrong

    def _is_ours(self, state: Mapping[str, Any]) -> bool:
        """Return whether a state is about this certificate, and refuse one of other ways out."""
        if state.get("identity") not in (None, identity_of(self._certificate)):
            return False
        if len(state["rows"]) != len(self.ways):
            raise ValueError(f"state must be of {len(self.ways)} ways out (got {len(state['rows'])})")
        return True


def ways_out(tiers: Sequence[Tier]) -> list[Way]:
    """List the ways out of tiers; the last tier's end is none."""
    ways = []
    for number, tier in enumerate(tiers):
        policy = getattr(tier.model, "policy", None)
        ways += [Way(number, place) for place in range(0 if policy is None else len(policy.exits))]
        ways += [Way(number, _END)] if number < len(tiers) - 1 else []
    return ways
