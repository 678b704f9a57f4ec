"""Seven wishes along one path, and one wish three times: `python bench/bench_wishes.py`, about fifteen minutes a set.

For agreements from 99 to 92%, `accelerate`'s choice over all numeric forms: time of the model as it was given over that
of what was chosen, batches of 64 in turns, and the share of labels that stay, on rows that nothing has seen. Then 98%
asked for three times from the start, the last time beside a process that keeps a core busy. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_neighbour import BURN, neighbour
from bench_policies import CONFIDENCE, SETS, in_turns, texts
from common import BATCH_ROWS, RESULTS, SHARED
from docs_table import put_into_docs

from moco_rt.architectures import load_classifier
from moco_rt.certification.promises import Confident
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.exit_points import ExitPoint, compile_exits
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.tuning import Variant, as_given, choose_variant, study_variants

STORED = RESULTS / "wishes.json"
AGREEMENTS = (0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92)
REPEATED = 0.98
TIMES = 3

#: A model as it will run, and the exits of one of its policies.
Choice = tuple[EarlyExitClassifier, dict[str, ExitPoint]]


def choose(variants: list[Variant], level: float) -> tuple[Choice, str]:
    """What is chosen for an agreement, and the name of the form that it runs in."""
    fast = choose_variant(variants, Confident(Guarantee.of_agreement(level, CONFIDENCE)))
    choice = (fast, compile_exits(fast.policy))
    return choice, fast.policy.certificate.variant


def measured(given: EarlyExitClassifier, choices: list[Choice], batches: list[dict]) -> list[dict[str, float]]:
    """Speed over the model as it was given, and the share of its labels that stay, of every choice."""
    runs = [partial(given.run, {}), *(partial(model.run, exits) for model, exits in choices)]
    seconds = in_turns(runs, batches)
    labels = [torch.cat([run(**batch).logits.argmax(1) for batch in batches]) for run in runs]
    return [
        {
            "speedup": round(float(np.median(seconds[:, 0] / seconds[:, place])), 3),
            "agreement": round(float((labels[place] == labels[0]).float().mean()), 5),
        }
        for place in range(1, len(runs))
    ]


def run(name: str, rows: int, find_rows: int | None) -> dict:
    """All wishes on one set, and one of them several times."""
    model_name, find, certify, report, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / model_name))
    given = as_given(model, tokenizer, None, None, limit)
    split = given.split(texts(find, find_rows), None if certify is None else texts(certify, None), None, 0)
    batches, order = length_sorted_batches(tokenizer, texts(report, rows), limit, BATCH_ROWS)
    variants = study_variants(given, "auto", split, 0)
    chosen = [choose(variants, level) for level in AGREEMENTS]
    again = [choose(variants, REPEATED)]
    for turn in range(1, TIMES):
        with neighbour(BURN if turn == TIMES - 1 else None):
            again.append(choose(study_variants(given, "auto", split, 0), REPEATED))
    results = measured(given.model, [choice for choice, _ in (*chosen, *again)], batches)
    named = [{**result, "variant": form} for result, (_, form) in zip(results, (*chosen, *again), strict=True)]
    wishes = dict(zip(map(str, AGREEMENTS), named, strict=False))
    return {"rows": len(order), "wishes": wishes, "again": named[len(AGREEMENTS) :]}


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    heads = " | ".join(f"{level:.0%}" for level in AGREEMENTS)
    lines = [f"| asked for: | {heads} | {REPEATED:.0%} three times |", "|---|" + "---:|" * (len(AGREEMENTS) + 1)]
    for name, result in results.items():
        cells = [
            f"{found['speedup']:.2f}x ({found['agreement']:.2%}, {found['variant']})"
            for found in result["wishes"].values()
        ]
        again = ", ".join(f"{found['speedup']:.2f}x" for found in result["again"])
        lines.append(f"| {name}, {result['rows']:,} rows | " + " | ".join(cells) + f" | {again} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS)[:3])
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
        put_into_docs("wishes", table(results))


if __name__ == "__main__":
    main()
