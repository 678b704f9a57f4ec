"""The packed encoder beside Hugging Face on whole test sets: `python bench/agreement.py`, about an hour of 2 threads.

Compares every row of SST-2 dev and test and of IMDB test, in every dtype that the processor multiplies, with Hugging
Face's float32. int8 is quantised on 512 other texts; Hugging Face has none.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from common import BATCH_ROWS, DTYPES, SHARED, multiplied_dtypes, read_jsonl
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from moco_rt import EarlyExitTextClassificationModel, quantize
from moco_rt.inputs.batching import length_sorted_batches

#: What is compared, what int8 is quantised on, tokens.
SETS = {
    "sst2": (("sst2/dev.jsonl", "sst2/test.jsonl"), "sst2/train.jsonl", 512),
    "imdb": (("imdb/test.jsonl",), "imdb/unlabelled.jsonl", 256),
}
#: Closer than that, two classes are a tie: rounding decides.
TIE = 1e-4


def logits(model: Callable, batches: list[dict[str, Tensor]]) -> Tensor:
    """Of all rows: (rows, C) float32."""
    with torch.no_grad():
        return torch.cat([model(**batch).logits.float() for batch in batches])


def line(name: str, dtype: str, ours: Tensor, theirs: Tensor | None, expected: Tensor, true: Tensor) -> str:
    """How far our logits and Hugging Face's in dtype are from the expected; labels that differ, ties apart."""
    top = expected.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > TIE
    differ = (ours.argmax(1) != expected.argmax(1)) & clear
    error, their_error = (
        "" if other is None else f"{float((other - expected).abs().max()):.1e}" for other in (ours, theirs)
    )
    points = 100 * float((ours.argmax(1) == true).float().mean() - (expected.argmax(1) == true).float().mean())
    return (
        f"| {name} | {len(ours):,} | {dtype} | {error} | {their_error} "
        f"| {int(differ.sum())} | {1 - float(differ.float().mean()):.3%} | {points:+.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny-sst2", "minilm-sst2", "tiny-imdb", "minilm-imdb"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(multiplied_dtypes()))
    parser.add_argument("--rows", type=int, help="only so many, at random (all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | rows | dtype | largest error | Hugging Face's in dtype | other labels | same label | accuracy |")
    print("|---|---:|---|---:|---:|---:|---:|---:|", flush=True)
    for name in options.models:
        folder = SHARED / "models" / name
        files, others, limit = SETS[name.rpartition("-")[2]]
        rows = [row for file in files for row in read_jsonl(SHARED / "data" / file, options.rows)]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batches, order = length_sorted_batches(tokenizer, [row["text"] for row in rows], limit, BATCH_ROWS)
        true = torch.tensor([rows[place]["label"] for place in order])
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        expected = logits(model, batches)
        for dtype in options.dtypes:
            theirs = None
            if dtype == "int8":
                calibration = [row["text"] for row in read_jsonl(SHARED / "data" / others, 512)]
                converted = quantize(model, calibration, tokenizer=tokenizer, max_length=limit)
            else:
                converted = copy.deepcopy(model).to(DTYPES[dtype])
                theirs = expected if dtype == "float32" else logits(converted, batches)
            ours = logits(EarlyExitTextClassificationModel(converted, backend="packed"), batches)
            print(line(name, dtype, ours, theirs, expected, true), flush=True)


if __name__ == "__main__":
    main()
