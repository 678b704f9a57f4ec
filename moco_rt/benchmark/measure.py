"""Engines in turns on the same texts, each in a process of its own, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.benchmark.contestants import OURS, WITH_EXITS
from moco_rt.engines import BASELINE, Conversion, Worker, WorkerFailedError
from moco_rt.engines.batch import Batch
from moco_rt.engines.texts import FastTextSession, TextSession
from moco_rt.inputs.texts import TextInput

#: Texts in a batch of the engines of others, sorted by length.
BATCH_ROWS = 64
#: Texts that are asked for one at a time.
SINGLES = 100


@dataclass
class Figures:
    """The figures of one engine.

    Attributes:
        seconds: of all texts, by turn.
        single_ms: milliseconds of each text alone.
        labels: (N,) int64.
        start_seconds: until it answered its first text, with imports and loading.
        mib_peak: resident memory at its peak.
        versions: of what its answers come from.
        failed: why there are no figures; None: there are.
    """

    seconds: list[float] = field(default_factory=list)
    single_ms: list[float] = field(default_factory=list)
    labels: NDArray[np.int64] | None = None
    start_seconds: float = 0.0
    mib_peak: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True)
class Task:
    """The work that is asked of every engine.

    Attributes:
        model: the folder of the model as it was given, with its tokenizer.
        texts: N texts or pairs.
        max_length: in tokens.
        threads: of each engine.
        folder: for converted models.
        calibration: padded batches that int8 is calibrated on.
        policy: the folder of a model with a policy; None: there is none.
    """

    model: Path
    texts: Sequence[TextInput]
    max_length: int
    threads: int
    folder: Path
    calibration: Sequence[Batch]
    policy: Path | None = None


def measure(task: Task, engines: Sequence[str], turns: int, say: Callable[[str], None]) -> dict[str, Figures]:
    """Let engines label all texts in turns: A B C, A B C, ...

    Args:
        task: see `Task`.
        engines: names of `contestants`, and `WITH_EXITS`.
        turns: how often.
        say: is told what goes on, in a line.

    Returns:
        Figures by name. An engine that fails says why, and the others go on.
    """
    found, workers = {name: Figures() for name in engines}, {}
    for name in engines:
        say(f"{name}: convert and load")
        try:
            workers[name], found[name].start_seconds = _start(task, name)
        except WorkerFailedError as error:
            found[name].failed = str(error)
    try:
        for turn in range(turns):
            for name in list(workers):
                say(f"turn {turn + 1} of {turns}: {name}")
                try:
                    _take_turn(task, workers[name], found[name])
                except WorkerFailedError as error:
                    found[name].failed = str(error)
                    workers.pop(name).close()
    finally:
        for worker in workers.values():
            worker.close()
    return found


def _start(task: Task, name: str) -> tuple[Worker, float]:
    """Return an engine that has answered a text, and the seconds from its start to then; conversion is not counted."""
    if name == WITH_EXITS:
        assert task.policy is not None
        made: tuple[Any, ...] = (FastTextSession, task.policy, task.threads, None, None, task.max_length)
    elif name in OURS:
        in_int8 = OURS[name] == "int8"
        folder = _converted(task, "moco-packed.int8") if in_int8 else task.model
        dtype = None if in_int8 else OURS[name]
        made = (FastTextSession, folder, task.threads, dtype, task.model, task.max_length)
    else:
        folder = _converted(task, name)
        made = (TextSession, name, task.model, folder, task.threads, task.max_length, BATCH_ROWS)
    began = time.perf_counter()
    worker = Worker(*made)
    try:
        worker.answer()
        worker.ask("label", list(task.texts[:1]))
    except WorkerFailedError:
        worker.close()
        raise
    return worker, time.perf_counter() - began


def _converted(task: Task, name: str) -> Path:
    """Convert the model for an engine, in a process whose memory is not reported."""
    folder = task.folder / name
    worker = Worker(Conversion, name, task.model, folder, list(task.calibration))
    try:
        worker.answer()
    finally:
        worker.close()
    return folder


def _take_turn(task: Task, worker: Worker, figures: Figures) -> None:
    """Label a few texts to warm up, all of them, and then some one at a time."""
    texts = list(task.texts)
    worker.ask("label", texts[:BATCH_ROWS])
    seconds, figures.labels = worker.ask("label", texts)
    figures.seconds.append(seconds)
    figures.single_ms += [1e3 * worker.ask("label", [text])[0] for text in texts[:SINGLES]]
    facts = worker.ask("facts")
    figures.mib_peak, figures.versions = facts["mib_peak"], facts["versions"]


def baseline_seconds(task: Task, rows: int) -> float:
    """Return the seconds that the baseline takes for some of the texts, by which the whole is estimated.

    Raises:
        WorkerFailedError: it fails.
    """
    worker, _ = _start(task, BASELINE)
    try:
        seconds: float = worker.ask("label", list(task.texts[:rows]))[0]
        return seconds
    finally:
        worker.close()
