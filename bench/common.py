"""Where the real models and texts lie, and how benchmarks read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from moco_rt._C import can_multiply

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "bench" / "results"
#: Rows of a batch wherever a benchmark does not say otherwise.
BATCH_ROWS = 64
#: The numeric forms that benchmarks compare, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": "int8"}


def multiplied_dtypes() -> dict:
    """Return those of DTYPES that this processor multiplies."""
    return {name: dtype for name, dtype in DTYPES.items() if can_multiply(getattr(torch, name))}


def read_jsonl(path: Path, rows: int | None) -> list[dict]:
    """Read all rows of a file, or that many chosen at random: the files are not shuffled."""
    with path.open(encoding="utf-8") as lines:
        everything = [json.loads(line) for line in lines]
    if rows is None:
        return everything
    chosen = np.random.default_rng(0).permutation(len(everything))[:rows]
    return [everything[i] for i in chosen]
