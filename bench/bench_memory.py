"""What a loaded model takes: `python bench/bench_memory.py MODEL`, in every dtype it has kernels for.

Every dtype in a process of its own that loads what was saved in it, runs a batch, and gives back what is free: resident
memory beyond that before loading. Half a minute; needs `../shared`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from common import SHARED, multiplied_dtypes, read_jsonl

from moco_rt import EarlyExitTextClassificationModel, quantize
from moco_rt.architectures import load_classifier, load_model

QUANTISED_ON = 256
ROWS, TOKENS = 64, 25


def resident() -> float:
    """MiB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def measure(load: Callable[[str], torch.nn.Module], directory: str, connection: Connection) -> None:
    """Load, run, say how much memory that took."""
    # Whatever torch keeps once and for all is not the model's.
    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))
    before = resident()
    model = load(directory)
    with torch.inference_mode():
        model(input_ids=torch.ones(ROWS, TOKENS, dtype=torch.int64))
    connection.send(resident() - before)


def in_process(load: Callable[[str], torch.nn.Module], directory: str) -> float:
    """MiB that a model takes, measured in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(load, directory, theirs))
    process.start()
    theirs.close()  # or nobody would notice that the process ended without an answer
    found: float = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="minilm-sst2", help="of ../shared/models, or a directory")
    options = parser.parse_args()
    given = SHARED / "models" / options.model
    name = str(given if given.is_dir() else options.model)
    model, tokenizer = load_classifier(name)
    texts = [row["text"] for row in read_jsonl(SHARED / "data/sst2/test.jsonl", QUANTISED_ON)]
    with tempfile.TemporaryDirectory() as root:
        saved = {}
        for dtype, asked in multiplied_dtypes().items():
            saved[dtype] = f"{root}/{dtype}"
            if dtype == "int8":
                quantize(model, texts, tokenizer=tokenizer, max_length=64).save_pretrained(saved[dtype])
            else:
                EarlyExitTextClassificationModel(model, dtype=asked).model.save_pretrained(saved[dtype])
        found = {"float32, Hugging Face": in_process(load_model, saved["float32"])}
        found |= {dtype: in_process(EarlyExitTextClassificationModel.from_pretrained, saved[dtype]) for dtype in saved}
    for dtype, mib in found.items():
        share = f"{mib / found['float32']:.0%} of float32, {mib / found['float32, Hugging Face']:.0%} of Hugging Face's"
        print(f"{options.model}, {dtype}: {mib:.0f} MiB ({share})")


if __name__ == "__main__":
    main()
