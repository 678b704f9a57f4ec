"""The packed encoder beside Hugging Face on whole test sets: `python bench/agreement.py`, about an hour of 2 threads.

Every row of SST-2 dev and IMDB test, in float32 and bfloat16, all against Hugging Face's float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from case_study import BATCH_ROWS, SHARED, read_jsonl
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.batches import length_sorted_batches

SETS = {"sst2": ("sst2/dev.jsonl", 512), "imdb": ("imdb/test.jsonl", 256)}
#: Closer than that, two classes are a tie: rounding decides.
TIE = 1e-4


def logits(model: Callable, batches: list[dict[str, Tensor]]) -> Tensor:
    """Of all rows: (rows, C) float32."""
    with torch.no_grad():
        return torch.cat([model(**batch).logits.float() for batch in batches])


def line(name: str, dtype: torch.dtype, ours: Tensor, theirs: Tensor, expected: Tensor) -> str:
    """How far our logits and Hugging Face's in dtype are from the expected; labels that differ, ties apart."""
    top = expected.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > TIE
    differ = (ours.argmax(1) != expected.argmax(1)) & clear
    error, their_error = (float((other - expected).abs().max()) for other in (ours, theirs))
    return (
        f"| {name} | {len(ours):,} | {str(dtype).removeprefix('torch.')} | {error:.1e} | {their_error:.1e} "
        f"| {int(differ.sum())} | {1 - float(differ.float().mean()):.3%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny-sst2", "minilm-sst2", "tiny-imdb", "minilm-imdb"])
    parser.add_argument("--rows", type=int, help="only so many, at random (all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | rows | dtype | largest difference | Hugging Face's in dtype | other labels | same label |")
    print("|---|---:|---|---:|---:|---:|---:|", flush=True)
    for name in options.models:
        folder = SHARED / "models" / name
        data, limit = SETS[name.rpartition("-")[2]]
        texts = [row["text"] for row in read_jsonl(SHARED / "data" / data, options.rows)]
        batches, _ = length_sorted_batches(AutoTokenizer.from_pretrained(folder), texts, limit, BATCH_ROWS)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        expected = logits(model, batches)
        for dtype in (torch.float32, torch.bfloat16):
            converted = model.to(dtype)
            theirs = expected if dtype == torch.float32 else logits(converted, batches)
            ours = logits(EarlyExitTextClassificationModel(converted, backend="packed"), batches)
            print(line(name, dtype, ours, theirs, expected), flush=True)


if __name__ == "__main__":
    main()
