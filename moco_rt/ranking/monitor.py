"""RankingMonitor: ranks some queries by the model as it was given too, and ends a policy that errs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moco_rt.certification.certificate import Certificate
from moco_rt.policies.monitor import Alarm, WithLock, check_counts, check_rates, drawing_by
from moco_rt.policies.promised import identity_of
from moco_rt.statistics.bounds import upper_bound
from moco_rt.statistics.e_process import EProcess
from moco_rt.storage.fields import rebuild
from moco_rt.storage.manifest import read_json, whole


@dataclass(frozen=True)
class _Stored:
    """A monitor in JSON; files of earlier versions lack the identity."""

    rate: float
    delta: float
    queries: int
    wrong: int
    alarmed: bool
    identity: str | None = None


def read_state(file: Path) -> dict[str, Any]:
    """Read the `state` of a monitor that JSON kept.

    Raises:
        ValueError: the file is not JSON, or holds something else.
    """
    state = read_json(file)
    with whole(file):
        stored = rebuild(_Stored, state)
        check_counts([stored.queries], [stored.wrong])
    return asdict(stored)


_log = logging.getLogger(__name__)


class RankingMonitor(WithLock):
    """The evidence against a reranker's policy; threads may share it.

    The unit is the query. Which of its exits lost a candidate, or whether the numeric form did, cannot be told of a set
    of first ones: too much evidence ends them all, and the model as it was given ranks.

    Args:
        certificate: the promise.
        rate: share of the queries that are checked, inside (0, 1].
        on_alarm: called once, when the policy errs more often than promised.
        delta: chance of a false alarm, ever; None: that of the certificate.
        seed: of the choice of queries; None: chance, so that no two processes draw alike.

    Attributes:
        process: the evidence; its rows are queries.
        alarmed: whether there was too much of it: the model as it was given ranks, and no candidate leaves.

    Raises:
        ValueError: rate or delta is out of range, or there is no certificate.
    """

    def __init__(
        self,
        certificate: Certificate | None,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int | None = None,
    ):
        if certificate is None:
            raise ValueError("reranker must have a certificate to be watched, which accelerate finds (it has none)")
        delta = certificate.delta if delta is None else delta
        self.rate, self.delta = check_rates(rate, delta)
        self.process = EProcess(upper_bound(certificate.disagreements, certificate.rows, 1 - certificate.delta))
        self.alarmed = False
        self._certificate, self._on_alarm = certificate, on_alarm
        self._random = drawing_by(seed)
        self._counting = threading.Lock()

    def draws(self) -> bool:
        """Return whether the next query is to be checked."""
        with self._counting:
            return bool(self._random.random() < self.rate)

    def record(self, wrong: int, queries: int = 1) -> None:
        """Count checked queries, and how many of them have other first candidates than by the model as it was given."""
        with self._counting:
            self.process.update(wrong, queries)
            if self.alarmed or self.process.evidence < 1 / self.delta:
                return
            self.alarmed = True
            alarm = Alarm(0, "all sites", self.process.rows, self.process.wrong, self.process.level)
        _log.warning(
            "the first candidates differ more often than promised (%d of %d queries): the model as it was given "
            "ranks from now on",
            alarm.wrong,
            alarm.rows,
        )
        if self._on_alarm is not None:
            self._on_alarm(alarm)

    def merge(self, *states: Mapping[str, Any]) -> None:
        """Add what monitors of the same policy have seen in other processes since they began: each one's `state`, once.

        The evidence is judged when all are added. Where one has raised the alarm, no candidate leaves here any more
        either. What one has seen under another certificate is left out.
        """
        ours = [state for state in states if self._is_ours(state)]
        self.record(sum(state["wrong"] for state in ours), sum(state["queries"] for state in ours))
        self.alarmed |= any(state.get("alarmed") for state in ours)

    def _is_ours(self, state: Mapping[str, Any]) -> bool:
        """Return whether a state is about this certificate; those of earlier versions do not say."""
        return state.get("identity") in (None, identity_of(self._certificate))

    def state(self) -> dict[str, Any]:
        """Return the counts that a later monitor of the same policy goes on from: plain numbers and text, for JSON."""
        counts = {"queries": self.process.rows, "wrong": self.process.wrong, "alarmed": self.alarmed}
        return {"rate": self.rate, "delta": self.delta, **counts, "identity": identity_of(self._certificate)}

    def go_on_from(self, before: RankingMonitor) -> None:
        """Take over what a monitor of the same certificate has seen."""
        if before._certificate == self._certificate:
            self.restore(before.state())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; of another certificate nothing is taken."""
        if not self._is_ours(state):
            return
        self.process.rows, self.process.wrong, self.alarmed = state["queries"], state["wrong"], state["alarmed"]
