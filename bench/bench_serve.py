"""A server under load: `python bench/bench_serve.py --keep FOLDER`.

`moco-rt serve` runs minilm-sst2 with a policy at 99% in a process of its own; 1, 8 and 64 clients each ask, wait for
the answer and ask again, over sockets of this machine, with one text a request and with 32. Printed are rows a
second, rows by second of the server's processor time (of all its threads) over those of `predict` on the same rows,
in turns with it, and the median and 99th percentile of a request's milliseconds, beside those of a direct call; at last
what a row costs `predict` by how many it gets at once, which is what batches of the server cost without HTTP.
Answers are compared with `predict`'s. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench_policies import SENTENCES, texts
from common import SHARED, read_jsonl

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import cpu_isa
from moco_rt.architectures import load_classifier

MODEL, LIMIT = "minilm-sst2", 64
CLIENTS = (1, 8, 64)
#: Rows that `predict` gets at once.
SIZES = (1, 8, 32, 64, 2048)


def processor_seconds(process: int) -> float:
    """Processor time of all threads of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepared(folder: Path) -> Path:
    """The model with its policy, made once."""
    fast = folder / f"{MODEL}-99"
    if not fast.exists():
        model, tokenizer = load_classifier(str(SHARED / "models" / MODEL))
        found = moco_rt.accelerate(
            model, texts(SENTENCES, 16_000), tokenizer=tokenizer, agreement=0.99, max_length=LIMIT, dtype="float32"
        )
        found.save_pretrained(fast)
    return fast


def started(fast: Path, threads: int) -> tuple[subprocess.Popen, int]:
    """A server that answers, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moco_rt", "serve", str(fast), "--port", str(port), "--threads", str(threads)]
    began = time.perf_counter()
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            print(f"the server answers after {time.perf_counter() - began:.1f} s")
            return server, port
        except OSError:
            assert server.poll() is None, "the server stopped"
            time.sleep(0.05)


async def client(
    port: int, requests: list[bytes], until: float, seconds: list[float], answers: dict, first: int
) -> int:
    """Ask until it is time, one after the other; gives how many answers came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count, place = 0, first
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(requests[place % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(next(line for line in head.lower().splitlines() if line.startswith(b"content-length")).split()[1])
        body = await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        answers[place % len(requests)] = body
        count, place = count + 1, place + 7
    writer.close()
    return count


def load(port: int, requests: list[bytes], clients: int, duration: float) -> tuple[int, list[float], dict]:
    """Answers, milliseconds of each, and bodies by request."""
    seconds: list[float] = []
    answers: dict[int, bytes] = {}

    async def all_of_them() -> int:
        until = time.perf_counter() + duration
        return sum(await asyncio.gather(*(client(port, requests, until, seconds, answers, i) for i in range(clients))))

    return asyncio.run(all_of_them()), [1e3 * each for each in seconds], answers


def as_requests(rows: list[str], size: int) -> list[bytes]:
    """Requests of so many texts each."""
    found = []
    for start in range(0, len(rows) - size + 1, size):
        body = json.dumps({"inputs": [[text] for text in rows[start : start + size]]}).encode()
        head = ["POST /predict HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}"]
        found.append("\r\n".join([*head, "", ""]).encode() + body)
    return found


def check(answers: dict, size: int, expected: list[str]) -> None:
    """Assert that the labels are those of `predict`."""
    for place, body in answers.items():
        labels = [each[0]["label"] for each in json.loads(body)]
        assert labels == expected[place * size : (place + 1) * size]


class Setup(NamedTuple):
    """A server and, in this process, the model that it serves, with rows and the labels that `predict` gives them."""

    process: int
    port: int
    model: EarlyExitTextClassificationModel
    rows: list[str]
    labels: list[str]

    def predict(self, size: int, rows: int) -> tuple[float, list[float]]:
        """Predict `size` rows at a time: processor seconds of a row, and milliseconds of each call."""
        own, milliseconds = time.process_time(), []
        for start in range(0, rows, size):
            since = time.perf_counter()
            self.model.predict(self.rows[start % (len(self.rows) - size + 1) :][:size], max_length=LIMIT)
            milliseconds.append(1e3 * (time.perf_counter() - since))
        return (time.process_time() - own) / (size * len(milliseconds)), milliseconds


def measured(setup: Setup, size: int, clients: int, options: argparse.Namespace) -> str:
    """One line: the server and `predict` in turns, and the median of what one does by what the other does."""
    requests = as_requests(setup.rows, size)
    load(setup.port, requests, clients, 1.0)
    rates, shares, milliseconds, direct = [], [], [], []
    for _ in range(options.rounds):
        began, before = time.perf_counter(), processor_seconds(setup.process)
        count, these, answers = load(setup.port, requests, clients, options.seconds)
        wall, used = time.perf_counter() - began, processor_seconds(setup.process) - before
        check(answers, size, setup.labels)
        of_row, _ = setup.predict(len(setup.rows), len(setup.rows))
        direct += setup.predict(size, 50 * size)[1]
        rates.append((count * size / wall, count * size / used))
        shares.append(count * size / used * of_row)
        milliseconds += these
    by_wall, by_processor = np.median(rates, axis=0)
    return (
        f"{clients:>3} clients, {size:>2} texts: {by_wall:7.0f} rows/s, {by_processor:6.0f} rows a processor second "
        f"({np.median(shares):.0%} of predict's, {min(shares):.0%} to {max(shares):.0%}), ms median "
        f"{np.median(milliseconds):.1f}, p99 {np.percentile(milliseconds, 99):.1f} "
        f"(direct {np.median(direct):.1f}, {np.percentile(direct, 99):.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="a folder for the model, which is made once")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.keep.mkdir(parents=True, exist_ok=True)
    fast = prepared(options.keep)
    rows = [row["text"] for row in read_jsonl(SHARED / "data" / "sst2" / "train.jsonl", options.rows)]
    model = EarlyExitTextClassificationModel.from_pretrained(fast)
    expected = [row["label"] for row in model.predict(rows, max_length=LIMIT)]
    process, port = started(fast, options.threads)
    server = Setup(process.pid, port, model, rows, expected)
    print(f"{cpu_isa()}, {options.threads} threads, {len(rows)} rows")
    try:
        for size in (1, 32):
            for clients in CLIENTS:
                print(measured(server, size, clients, options), flush=True)
        costs = [np.median([server.predict(size, 2048)[0] for _ in range(options.rounds)]) for size in SIZES]
        print(
            "processor ms of a row, predict: "
            + ", ".join(f"{size} at once {1e3 * cost:.2f}" for size, cost in zip(SIZES, costs, strict=True))
        )
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
