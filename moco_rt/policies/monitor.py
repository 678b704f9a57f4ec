"""Monitor: runs some of the rows that left through the model as it was given too, and makes the policy safer.

Where an exit errs too often, the policy steps back along its certified path, to one that errs less. Exits that were
added by hand have no path: they are closed. The evidence is counts, and counts add: what several processes have seen
can be merged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.architectures.tasks import Task
from moco_rt.policies.policy import Policy
from moco_rt.policies.promised import identity_of, promised_error_rates
from moco_rt.statistics.arguments import check_share, whole_number
from moco_rt.statistics.e_process import EProcess
from moco_rt.storage.fields import rebuild
from moco_rt.storage.manifest import read_json, whole

if TYPE_CHECKING:
    from moco_rt._C import Results

_log = logging.getLogger(__name__)

#: Rows that a monitor can have checked: more are no counts, and exact no more where they are added.
MOST = 2**53


@dataclass(frozen=True)
class Alarm:
    """An exit that errs more often than promised; of a cascade a way out, of a reranker all exits together.

    Attributes:
        exit: its place in `policy.exits`, as they were; of a cascade in `CascadeMonitor.ways`; of a reranker 0.
        site: where it stands; of a cascade the way out's name in the certificate; of a reranker "all sites".
        rows: rows that left there and were checked; of a reranker all checked queries.
        wrong: those of them whose answer is not that of the model as it was given.
        level: the promised share of wrong rows, or queries.
        step: index on the certified path of the policy that is in use from now on. None: the exit or way out was
            closed; of a reranker nothing is closed, and the model as it was given ranks.
    """

    exit: int
    site: str
    rows: int
    wrong: int
    level: float
    step: int | None = None


@dataclass(frozen=True)
class _Stored:
    """A monitor in JSON; files of earlier versions lack delta, step and identity."""

    rate: float
    rows: Sequence[int]
    wrong: Sequence[int]
    delta: float | None = None
    step: int | None = None
    identity: str | None = None


def read_state(file: Path) -> dict[str, Any]:
    """Read the `state` of a monitor that JSON kept.

    Raises:
        ValueError: the file is not JSON, or holds something else.
    """
    state = read_json(file)
    with whole(file):
        rebuild(_Stored, state)
        check_counts(state["rows"], state["wrong"])
    return {"delta": None, **state}


def check_counts(rows: Sequence[int], wrong: Sequence[int]) -> None:
    """Raise TypeError unless these are counts of rows, and of wrong ones among them."""
    if len(rows) != len(wrong) or any(not 0 <= few <= many <= MOST for many, few in zip(rows, wrong, strict=True)):
        raise TypeError("rows and wrong that are no counts")


def check_rates(rate: float, delta: float) -> tuple[float, float]:
    """Return the share of the rows that a monitor checks, and its chance of a false alarm, as Python's floats.

    Raises:
        ValueError: a number is out of range.
    """
    return check_share("rate", rate, one=True), check_share("delta", delta)


def drawing_by(seed: int | None) -> np.random.Generator:
    """Return what draws the rows to check, by a seed or, where that is None, by chance.

    One seed for all processes would check the same places of their batches in each, and no others.
    """
    return np.random.default_rng(None if seed is None else whole_number("seed", seed))


class WithLock:
    """The base of monitors: they count under a lock, which copies and pickles make anew."""

    _counting: threading.Lock

    def __getstate__(self) -> dict[str, Any]:
        """The state without the lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_counting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._counting = threading.Lock()


