"""Answers beside another process that wants a core: `python bench/bench_neighbour.py`, about ten minutes.

One row at a time (16 to 25 tokens) and 64 at a time (of SST-2) by moco_rt, Hugging Face and the rivals of bench/peers,
each in a process of its own, one after the other: alone, beside a process that keeps one core busy, and beside one that
may run on the last core only. Rounds of all engines and neighbours in turns; rows per second are medians of rounds, p50
and p99 are of all calls. A rival that is not installed is said to have failed. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from peers import rows
from peers.cells import PAUSE
from peers.machine import machine
from peers.models import input_names, model_dir, read_config

from moco_rt.engines import BASELINE, ENGINES, Batch, Conversion, Crew, Session, interpreter

ENGINES_SHOWN = (BASELINE, "moco-packed.fp32", "openvino.fp32", "onnxruntime.fp32")
#: Tokens of the rows that are answered one at a time.
TOKENS = range(16, 26)
BURN = "while True: pass"
#: What the neighbour runs, by name.
NEIGHBOURS = {
    "alone": None,
    "beside one": BURN,
    "beside one, pinned": f"import os; os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])\n{BURN}",
}
#: Seconds until the scheduler has made up its mind about a neighbour that has just begun.
SETTLED = 0.3


@contextmanager
def neighbour(script: str | None) -> Iterator[None]:
    """A process at the same priority as ours, for as long as the block runs."""
    if script is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        time.sleep(SETTLED)
        yield
    finally:
        process.kill()
        process.wait()


def batches_of(model: str, names: Sequence[str], batch_rows: int, calls: int) -> list[Batch]:
    """So many batches at most, the same for every engine and neighbour."""
    encoded = rows.rows(model, "sst2")
    if batch_rows == 1:
        encoded = [row for row in encoded if len(row) in TOKENS]
    return [rows.pad(batch, names) for batch in rows.cut(encoded, batch_rows)[:calls]]


def measure(crew: Crew, batches: list[Batch], rounds: int) -> dict[str, dict[str, list[list[float]]]]:
    """Seconds of each call, by engine, neighbour and round.

    Raises:
        AssertionError: an engine's labels are not the model's.
    """
    logits = {name: crew.ask(name, "first_pass", batches) for name in crew.names()}
    expected = np.concatenate(logits[BASELINE]).argmax(1)
    for name in crew.names():
        assert (np.concatenate(logits[name]).argmax(1) == expected).all(), f"{name} gives other labels"
    seconds = {name: {kind: [] for kind in NEIGHBOURS} for name in crew.names()}
    for _ in range(rounds):
        for kind, script in NEIGHBOURS.items():
            with neighbour(script):
                for name in crew.names():
                    time.sleep(PAUSE)
                    seconds[name][kind].append(crew.ask(name, "timed_pass"))
    return {name: seconds[name] for name in crew.names()}


def table(seconds: dict[str, dict[str, list[list[float]]]], batch_rows: int) -> str:
    """A line for each engine: rows per second, p50 and p99 of a call in milliseconds, by neighbour."""
    lines = [
        f"| rows/s, p50 / p99 in ms; {batch_rows} at a time | " + " | ".join(NEIGHBOURS) + " |",
        "|---|" + "---:|" * len(NEIGHBOURS),
    ]
    for name, kinds in seconds.items():
        cells = []
        for passes in kinds.values():
            speed = statistics.median(batch_rows * len(calls) / sum(calls) for calls in passes)
            p50, p99 = np.percentile(np.concatenate(passes), [50, 99]) * 1e3
            cells.append(f"{speed:,.0f}, {p50:.2f} / {p99:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace, folder: Path) -> None:
    """Convert, measure and print."""
    directory = model_dir(options.model, folder)
    names = list(dict.fromkeys([BASELINE, *options.engines]))
    inputs = input_names(read_config(directory))
    calibration = rows.calibration_batches(options.model, inputs)
    pythons = {name: interpreter(name) for name in names}
    conversions = {name: (Conversion, name, directory, folder / name, calibration) for name in names}
    with Crew(conversions, pythons) as crew:
        failed = crew.failed
    makers = {n: (Session, n, directory, folder / n, options.threads) for n in names if n not in failed}
    with Crew(makers, pythons) as crew:
        processor = machine()
        print(f"{processor['cpu']}, {processor['cores']} cores, {options.threads} threads, model {options.model}")
        for name in crew.names():
            versions = (crew.ask(name, "facts") or {"versions": {}})["versions"]
            print(f"{name}: " + ", ".join(f"{package} {version}" for package, version in versions.items()))
        for batch_rows, calls in ((1, options.calls), (64, max(1, options.calls // 16))):
            batches = batches_of(options.model, inputs, batch_rows, calls)
            print("\n" + table(measure(crew, batches, options.rounds), batch_rows), flush=True)
        for name, reason in (failed | crew.failed).items():
            print(f"{name} failed: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm-sst2")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES_SHOWN))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=64, help="of one row in a round, at most 64 (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    # The workers inherit these: as many threads for whoever asks the environment, and nothing from the network.
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()
