"""What exits save on every family: `cd bench && python -m models`.

Makes a small model of each family, lets `accelerate` look for exits on sentences that it has not learnt from, and
reports on others: how many labels differ, and the time without exits over that with them. Ten minutes a model; needs
`../shared`. `--models smollm2` does the same with a decoder that others have trained.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from models.distil import ACCELERATE_ROWS, MAX_LENGTH, distil, families, rows
from models.smollm import smollm

SMOLLM = "smollm2"
TIMINGS = 7


def seconds(model: EarlyExitTextClassificationModel, texts: list[str]) -> float:
    """Return how long a model takes to label texts."""
    start = time.perf_counter()
    model.predict(texts, max_length=MAX_LENGTH)
    return time.perf_counter() - start


def measure(name: str, agreement: float, count: int) -> str:
    """A row of the table."""
    model, tokenizer = smollm() if name == SMOLLM else distil(name)
    never_seen, held_back, _ = rows()
    texts = [row["text"] for row in held_back[:count]]
    fast = moco_rt.accelerate(model, texts, tokenizer=tokenizer, max_length=MAX_LENGTH, agreement=agreement)
    plain = EarlyExitTextClassificationModel(model)
    plain.tokenizer = tokenizer
    texts = [row["text"] for row in never_seen]
    labels = torch.tensor([row["label"] for row in never_seen])
    expected, found = (each.predict(texts, max_length=MAX_LENGTH) for each in (plain, fast))
    ratios = [seconds(plain, texts) / seconds(fast, texts) for _ in range(TIMINGS)]
    accuracy = [100 * float((each.labels == labels).float().mean()) for each in (expected, found)]
    differ = int((expected.labels != found.labels).sum())
    left = 100 * float((found.exit_site >= 0).float().mean())
    return (
        f"| {name} | {plain.backend} | {accuracy[0]:.1f} | {accuracy[1]:.1f} | {differ} of {len(texts):,} "
        f"({100 * differ / len(texts):.2f}%) | {left:.0f}% | {statistics.median(ratios):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*families(), SMOLLM], default=list(families()))
    parser.add_argument("--agreement", type=float, default=0.99)
    parser.add_argument("--rows", type=int, default=ACCELERATE_ROWS, help="for accelerate")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.agreement:.0%} asked for, {options.threads} threads")
    print("| model | backend | accuracy | with exits | labels that differ | rows that leave | time without over with |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in options.models:
        print(measure(name, options.agreement, options.rows), flush=True)


if __name__ == "__main__":
    main()
