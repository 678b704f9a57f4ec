"""A folder in which several workers meet: the policy's step for all of them, and what their monitors have seen.

The file `step` holds the number of a step of the certified path. Whoever writes it (a person, a script, or a worker
where the evidence asks for a safer one) sets it for all workers, so that one text gets one label from all. Workers add
of which policy the number is, for a folder outlives policies: the step of another one is passed over. What monitors
have seen before the step was written does not count any more. They only count: what all have seen together is judged.
"""

from __future__ import annotations

import asyncio
import copy
import fcntl
import json
import logging
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_rt.policies.monitor import Monitor
from moco_rt.policies.promised import identity_of
from moco_rt.serving.loading import Answering
from moco_rt.storage import replacing_file

_log = logging.getLogger(__name__)

#: Seconds between two looks into the folder.
_INTERVAL = 1.0
STEP = "step"


class SharedState:
    """One worker's part in the folder.

    Args:
        folder: is made where it is missing.
        model: the worker's, whose policy has a certified path.

    Raises:
        OSError: the folder cannot be made.
        ValueError: the model is a cascade, or its policy has no path, or is no step of it.
    """

    def __init__(self, folder: Path, model: Answering):
        policy = getattr(model, "policy", None)
        if policy is None or policy.path is None:
            raise ValueError("state needs a model whose policy has a certified path (got none)")
        if policy.step is None:
            raise ValueError("state needs a policy that is a step of its path (got one with exits added by hand)")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._policy = folder, policy
        self._monitor: Monitor | None = getattr(model, "_monitor", None)
        # What was seen before this process began stands with the model, and would be counted by every worker.
        self._before = None if self._monitor is None else self._monitor.state()
        if self._monitor is not None:
            self._monitor.judges = False
        self._identity = identity_of(policy.certificate, policy.path)
        self._own = folder / f"monitor-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        self._agreed = policy.step  # the step that this worker last took from the others, or gave them
        self._complaint = ""

    async def keep(self) -> None:
        """Look into the folder again and again, until this is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self.try_to_exchange()

    def try_to_exchange(self) -> None:
        """Do as `exchange`; what goes wrong is said in the log, once."""
        try:
            self.exchange()
            self._complaint = ""
        except Exception as error:
            if (complaint := f"{self._folder}: {error}") != self._complaint:
                _log.warning("%s", complaint)
            self._complaint = complaint
            if self._monitor is not None:  # what it has seen is not lost because the others cannot be asked
                self._judge(self._monitor, [self._seen(self._monitor)])

    def exchange(self) -> None:
        """Agree with the others on a step, tell what the own monitor has seen, and judge by all together.

        Raises:
            OSError: the folder cannot be read or written.
            ValueError: the file `step` does not name a step of the path.
        """
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._agree()
            if self._monitor is None:
                return
            _write(self._own, json.dumps(self._seen(self._monitor)))
            self._judge(self._monitor, self._all_states())
            self._agree()

    def _judge(self, monitor: Monitor, states: Sequence[Mapping[str, Any]]) -> None:
        """Make the policy safer where monitors have seen too much together."""
        judged = judge(monitor, self._policy, states)
        self._policy.close(judged.closed - self._policy.closed)
        if judged.step is not None and judged.step != self._policy.step:
            _log.warning("all workers together have seen too many wrong answers: step %d", judged.step)
            self._policy.take_step(judged.step)

    def _agree(self) -> None:
        """Take the step that somebody has written, or write the one that this worker has gone back to."""
        file = self._folder / STEP
        words = file.read_text(encoding="utf-8").split() if file.exists() else [str(self._agreed)]
        said, *of_policy = words or [""]
        if not said.isdecimal():
            raise ValueError(f"{file} must hold the number of a step (got {said[:40]!r})")
        given = of_policy in ([], [self._identity]) and int(said) != self._agreed
        if given:
            self._policy.take_step(int(said))
            if self._policy.certificate is None or self._policy.is_certified:
                _log.info("policy: step %s", said)
            else:
                _log.warning("policy: step %s, which the certificate is not about: nothing is promised of it", said)
        if (file.exists() and not of_policy) or (not given and self._policy.step != self._agreed):
            _write(file, f"{self._policy.step} {self._identity}")
        self._agreed = self._policy.step

    def _seen(self, monitor: Monitor) -> dict[str, Any]:
        """Return a monitor's state without what was seen before this process began."""
        state = monitor.state()
        before = self._before
        same = before is not None and all(before[name] == state[name] for name in ("step", "identity"))
        if before is None or not same or sum(before["rows"]) > sum(state["rows"]):
            self._before = None  # it began anew
            return state
        return {
            **state,
            **{
                name: [now - then for now, then in zip(state[name], before[name], strict=False)]
                for name in ("rows", "wrong")
            },
        }

    def _all_states(self) -> list[Mapping[str, Any]]:
        """Return what all workers of this policy have seen since the step was written."""
        step = self._folder / STEP
        since = step.stat().st_mtime if step.exists() else 0.0
        states = []
        for file in self._folder.glob("monitor-*.json"):
            try:
                state = json.loads(file.read_text(encoding="utf-8"))
                if file.stat().st_mtime >= since and state["identity"] == self._identity:
                    states.append(state)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file} must be what a worker wrote (got {type(error).__name__})") from error
        return states


def judge(monitor: Monitor, policy: Any, states: Sequence[Mapping[str, Any]]) -> Any:
    """Return a copy of a policy after all that monitors have seen together.

    Args:
        monitor: one of them.
        policy: the one in use, which is not changed.
        states: of all monitors, each once; what was seen of another step is left out.
    """
    judged = copy.copy(policy)  # its state is replaced, never changed
    if not policy.exits:
        return judged
    together = Monitor(judged, monitor.rate, delta=monitor.delta)
    together.merge(*(state for state in states if state.get("step") == policy.step))
    return judged


def _write(file: Path, text: str) -> None:
    with replacing_file(file) as fresh:
        fresh.write_text(text + "\n", encoding="utf-8")