class Monitor(WithLock):
    """The evidence against every exit of a policy; threads may share it.

    Evidence is about the policy in use and its certificate: after a step along the path, and when the model has been
    certified again, it begins anew.

    Args:
        policy: the policy whose exits are watched.
        rate: share of the rows that leave which are checked, inside (0, 1].
        on_alarm: called when the policy has become safer.
        delta: chance of a false alarm, ever, of any exit; None: that of the certificate, 0.05 without one.
        seed: of the choice of rows; None: chance, so that no two processes draw alike.

    Attributes:
        judges: whether it makes the policy safer by itself; False: it counts for another one, which judges what
            several have counted.

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
        seed: int | None = None,
    ):
        if not policy.exits:
            raise ValueError("policy must have exits to watch (got none)")
        if delta is None:
            delta = 0.05 if policy.certificate is None else policy.certificate.delta
        self.rate, self.delta = check_rates(rate, delta)
        self.judges = True
        self._policy = policy
        self._on_alarm = on_alarm
        self._random = drawing_by(seed)
        self._counting = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Begin with no evidence against the exits in use."""
        self.step, self._certificate = self._policy.step, self._policy.certificate
        self.processes = [EProcess(level) for level in promised_error_rates(self._policy)]

    def _follow(self) -> None:
        """Begin anew where somebody has set another step, or certified the policy again."""
        if self.step != self._policy.step or self._certificate != self._policy.certificate:
            self._begin()

    @property
    def task(self) -> Task:
        """The policy's: what "the same answer" means."""
        return self._policy.task

    def sample_rows(self, exit_rule: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the rows to check, and return their places. exit_rule: (rows,), -1 for those that did not leave."""
        left = np.flatnonzero(exit_rule >= 0)
        with self._counting:
            return left[self._random.random(len(left)) < self.rate]

    def record_checks(self, exit_rule: NDArray[np.int64], wrong: NDArray[np.bool_], step: int | None = None) -> None:
        """Record checked rows, and make the policy safer where there is too much evidence against an exit.

        Args:
            exit_rule: (rows,) the exit that each row took.
            wrong: (rows,) bool, True where the model as it was given disagrees.
            step: of the policy that the rows met; what is not the one in use any more is not counted.
        """
        counts = {place: wrong[exit_rule == place] for place in np.unique(exit_rule).tolist()}
        self._add({place: (int(of_exit.sum()), len(of_exit)) for place, of_exit in counts.items()}, step)

    def _add(self, counts: Mapping[int, tuple[int, int]], step: int | None) -> None:
        """Add wrong and all checked rows, by exit, and tell of every alarm."""
        for place, (wrong, rows) in counts.items():
            with self._counting:
                self._follow()
                alarm = self._count(place, wrong, rows) if step == self.step else None
            if alarm is not None and self._on_alarm is not None:
                self._on_alarm(alarm)

    def _count(self, place: int, wrong: int, rows: int) -> Alarm | None:
        """Count rows that left by an exit, and make the policy safer where there is enough evidence against it."""
        levels = promised_error_rates(self._policy)[len(self.processes) :]  # of exits that were added since
        self.processes += [EProcess(level) for level in levels]
        process = self.processes[place]
        process.update(wrong, rows)
        policy = self._policy.state
        if not self.judges or place in policy.closed or process.evidence < len(policy.exits) / self.delta:
            return None
        step = self._policy.safer_step()
        site, wrong, rows = policy.exits[place].site, process.wrong, process.rows
        if step is None:
            self._policy.close([place])
            _log.warning("%s errs more often than promised (%d of %d rows): it is closed", site, wrong, rows)
        else:
            self._policy.take_step(step)
            self._begin()
            _log.warning("%s errs more often than promised (%d of %d rows): back to step %d", site, wrong, rows, step)
        return Alarm(place, site, rows, wrong, process.level, step)

    def merge(self, *states: Mapping[str, Any]) -> None:
        """Add what monitors of the same policy have seen in other processes since they began: each one's `state`, once.

        The evidence is judged when all are added. A process that has stepped back further is followed; what one has
        seen under another certificate, or of a policy that is not in use here any more, is left out.

        Raises:
            ValueError: a state is of more exits than the policy has, or of a step that its path does not have.
        """
        ours = [state for state in states if self._is_ours(state)]
        with self._counting:
            steps = [state["step"] for state in ours if state.get("step") is not None]
            if steps and self._policy.step is not None and min(steps) < self._policy.step:
                self._policy.take_step(min(steps))
            self._follow()
            step = self.step
        counts: dict[int, tuple[int, int]] = {}
        for state in ours:
            if state.get("step") != step:
                continue
            if len(state["rows"]) > len(self._policy.exits):
                raise ValueError(f"state must be of {len(self._policy.exits)} exits at most (got {len(state['rows'])})")
            for place, (wrong, rows) in enumerate(zip(state["wrong"], state["rows"], strict=True)):
                before = counts.get(place, (0, 0))
                counts[place] = before[0] + wrong, before[1] + rows
        self._add(counts, step)

    def _is_ours(self, state: Mapping[str, Any]) -> bool:
        """Return whether a state is about this policy's certificate; those of earlier versions do not say."""
        return state.get("identity") in (None, identity_of(self._policy.certificate, self._policy.path))

    def state(self) -> dict[str, Any]:
        """Return the counts that a later monitor of the same policy goes on from: plain numbers and text, for JSON."""
        with self._counting:
            self._follow()
            counts = {"rows": [p.rows for p in self.processes], "wrong": [p.wrong for p in self.processes]}
            identity = identity_of(self._certificate, self._policy.path)
            return {"rate": self.rate, "delta": self.delta, "step": self.step, **counts, "identity": identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; of another step or certificate than the policy's nothing is taken.

        Raises:
            ValueError: the state has more exits than the policy.
        """
        if state.get("step", self.step) != self.step or not self._is_ours(state):
            return
        if len(state["rows"]) > len(self.processes):
            raise ValueError(f"state must be of {len(self.processes)} exits at most (got {len(state['rows'])})")
        for process, rows, wrong in zip(self.processes, state["rows"], state["wrong"], strict=False):
            process.rows, process.wrong = rows, wrong


def watch(monitor: Monitor, results: Results, run_full: Callable[[Tensor], Results], step: int | None) -> None:
    """Run some of the rows that left through the model as it was given, and let a monitor record them.

    Args:
        monitor: draws the rows.
        results: those of a batch.
        run_full: that model on some rows of the batch, by their places: (rows,) int64.
        step: of the policy that the batch met.
    """
    exit_rule = results.exit_rule.numpy()
    places = monitor.sample_rows(exit_rule)
    if len(places) == 0:
        return
    rows = torch.from_numpy(places)
    given, fast = (logits.to("cpu", torch.float32).numpy() for logits in (run_full(rows).logits, results.logits[rows]))
    monitor.record_checks(exit_rule[places], ~monitor.task.same(given, fast), step)
