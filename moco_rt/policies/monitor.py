"""Monitor: runs some of the rows that left through the full model too, and closes exits that err too often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.policies.policy import Policy
from moco_rt.statistics.bounds import upper_bound
from moco_rt.statistics.e_process import EProcess

if TYPE_CHECKING:
    from moco_rt._C import Results


@dataclass(frozen=True)
class Alarm:
    """An exit that was closed.

    Attributes:
        exit: its place in `policy.exits`.
        site: where it stands.
        rows: rows that left there and were checked.
        wrong: those of them whose label is not the full model's.
        level: the promised share of wrong rows.
    """

    exit: int
    site: str
    rows: int
    wrong: int
    level: float


class Monitor:
    """The evidence against every exit of a policy; threads may share it.

    Args:
        policy: the policy whose exits are watched, and closed.
        rate: share of the rows that leave which are checked, inside (0, 1].
        on_alarm: called when an exit has been closed.
        delta: chance of a false alarm, ever, of any exit; None: that of the certificate, 0.05 without one.
        seed: of the choice of rows.

    Raises:
        ValueError: rate or delta is out of range, or the policy has no exits.
    """

    def __init__(
        self,
        policy: Policy,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int = 0,
    ):
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be inside (0, 1] (got {rate})")
        if not policy.exits:
            raise ValueError("policy must have exits to watch (got none)")
        if delta is None:
            delta = 0.05 if policy.certificate is None else policy.certificate.delta
        if not 0 < delta < 1:
            raise ValueError(f"delta must be inside (0, 1) (got {delta})")
        self.rate = rate
        self.delta = delta
        self._policy = policy
        self._on_alarm = on_alarm
        self._random = np.random.default_rng(seed)
        self._counting = threading.Lock()
        self.processes = [EProcess(level) for level in promised_error_rates(policy)]

    def __getstate__(self) -> dict[str, Any]:
        """The state without its lock, which a copy makes anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_counting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._counting = threading.Lock()

    def sample_rows(self, exit_rule: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the rows to check, and return their places. exit_rule: (rows,), -1 for those that did not leave."""
        left = np.flatnonzero(exit_rule >= 0)
        with self._counting:
            return left[self._random.random(len(left)) < self.rate]

    def record_checks(self, exit_rule: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
        """Record checked rows, and close exits with too much evidence against them.

        Args:
            exit_rule: (rows,) the exit that each row took.
            wrong: (rows,) bool, True where the full model disagrees.
        """
        for place in np.unique(exit_rule).tolist():
            of_exit = wrong[exit_rule == place]
            with self._counting:
                alarm = self._count(place, int(of_exit.sum()), len(of_exit))
            if alarm is not None and self._on_alarm is not None:
                self._on_alarm(alarm)

    def _count(self, place: int, wrong: int, rows: int) -> Alarm | None:
        """Count rows that left by an exit, and close it where there is enough evidence against it."""
        levels = promised_error_rates(self._policy)[len(self.processes) :]  # of exits that were added since
        self.processes += [EProcess(level) for level in levels]
        process = self.processes[place]
        process.update(wrong, rows)
        policy = self._policy.state
        if place in policy.closed or process.evidence < len(policy.exits) / self.delta:
            return None
        self._policy.close([place])
        return Alarm(place, policy.exits[place].site, process.rows, process.wrong, process.level)

    def state(self) -> dict[str, Any]:
        """Return the counts that a later monitor of the same policy goes on from: plain numbers, for JSON."""
        counts = {"rows": [p.rows for p in self.processes], "wrong": [p.wrong for p in self.processes]}
        return {"rate": self.rate, "delta": self.delta, **counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            ValueError: the state has more exits than the policy.
        """
        if len(state["rows"]) > len(self.processes):
            raise ValueError(f"state must be of {len(self.processes)} exits at most (got {len(state['rows'])})")
        for process, rows, wrong in zip(self.processes, state["rows"], state["wrong"], strict=False):
            process.rows, process.wrong = rows, wrong


def watch(monitor: Monitor, results: Results, run_full: Callable[[Tensor], Results]) -> None:
    """Run some of the rows that left through the full model, and let a monitor record them.

    Args:
        monitor: draws the rows.
        results: those of a batch.
        run_full: the model without exits on some rows of the batch, by their places: (rows,) int64.
    """
    exit_rule = results.exit_rule.cpu().numpy()
    places = monitor.sample_rows(exit_rule)
    if len(places) == 0:
        return
    rows = torch.from_numpy(places).to(results.logits.device)
    full = run_full(rows)
    wrong = full.logits.argmax(dim=1) != results.logits[rows].argmax(dim=1)
    monitor.record_checks(exit_rule[places], wrong.cpu().numpy())


def promised_error_rates(policy: Policy) -> list[float]:
    """Return the error rate that each exit promises: from the certificate's counts, else the exit's own bound."""
    certificate = policy.certificate
    levels = []
    exits = policy.exits
    for exit in exits:
        counts = [] if certificate is None else [count for count in certificate.exits if count.site == exit.site]
        if certificate is None or not counts:
            levels.append(exit.bound)
            continue
        each = 1 - certificate.delta / len(exits)
        levels.append(upper_bound(sum(c.wrong for c in counts), sum(c.fired for c in counts), each))
    return levels
