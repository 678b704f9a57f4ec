"""Each numeric form on the kernels of each instruction set: `python bench/bench_isa.py`, some minutes.

Each instruction set that the processor has, bounded by MOCO_MAX_ISA, in a process of its own; all in turns on the same
batches of SST-2. Rows per second are medians of rounds, p50 of all calls. Checks that float32 and int8 give the same
bits on all of them, and prints the share of float32's labels that each form keeps. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import torch
from common import BATCH_ROWS, SHARED, read_jsonl

from moco_rt import EarlyExitTextClassificationModel, quantize
from moco_rt._C import can_multiply, cpu_isa
from moco_rt.architectures import load_classifier
from moco_rt.runtime.machine import describe_machine

LEVELS = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
FORMS = ("float32", "bfloat16", "int8")
#: What ATEN_CPU_CAPABILITY, torch's own bound, is beside a level.
CAPABILITIES = {"avx2": "avx2"}
LENGTHS = (16, 64)


def batches_of(tokenizer, texts, batch_rows):
    texts = sorted(texts, key=lambda text: len(tokenizer(text)["input_ids"]))
    chunks = [texts[i : i + batch_rows] for i in range(0, len(texts), batch_rows)]
    return [dict(tokenizer(chunk, padding=True, truncation=True, return_tensors="pt")) for chunk in chunks]


def model_in(form, model, int8_folder):
    if form != "int8":
        return EarlyExitTextClassificationModel(model, dtype=form)
    return EarlyExitTextClassificationModel.from_pretrained(int8_folder)


def save_int8(name: str, folder: str) -> None:
    """Quantise once: torch's own arithmetic, by which `quantize` chooses, differs between instruction sets."""
    model, tokenizer = load_classifier(str(SHARED / "models" / name))
    texts = [row["text"] for row in read_jsonl(SHARED / "data" / "sst2/train.jsonl", 512)]
    EarlyExitTextClassificationModel(quantize(model, texts, tokenizer=tokenizer)).save_pretrained(folder)


def work(address: str, name: str, int8_folder: str, rows: int, threads: int) -> None:
    """Answer requests (form, cell) with seconds a call, and with a digest and labels where they are asked for."""
    torch.set_num_threads(threads)
    model, tokenizer = load_classifier(str(SHARED / "models" / name))
    test = [row["text"] for row in read_jsonl(SHARED / "data" / "sst2/test.jsonl", rows)]
    forms = [form for form in FORMS if form != "bfloat16" or can_multiply(torch.bfloat16)]
    models = {form: model_in(form, model, int8_folder) for form in forms}
    generator = torch.Generator().manual_seed(0)
    cells = {BATCH_ROWS: batches_of(tokenizer, test, BATCH_ROWS)}
    for length in LENGTHS:
        ids = torch.randint(1000, 20000, (32, 1, length), generator=generator)
        cells[-length] = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    with Client(address) as caller:
        caller.send((cpu_isa(), forms))
        for form, cell, wants_logits in iter(caller.recv, None):
            seconds, logits = [], []
            for batch in cells[cell]:
                start = time.perf_counter()
                answer = models[form](**batch).logits
                seconds.append(time.perf_counter() - start)
                logits.append(answer.float())
            caller.send((seconds, torch.cat(logits).numpy() if wants_logits else None))


def ask(worker: Connection, *request):
    worker.send(request)
    return worker.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm-sst2")
    parser.add_argument("--rows", type=int, default=512, help="of the test set")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    save_int8(options.model, folder.name)
    workers = {}
    for level in LEVELS:
        environment = {**os.environ, "MOCO_MAX_ISA": level, "ATEN_CPU_CAPABILITY": CAPABILITIES.get(level, "avx512")}
        with Listener() as listener:
            arguments = (listener.address, options.model, folder.name, options.rows, options.threads)
            command = [sys.executable, "-c", f"import bench_isa; bench_isa.work{arguments!r}"]
            subprocess.Popen(command, env=environment, cwd=Path(__file__).parent)
            worker = listener.accept()
        isa, forms = worker.recv()
        workers.setdefault(isa, (worker, forms))
    print(describe_machine(), f"\n{options.model}, {options.threads} threads, {options.rounds} rounds\n")
    check(workers)
    measure(workers, options.rounds)
    for worker, _ in workers.values():
        worker.send(None)
    folder.cleanup()


def check(workers) -> None:
    """Check that bits are the same on all of them, and print how many labels int8 keeps."""
    logits = {}
    for isa, (worker, forms) in workers.items():
        for form in forms:
            logits[isa, form] = ask(worker, form, BATCH_ROWS, True)[1]
    for form in ("float32", "int8"):
        digests = {hashlib.sha256(logits[isa, form].tobytes()).hexdigest() for isa in workers}
        assert len(digests) == 1, f"{form} must have the same bits on {', '.join(workers)} (got {len(digests)})"
    print(f"float32 and int8 have the same bits on {', '.join(workers)}")
    for isa, (_, forms) in workers.items():
        expected = logits[isa, "float32"].argmax(1)
        kept = {form: float((logits[isa, form].argmax(1) == expected).mean()) for form in forms}
        print(f"float32's labels kept, {isa}: " + ", ".join(f"{form} {share:.2%}" for form, share in kept.items()))


def measure(workers, rounds: int) -> None:
    """Print rows per second of each form and cell on each of them."""
    print("\n| rows | instruction set | form | rows/s | p50 ms | times float32 |\n|---|---|---|---:|---:|---:|")
    for cell in (BATCH_ROWS, *(-length for length in LENGTHS)):
        runs = [(isa, worker, form) for isa, (worker, forms) in workers.items() for form in forms]
        seconds = {(isa, form): [] for isa, _, form in runs}
        for _ in range(rounds):
            for isa, worker, form in runs:
                seconds[isa, form].append(ask(worker, form, cell, False)[0])
        name = f"{cell} of SST-2" if cell > 0 else f"1 of {-cell} tokens"
        for (isa, form), taken in seconds.items():
            ratios = [sum(plain) / sum(own) for plain, own in zip(seconds[isa, "float32"], taken, strict=True)]
            per_call = sorted(second for one in taken for second in one)
            rows_a_call = max(cell, 1)
            rate = rows_a_call / statistics.median(statistics.mean(one) for one in taken)
            p50 = 1e3 * per_call[len(per_call) // 2]
            print(f"| {name} | {isa} | {form} | {rate:,.0f} | {p50:.2f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
