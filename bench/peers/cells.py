"""How a cell is measured: every engine in a process of its own, in turns, one at a time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from moco_rt.engines import BASELINE, Batch, Conversion, Crew, Session, WorkerFailedError, interpreter
from peers import report, rows
from peers.machine import machine
from peers.models import dense_flops, input_names, model_dir, read_config
from peers.roofline import Roofline

ROOFLINE = "roofline"
#: A cell whose average batch asks for more is left out: the slower engines would take minutes for it.
MOST_FLOPS = 3.5e12
#: Seconds for which threads of the engine that ran before may go on spinning.
PAUSE = 0.05


@dataclass(frozen=True)
class Cell:
    """One model, one law of lengths, so many rows at a time."""

    model: str
    law: str
    batch_rows: int

    def __str__(self) -> str:
        return f"{self.model}/{self.law}/{self.batch_rows}"


class Bench:
    """Measures cells of one model, which it converts once for every engine."""

    def __init__(self, model: str, engines: list[str], threads: int, folder: Path):
        names = dict.fromkeys([BASELINE, *engines])
        directory = model_dir(model, folder)
        self._config = read_config(directory)
        self._threads = threads
        self._sessions = {name: (Session, name, directory, folder / name, threads) for name in names}
        self._pythons = {name: interpreter(name) for name in names}
        self._names = input_names(self._config)
        calibration = rows.calibration_batches(model, self._names)
        with Crew(
            {name: (Conversion, name, directory, folder / name, calibration) for name in names}, self._pythons
        ) as crew:
            self._unconverted = crew.failed

    def measure(self, cell: Cell, repetitions: int, seconds: float) -> dict | None:
        """What `report.summarise` makes of the cell; None where it is left out.

        The batches, the same for all engines, are those that the baseline runs within so many seconds.

        Raises:
            WorkerFailedError: the baseline failed.
        """
        candidates = rows.cut(rows.rows(cell.model, cell.law), cell.batch_rows)
        if sum(map(self._flops, candidates)) > MOST_FLOPS * len(candidates):
            return None
        makers = {name: maker for name, maker in self._sessions.items() if name not in self._unconverted}
        with Crew(makers | {ROOFLINE: (Roofline, self._threads)}, self._pythons) as crew:
            taken = crew.ask(BASELINE, "count", [self._pad(batch) for batch in candidates], seconds)
            batches = sorted(candidates[: taken or 0], key=lambda batch: len(batch[-1]))
            results, peaks = _take_turns(crew, [self._pad(batch) for batch in batches], repetitions)
            failed = self._unconverted | crew.failed
        if BASELINE in failed:
            raise WorkerFailedError(f"{BASELINE}: {failed[BASELINE]}")
        return report.summarise(
            asdict(cell)
            | {
                "batches": len(batches),
                "tokens": sum(len(row) for batch in batches for row in batch),
                "gflop": sum(map(self._flops, batches)) / 1e9,
                "gemm_gflops": peaks,
                "threads": self._threads,
                "machine": machine(),
            },
            {name: {"failed": failed[name]} if name in failed else results[name] for name in self._sessions},
        )

    def _pad(self, batch: list[rows.Row]) -> Batch:
        return rows.pad(batch, self._names)

    def _flops(self, batch: list[rows.Row]) -> int:
        return dense_flops(map(len, batch), self._config)


def _take_turns(crew: Crew, batches: list[Batch], repetitions: int) -> tuple[dict[str, dict], dict[str, float]]:
    """What each engine answered and how long it took, and the peaks of matrix products meanwhile."""
    engines = [name for name in crew.names() if name != ROOFLINE]
    results = {name: {"logits": crew.ask(name, "first_pass", batches), "seconds": []} for name in engines}
    peaks: dict[str, float] = {}
    for _ in range(repetitions):
        for precision, gflops in (crew.ask(ROOFLINE, "gflops") or {}).items():
            peaks[precision] = max(gflops, peaks.get(precision, 0.0))
        for name in engines:
            time.sleep(PAUSE)
            results[name]["seconds"].append(crew.ask(name, "timed_pass"))
    for name in engines:
        results[name] |= crew.ask(name, "facts") or {}
    return results, peaks
