"""Certified policies of our search and of the published methods, on one backbone and one engine.

`python bench/bench_policies.py` makes bench/results/policies.json and its table in docs/benchmarks.md: wall time of the
packed encoder without exits over the time with them, at four certified agreements, and the share of labels that stay.
Policies are found and certified on other rows. Takes forty minutes; needs `../shared`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BATCH_ROWS, RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs
from numpy.typing import NDArray

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier
from moco_rt.certification.exit_scores import last_certified
from moco_rt.certification.promises import Confident
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.policy import Exit
from moco_rt.runtime.exit_points import ExitPoint, compile_exits
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.tuning import (
    Baseline,
    Recordings,
    Study,
    all_baselines,
    choose,
    record,
    score_exits,
    split_texts,
    study_model,
)

STORED = RESULTS / "policies.json"
AGREEMENTS = (0.995, 0.99, 0.98, 0.97)
CONFIDENCE = 0.95
OURS = "search"
#: Labels are compared on so many rows at most.
MOST_REPORTED = 6000
#: SST-2's own unlabelled texts are what its models were fine-tuned on, half of them phrases of some words: its rows to
#: find policies on are sentences of film reviews instead, so many.
SENTENCES, MOST_SENTENCES = "sentences of imdb/unlabelled.jsonl", 80_000
#: model, rows to find policies on, rows to certify on (None: a share of the former), rows to report on, tokens
SETS = {
    "minilm-sst2": ("minilm-sst2", SENTENCES, "sst2/test.jsonl", "sst2/dev.jsonl", 64),
    "minilm-imdb": ("minilm-imdb", "imdb/unlabelled.jsonl", None, "imdb/test.jsonl", 256),
    "tiny-imdb": ("tiny-imdb", "imdb/unlabelled.jsonl", None, "imdb/test.jsonl", 256),
    "minilm-sst2 on MRPC": ("minilm-sst2", "mrpc/train.jsonl", "mrpc/test.jsonl", "mrpc/dev.jsonl", 128),
}

Exits = Mapping[str, ExitPoint]


def texts(path: str, rows: int | None) -> list:
    """Texts, or pairs, of a file of ../shared."""
    if path == SENTENCES:
        reviews = [re.sub(r"<br */?>", " ", text) for text in texts(SENTENCES.split()[-1], None)]
        found = [sentence for review in reviews for sentence in re.split(r"(?<=[.!?])\s+", review.lower())]
        found = [sentence for sentence in found if 4 <= len(sentence.split()) <= 45]
        return random.Random(0).sample(found, min(rows or MOST_SENTENCES, len(found)))
    found = read_jsonl(SHARED / "data" / path, rows)
    return [(row["text"], row["text2"]) if "text2" in row else row["text"] for row in found]


def certified_search(model: EarlyExitTextClassificationModel, found: Study, level: float) -> list[AnyOffRamp]:
    """Give the model the policy that our search finds and the calibration rows certify; return its off-ramps."""
    choose(model, found, Confident(Guarantee.of_agreement(level, CONFIDENCE)))
    return [exit.condition for exit in model.policy.exits]


def certified_baseline(found: Study, baseline: Baseline, level: float) -> list[AnyOffRamp]:
    """Return the off-ramps of the fastest policy along a baseline's path that the calibration rows certify."""
    scores = score_exits(baseline.off_ramps, found.calibration)
    exits = baseline.exits_of_policies(scores)
    place = max(0, last_certified(exits, scores, Guarantee.of_agreement(level, CONFIDENCE)))
    if (exits[place] == len(baseline.off_ramps)).all():
        return []
    thresholds, patience = baseline.thresholds[place], baseline.patience[place]
    return [
        replace(ramp, thresholds=above, patience=patience)
        for ramp, above in zip(baseline.off_ramps, thresholds, strict=True)
    ]


def compiled(model: EarlyExitTextClassificationModel, off_ramps: Sequence[AnyOffRamp]) -> Exits:
    """Off-ramps as the model runs them."""
    policy = model.policy.without_exits()
    for off_ramp in off_ramps:
        policy.add(Exit.of(off_ramp, off_ramp.site))
    return compile_exits(policy)


def agreement(off_ramps: Sequence[AnyOffRamp], rows: Recordings) -> float:
    """Share of recorded rows that keep the full model's label."""
    if not off_ramps:
        return 1.0
    scores = score_exits(off_ramps, rows)
    exits = scores.exit_of_row(np.array([ramp.thresholds for ramp in off_ramps]), off_ramps[0].patience)
    return round(1 - float(scores.disagrees(exits).mean()), 5)


