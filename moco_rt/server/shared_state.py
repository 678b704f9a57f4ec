"""A folder in which several workers meet: the policy's step for all of them, and what their monitors have seen.

The file `step` holds the number of a step of the certified path. Whoever writes it (a person, a script, or a worker
whose evidence asks for a safer one) sets it for all workers, so that one text gets one label from all.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_rt.policies.monitor import Monitor
from moco_rt.serving.loading import Answering

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
        OSError: the folder cannot be written.
        ValueError: the model is a cascade, or its policy has no path, or the file `step` does not name a step of it.
    """

    def __init__(self, folder: Path, model: Answering):
        policy = getattr(model, "policy", None)
        if policy is None or policy.path is None:
            raise ValueError("state needs a model whose policy has a certified path (got none)")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._policy = folder, policy
        self._monitor: Monitor | None = getattr(model, "_monitor", None)
        self._own = folder / f"monitor-{os.getpid()}.json"
        self.follow()

    async def keep(self) -> None:
        """Look into the folder again and again, until this is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                self.exchange()
            except (OSError, ValueError) as error:
                _log.warning("%s: %s", self._folder, error)

    def exchange(self) -> None:
        """Take the step that is written, tell what the own monitor has seen, and judge by all together.

        Raises:
            OSError: the folder cannot be read or written.
            ValueError: the file `step` does not name a step of the path.
        """
        self.follow()
        if self._monitor is None:
            return
        _write(self._own, json.dumps(self._monitor.state()))
        states = [json.loads(file.read_text(encoding="utf-8")) for file in self._folder.glob("monitor-*.json")]
        step = safer_by(self._monitor, self._policy, states)
        if step is not None:
            _log.warning("all workers together have seen too many wrong answers: step %d for all", step)
            _write(self._folder / STEP, str(step))
            self.follow()

    def follow(self) -> None:
        """Take the step that is written, if one is."""
        file = self._folder / STEP
        if not file.exists():
            return
        said = file.read_text(encoding="utf-8").strip()
        if not said.isdecimal():
            raise ValueError(f"{file} must hold the number of a step (got {said[:40]!r})")
        if int(said) != self._policy.step:
            self._policy.take_step(int(said))
            _log.info("policy: step %s", said)


def safer_by(monitor: Monitor, policy: Any, states: list[Mapping[str, Any]]) -> int | None:
    """Return the step to which all that monitors have seen together leads back; None: the one in use may stay.

    Args:
        monitor: one of them.
        policy: the one in use, which is not changed.
        states: of all monitors, each once.
    """
    judged = copy.copy(policy)  # its state is replaced, never changed
    together = Monitor(judged, monitor.rate, delta=monitor.delta)
    for state in states:
        if state.get("step") == policy.step:
            together.merge(state)
    return None if judged.step == policy.step else judged.step


def _write(file: Path, text: str) -> None:
    """Put a whole file in place of another: readers never see half of it."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(file)
