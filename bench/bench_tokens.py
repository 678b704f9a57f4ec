"""What the site `tokens` adds: `python bench/bench_tokens.py`, ten minutes a set.

By numeric form the time of the policy that 98% agreement gives without a bag of tokens over the time of the one with
it, 64 rows at a time in turns, both searched on one study. And the share of rows that the bag by itself settles where
it may change 0.5, 1 and 2% of all labels, thresholds read off the reported rows. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_policies import CONFIDENCE, SETS, in_turns, texts
from common import BATCH_ROWS, RESULTS, SHARED
from docs_table import put_into_docs

from moco_rt.architectures import load_classifier
from moco_rt.architectures.sites import TOKENS
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.promises import Confident
from moco_rt.certification.selection import ExitCandidates
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.tokenization import encode
from moco_rt.runtime.exit_points import compile_exits
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.recording import record
from moco_rt.tuning import Variant, as_given, choose_variant, score_exits, study_variants

STORED = RESULTS / "tokens.json"
AGREEMENT = 0.98
ERRORS = (0.005, 0.01, 0.02)


def without_tokens(candidates: ExitCandidates) -> ExitCandidates:
    """The same exits, of which a search may use all but the bag."""
    return replace(candidates, groups=[[place for place, site in enumerate(candidates.sites) if site != TOKENS]])


def gain(variant: Variant, batches: list[dict]) -> float:
    """Time without a bag over the time with it, the median over batches."""
    promise, runs = Confident(Guarantee.of_agreement(AGREEMENT, CONFIDENCE)), []
    for candidates in (without_tokens(variant.candidates), variant.candidates):
        fast = choose_variant([replace(variant, candidates=candidates)], promise)
        runs.append(partial(fast.run, compile_exits(fast.policy)))
    seconds = in_turns(runs, batches)
    return round(float(np.median(seconds[:, 0] / seconds[:, 1])), 3)


def settled(scores: ExitScores) -> dict[str, float]:
    """Share of rows that may leave by the bag, the surest first, where it changes these shares of all labels."""
    surest = np.argsort(-scores.score[0], kind="stable")
    changed = scores.wrong[0, surest].cumsum() / scores.rows
    return {str(error): round(float((changed <= error).nonzero()[0][-1] + 1) / scores.rows, 4) for error in ERRORS}


def run(name: str, rows: int, find_rows: int | None) -> dict:
    """Everything on one set."""
    model_name, find, certify, report, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / model_name))
    given = as_given(model, tokenizer, None, None, limit)
    split = given.split(texts(find, find_rows), None if certify is None else texts(certify, None), None, 0)
    variants = study_variants(given, "auto", split, 0)
    batches, order = length_sorted_batches(tokenizer, texts(report, rows), limit, BATCH_ROWS)
    recorded = record(given.model, encode(tokenizer, texts(report, rows), limit), [TOKENS])
    bag = variants[0].study.off_ramps[0]
    return {
        "rows": len(order),
        "settled": settled(score_exits([bag], recorded)),
        "gain": {variant.name: gain(variant, batches) for variant in variants},
    }


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    forms = list(next(iter(results.values()))["gain"])
    heads = [
        *(f"settled at {error:.1%}" for error in ERRORS),
        *(f"{form}, {AGREEMENT:.0%} asked for" for form in forms),
    ]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, found in results.items():
        cells = [f"{share:.1%}" for share in found["settled"].values()]
        cells += [f"{found['gain'][form]:.2f}x" for form in forms]
        lines.append(f"| {name}, {found['rows']:,} rows | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS)[:2])
    parser.add_argument("--rows", type=int, default=1280, help="to report on, at most (%(default)s)")
    parser.add_argument("--find-rows", type=int, default=20_000, help="to find policies on (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.sets:
        results[name] = run(name, options.rows, options.find_rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results), flush=True)
    if options.out == STORED:
        put_into_docs("tokens", table(results))


if __name__ == "__main__":
    main()
