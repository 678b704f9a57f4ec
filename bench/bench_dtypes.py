"""What a dtype and exits make together: `python bench/bench_dtypes.py`.

Rows per second of the packed encoder in float32, bfloat16 and int8, each without exits and with a policy that was
found and certified at 99% in that dtype, all in turns on the same batches; labels are compared with float32's without
exits. Writes bench/results/dtypes.json and the table of docs/benchmarks.md. Takes an hour, and a
processor that multiplies all three; needs `../shared`.
"""

from __future__ import annotations

import argparse
import json
from functools import partial

import torch
from bench_policies import CONFIDENCE, SETS, in_turns, texts
from common import BATCH_ROWS, DTYPES, RESULTS, SHARED
from docs_table import put_into_docs

from moco_rt import EarlyExitTextClassificationModel, quantize
from moco_rt.architectures import load_classifier
from moco_rt.certification.promises import Confident
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.tokenization import encode
from moco_rt.runtime.exit_points import compile_exits
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.tuning import choose, split_texts, study_model

STORED = RESULTS / "dtypes.json"
PROMISE = Confident(Guarantee.of_agreement(0.99, CONFIDENCE))


def run(name: str, rows: int, find_rows: int | None) -> dict:
    """Find a policy in every dtype, measure all of them on one set."""
    model_name, find, certify, report, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / model_name))
    calibration = None if certify is None else texts(certify, None)
    encoded = partial(encode, tokenizer, max_length=limit)
    split = split_texts(texts(find, find_rows), encoded, calibration=calibration, seed=0)
    variants = {}
    for dtype, asked in DTYPES.items():
        in_dtype = model
        if dtype == "int8":
            in_dtype = quantize(model, split.texts[split.fit], tokenizer=tokenizer, max_length=limit)
        fast = EarlyExitTextClassificationModel(in_dtype, dtype=asked)
        choose(fast, study_model(fast, split, seed=0), PROMISE)
        variants[f"{dtype}"] = partial(fast.run, {})
        variants[f"{dtype} + exits"] = partial(fast.run, compile_exits(fast.policy))
    batches, order = length_sorted_batches(tokenizer, texts(report, rows), limit, BATCH_ROWS)
    seconds = in_turns(list(variants.values()), batches).sum(axis=0)
    labels = [torch.cat([run(**batch).logits.argmax(1) for batch in batches]) for run in variants.values()]
    return {
        "rows": len(order),
        "variants": {
            variant: {
                "rows_per_second": round(len(order) / float(spent), 1),
                "agreement": round(float((own == labels[0]).float().mean()), 5),
            }
            for variant, spent, own in zip(variants, seconds, labels, strict=True)
        },
    }


def table(results: dict) -> str:
    """In rows per second, times float32 without exits, and the share of its labels."""
    lines = ["| | " + " | ".join(f"{d} | {d} + exits" for d in DTYPES) + " |", "|---|" + "---:|" * 2 * len(DTYPES)]
    for name, result in results.items():
        found = result["variants"]
        speeds = [figures["rows_per_second"] for figures in found.values()]
        same = [figures["agreement"] for figures in found.values()]
        cells = [f"{s:,.0f} ({s / speeds[0]:.2f}x, {share:.2%})" for s, share in zip(speeds, same, strict=True)]
        lines.append(f"| {name}, {result['rows']:,} rows | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["minilm-sst2", "minilm-imdb", "tiny-imdb"])
    parser.add_argument("--rows", type=int, default=1280, help="to time, at most (%(default)s)")
    parser.add_argument("--find-rows", type=int, help="to find policies on (all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    for name in options.sets:
        results[name] = run(name, options.rows, options.find_rows)
        STORED.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    put_into_docs("dtypes", table(results))


if __name__ == "__main__":
    main()