def in_turns(variants: Sequence[Callable[..., Any]], batches: Sequence[dict]) -> NDArray[np.float64]:
    """Seconds of every variant on every batch, in turns: (batches, variants)."""
    seconds = np.zeros((len(batches), len(variants)))
    for run in variants:
        run(**batches[0])
    turns = np.random.default_rng(0)  # who comes after whom matters where forwards are short
    for i, batch in enumerate(batches):
        for place in turns.permutation(len(variants)):
            start = time.perf_counter()
            variants[place](**batch)
            seconds[i, place] = time.perf_counter() - start
    return seconds


def measure(
    model: EarlyExitTextClassificationModel, variants: Sequence[Exits], batches: Sequence[dict]
) -> list[dict[str, float]]:
    """Every variant on every batch; the first is without exits and what the others are compared with."""
    seconds = in_turns([partial(model.run, exits) for exits in variants], batches)
    return [
        {
            "speedup_median_batch": round(float(np.median(seconds[:, 0] / seconds[:, place])), 3),
            "speedup_total": round(float(seconds[:, 0].sum() / seconds[:, place].sum()), 3),
        }
        for place in range(len(variants))
    ]


def machinery(model: EarlyExitTextClassificationModel, batches: Sequence[dict]) -> float:
    """Time that the policy's exits take when nobody leaves, over the time without exits."""
    conditions = [exit.condition for exit in model.policy.exits]
    nobody = [replace(ramp, thresholds=np.full_like(ramp.thresholds, np.inf)) for ramp in conditions]
    asked = measure(model, [{}, compiled(model, nobody)], batches)[1]
    return round(1 / asked["speedup_median_batch"] - 1, 4)


def monitor_overhead(model: EarlyExitTextClassificationModel, batches: Sequence[dict]) -> float:
    """Time that watching 1% of the rows that left takes, over the time of the policy; all batches, twice in turns."""
    seconds = {False: 0.0, True: 0.0}
    watch = model.monitor(0.01)
    for turn in range(4):
        model._monitor = watch if turn % 2 else None
        start = time.perf_counter()
        for batch in batches:
            model(**batch)
        seconds[bool(turn % 2)] += time.perf_counter() - start
    model._monitor = None
    return round(seconds[True] / seconds[False] - 1, 4)


def run(name: str, rows: int, find_rows: int | None) -> dict:
    """Find, certify and measure everything on one set."""
    model_name, find, certify, report, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / model_name))
    fast = EarlyExitTextClassificationModel(model)
    encoded = partial(encode, tokenizer, max_length=limit)
    calibration = None if certify is None else texts(certify, None)
    split = split_texts(texts(find, find_rows), encoded, calibration=calibration, seed=0)
    found = study_model(fast, split, seed=0)
    methods = all_baselines(found)
    policies, tables = {}, []
    for level in AGREEMENTS:
        policies[OURS, level] = certified_search(fast, found, level)
        tables.append(fast.policy.certificate.table())
        for method, baseline in methods.items():
            policies[method, level] = certified_baseline(found, baseline, level)
    batches, order = length_sorted_batches(tokenizer, texts(report, rows), limit, BATCH_ROWS)
    measured = measure(fast, [{}, *(compiled(fast, off_ramps) for off_ramps in policies.values())], batches)
    recorded = record(fast, encoded(texts(report, MOST_REPORTED)), list(dict.fromkeys(found.sites)))
    results = {method: {} for method in (OURS, *methods)}
    for ((method, level), off_ramps), times in zip(policies.items(), measured[1:], strict=True):
        results[method][str(level)] = {**times, "agreement": agreement(off_ramps, recorded)}
    choose(fast, found, Confident(Guarantee.of_agreement(0.99, CONFIDENCE)))
    return {
        "rows": len(order),
        "reported_rows": len(recorded.lengths),
        "machinery": machinery(fast, batches),
        "monitor": monitor_overhead(fast, batches) if fast.policy.exits else 0.0,
        "calibration_rows": len(found.calibration.lengths),
        "policies": tables,
        "methods": results,
    }


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    heads = " | ".join(f"{agreement:.1%}" for agreement in AGREEMENTS)
    lines = [f"| | certified: | {heads} |", "|---|---|" + "---:|" * len(AGREEMENTS)]
    for name, result in results.items():
        for method, found in result["methods"].items():
            cells = [
                f"{found[str(a)]['speedup_median_batch']:.2f}x ({found[str(a)]['agreement']:.2%})" for a in AGREEMENTS
            ]
            title, bold = (f"{name}, {result['reported_rows']:,} rows", "**") if method == OURS else ("", "")
            lines.append(f"| {title} | {bold}{method}{bold} | " + " | ".join(f"{bold}{c}{bold}" for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", type=int, default=1280, help="to time, at most (%(default)s)")
    parser.add_argument("--find-rows", type=int, help="to find policies on (all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.sets:
        results[name] = run(name, options.rows, options.find_rows)
        print("\n\n".join(results[name]["policies"]), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.out == STORED:
        put_into_docs("policies", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
