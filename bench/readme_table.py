"""README's table, made from the stored results of two benchmarks: `python bench/readme_table.py`.

Run it after `make peers` or `python bench/bench_policies.py` has stored new results.
"""

from __future__ import annotations

import argparse
import json

from common import RESULTS
from docs_table import README, put_into_docs
from peers.report import readable

from moco_rt.engines import BASELINE, OURS

#: Cell of bench/results/peers.json, precision, how README calls the two, set of bench/results/policies.json.
ROWS = (
    ("minilm-sst2/sst2/64", "fp32", "MiniLM, 6 layers; sentences (SST-2)", "minilm-sst2"),
    ("minilm-sst2/sst2/64", "bf16", "the same in bfloat16", None),
    ("minilm-sst2/sst2/64", "int8", "the same in int8 (Hugging Face: float32)", None),
    ("minilm-imdb/imdb-256/64", "fp32", "MiniLM, 6 layers; reviews (IMDB, 256 tokens)", "minilm-imdb"),
    ("tiny-imdb/imdb-256/64", "fp32", "BERT, 2 layers; reviews (IMDB, 256 tokens)", "tiny-imdb"),
    ("bert-base/sst2/64", "fp32", "BERT-base, random weights; sentences", None),
    ("minilm-sst2/16/1", "fp32", "MiniLM, 6 layers; one row of 16 tokens", None),
)
AGREEMENT = "0.99"


def table(cells: dict[str, dict], policies: dict[str, dict]) -> str:
    """Make a line for each of ROWS: rows per second of Hugging Face, the best rival and ours, and what exits add."""
    lines = [
        "| model and texts | Hugging Face | best other engine | moco_rt | with exits, times |",
        "|---|---:|---:|---:|---:|",
    ]
    for cell, precision, name, policy in ROWS:
        engines = cells[cell]["engines"]
        ours = engines[f"{OURS}.{precision}"]
        eager = engines.get(BASELINE.replace("fp32", precision), engines[BASELINE])
        rival = ours["best_rival"]
        exits = ""
        if policy is not None:
            found = policies[policy]["methods"]["search"][AGREEMENT]
            exits = f"{found['speedup_median_batch']:.2f} ({found['agreement']:.2%} kept)"
        figures = [
            name,
            readable(eager["rows_per_second"]),
            f"{readable(engines[rival]['rows_per_second'])} ({rival.partition('.')[0]})",
            f"**{readable(ours['rows_per_second'])}**",
            exits,
        ]
        lines.append("| " + " | ".join(figures) + " |")
    return "\n".join(lines)


def stored_table() -> str:
    """Make the table from the results that the repository holds."""
    peers, policies = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("peers", "policies")
    )
    return table(peers, policies)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    put_into_docs("summary", stored_table(), README)


if __name__ == "__main__":
    main()
