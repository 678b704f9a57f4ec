"""Conversion and timing of one engine, as they run in its worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from moco_rt.engines.batch import Batch
from moco_rt.engines.registry import adapter, precision, versions


class Conversion:
    """Converts a model for an engine: apart from the session, whose memory is reported."""

    def __init__(self, name: str, model_dir: Path, folder: Path, batches: list[Batch]):
        module, options = adapter(name)
        if hasattr(module, "convert"):
            folder.mkdir()
            module.convert(model_dir, folder, batches, precision(name), **options)


class Session:
    """A loaded engine, and the batches that it runs again and again."""

    def __init__(self, name: str, model_dir: Path, folder: Path, threads: int):
        module, options = adapter(name)
        self._versions = versions(module)
        self._engine = module.Engine(model_dir, folder, threads, precision(name), **options)
        self._inputs: list[Any] = []
        self._loaded = 0

    def count(self, batches: list[Batch], seconds: float) -> int:
        """Count how many of the batches, in their order, fill so many seconds: one at least."""
        end = time.perf_counter() + seconds
        for number, batch in enumerate(batches, start=1):
            self._engine(self._engine.inputs(batch))
            if time.perf_counter() > end:
                return number
        return len(batches)

    def first_pass(self, batches: list[Batch]) -> list[np.ndarray]:
        """Take the batches, warm up on each and return the logits. Peak memory is counted from here on."""
        self._inputs = [self._engine.inputs(batch) for batch in batches]
        self._loaded = memory("VmRSS")
        logits = [np.array(self._engine(inputs)) for inputs in self._inputs]
        Path("/proc/self/clear_refs").write_text("5")
        return logits

    def timed_pass(self) -> list[float]:
        """Seconds of each batch. Other engines ran meanwhile: the first batch is run once more, to warm up."""
        if len(self._inputs) > 1:
            self._engine(self._inputs[0])
        seconds = []
        for inputs in self._inputs:
            start = time.perf_counter()
            self._engine(inputs)
            seconds.append(time.perf_counter() - start)
        return seconds

    def facts(self) -> dict[str, Any]:
        """Versions; resident memory in MiB before the first batch, and its peak in the timed passes."""
        return {"versions": self._versions, "mib_loaded": self._loaded, "mib_peak": memory("VmHWM")}


def memory(field: str) -> int:
    """Return MiB as Linux counts them; getrusage would count what the parent held when it started us, too."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) // 1024
