"""Watches exits: some rows that left go through the full model too, and an exit that errs is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt._C import Results
from moco_rt.certification.bounds import upper_bound
from moco_rt.policies.policy import Policy

#: Bets of the mixture: small ones find small excesses after many rows, large ones large excesses after few.
_BETS = np.array([0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0])


class EProcess:
    """Evidence against "at most a share `level` is wrong", valid whenever one looks.

    E_T = mean over bets b of prod_i (1 + b (wrong_i - level)), b < 1 / level. Under the null it is a non-negative
    supermartingale that starts at 1, so that P(it ever reaches 1 / delta) <= delta (Ville's inequality).

    Attributes:
        level: the share that was promised, inside (0, 1).
        rows: looked at so far.
        wrong: of these.
    """

    def __init__(self, level: float):
        self.level = level
        self.rows = 0
        self.wrong = 0

    def update(self, wrong: int, rows: int) -> None:
        """So many more rows, of which so many were wrong."""
        self.rows += rows
        self.wrong += wrong

    @property
    def evidence(self) -> float:
        """E_T: it depends on how many were wrong, not on the order they came in."""
        bets = _BETS[1 / self.level > _BETS]
        right = self.rows - self.wrong
        log = self.wrong * np.log1p(bets * (1 - self.level)) + right * np.log1p(-bets * self.level)
        return float(np.exp(np.minimum(log, 700)).mean())


@dataclass(frozen=True)
class Alarm:
    """An exit that was closed.

    Attributes:
        exit: its place in `policy.exits`.
        site: where it stands.
        rows: rows that left there and were looked at.
        wrong: of these, rows with another label than the full model's.
        level: the share that was promised.
    """

    exit: int
    site: str
    rows: int
    wrong: int
    level: float


class Monitor:
    """The evidence against every exit of a policy; threads may share it.

    Args:
        policy: whose exits are watched, and closed.
        rate: share of the rows that leave which are looked at, inside (0, 1].
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
        self.processes = [EProcess(level) for level in _levels(policy)]

    def __getstate__(self) -> dict[str, Any]:
        """The state without its lock, which a copy makes anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_counting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._counting = threading.Lock()

    def sample_rows(self, exit_rule: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the rows to look at. exit_rule: (rows,), -1 for those that did not leave."""
        left = np.flatnonzero(exit_rule >= 0)
        with self._counting:
            return left[self._random.random(len(left)) < self.rate]

    def record_checks(self, exit_rule: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
        """Rows that were looked at: by which exit they left, and what the full model contradicts; (rows,) each."""
        for place in np.unique(exit_rule).tolist():
            of_exit = wrong[exit_rule == place]
            with self._counting:
                alarm = self._count(place, int(of_exit.sum()), len(of_exit))
            if alarm is not None and self._on_alarm is not None:
                self._on_alarm(alarm)

    def _count(self, place: int, wrong: int, rows: int) -> Alarm | None:
        """Count rows that left by an exit, and close it where there is enough evidence against it."""
        levels = _levels(self._policy)[len(self.processes) :]  # of exits that were added since
        self.processes += [EProcess(level) for level in levels]
        process = self.processes[place]
        process.update(wrong, rows)
        policy = self._policy.state
        if place in policy.closed or process.evidence < len(policy.exits) / self.delta:
            return None
        self._policy.close([place])
        return Alarm(place, policy.exits[place].site, process.rows, process.wrong, process.level)

    def state(self) -> dict[str, Any]:
        """What a later monitor of the same policy goes on from: plain numbers, for JSON."""
        counts = {"rows": [p.rows for p in self.processes], "wrong": [p.wrong for p in self.processes]}
        return {"rate": self.rate, "delta": self.delta, **counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            ValueError: it is of more exits.
        """
        if len(state["rows"]) > len(self.processes):
            raise ValueError(f"state must be of {len(self.processes)} exits at most (got {len(state['rows'])})")
        for process, rows, wrong in zip(self.processes, state["rows"], state["wrong"], strict=False):
            process.rows, process.wrong = rows, wrong


def watch(
    monitor: Monitor,
    results: Results,
    run_full: Callable[..., Results],
    inputs: tuple[Tensor, Tensor, Tensor | None],
) -> None:
    """Run some of the rows that left through the full model, and tell the monitor.

    Args:
        monitor: which chooses them.
        results: of a batch.
        run_full: the model without exits, on inputs like these.
        inputs: the batch: input_ids, attention_mask, token_type_ids.
    """
    exit_rule = results.exit_rule.cpu().numpy()
    places = monitor.sample_rows(exit_rule)
    if len(places) == 0:
        return
    rows = torch.from_numpy(places).to(results.logits.device)
    full = run_full(*(None if tensor is None else tensor[rows] for tensor in inputs))
    wrong = full.logits.argmax(dim=1) != results.logits[rows].argmax(dim=1)
    monitor.record_checks(exit_rule[places], wrong.cpu().numpy())


def _levels(policy: Policy) -> list[float]:
    """What each exit promises of the rows that leave by it: by the certificate's counts, else its own bound."""
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
