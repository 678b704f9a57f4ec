"""A whole model with zeros over one of its sizes without: `python bench/bench_sparse.py`, two minutes.

Batches of 1 and 64 rows of 16 and 64 tokens, in float32 and int8: rows a second of both and the median of ratios. They
take turns of some forwards each, because the weights of one model would drive those of the other out of the caches.
Checks that labels of the model with zeros are Hugging Face's. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial

import numpy as np
import torch
from bench_policies import in_turns
from common import SHARED, read_jsonl

from moco_rt import EarlyExitTextClassificationModel, quantize
from moco_rt.architectures import load_classifier
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.runtime.machine import describe_machine

TURN = 0.1  # seconds of a model before it is the other's turn
CELLS = [(rows, tokens) for tokens in (16, 64) for rows in (1, 64)]


def check(model, fast, tokenizer, texts: list[str]) -> None:
    """Labels are Hugging Face's, but for rows between two labels."""
    batches, _ = length_sorted_batches(tokenizer, texts, 64, 64)
    with torch.no_grad():
        pairs = [(model(**batch).logits, fast(**batch).logits) for batch in batches]
    same = torch.cat([expected.argmax(1) == found.argmax(1) for expected, found in pairs])
    assert same.float().mean() > 0.995, same.float().mean()


def run_again(model, forwards: int, **batch) -> None:
    for _ in range(forwards):
        model(**batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparse", default=str(SHARED / "models/minilm-sst2-sparse80"), help="%(default)s")
    parser.add_argument("--dense", default=str(SHARED / "models/minilm-sst2"), help="%(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a cell (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(2)
    texts = [row["text"] for row in read_jsonl(SHARED / "data/sst2/dev.jsonl", 512)]
    models = [load_classifier(folder) for folder in (options.dense, options.sparse)]
    forms = {"float32": [EarlyExitTextClassificationModel(model) for model, _ in models]}
    check(models[1][0], forms["float32"][1], models[1][1], texts)
    forms["int8"] = [
        EarlyExitTextClassificationModel(quantize(model, texts, tokenizer=tokenizer, max_length=64))
        for model, tokenizer in models
    ]
    print(f"{describe_machine()}\n\n| rows x tokens | form | rows/s | without zeros | gain |\n|---|---|---:|---:|---:|")
    for rows, tokens in CELLS:
        ids = torch.randint(1000, 20000, (rows, tokens), generator=torch.Generator().manual_seed(0))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for form, (dense, sparse) in forms.items():
            began = time.perf_counter()
            forwards = math.ceil(TURN / in_turns([dense], [batch])[0, 0])
            turns = [partial(run_again, model, forwards) for model in (dense, sparse)]
            seconds = in_turns(turns, [batch])
            while time.perf_counter() - began < options.seconds:
                seconds = np.concatenate([seconds, in_turns(turns, [batch])])
            per_second = rows * forwards / np.median(seconds, axis=0)
            gain = np.median(seconds[:, 0] / seconds[:, 1])
            print(
                f"| {rows} x {tokens} | {form} | {per_second[0]:.0f} | {per_second[1]:.0f} | {gain:.2f}x |", flush=True
            )


if __name__ == "__main__":
    main()
