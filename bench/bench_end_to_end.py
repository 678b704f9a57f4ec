"""One call against the engines of others, from texts to labels: `python bench/bench_end_to_end.py`, half an hour.

`accelerate(model, texts, calibration=..., agreement=0.98)` with nothing else said, saved, loaded in a process of its
own, and in turns with rivals in theirs: seconds of all report rows from strings to labels, tokenising included, and the
share of labels that are those of the model as it was given, of the rivals too. IMDB's test set is parted by seed into
rows that certify and rows to report. Of the probabilities: the share of rows of which a class lies on another side of
0.9 than by the given model, and the areas under both ROC curves. Needs `../shared` and the rivals.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench_policies import SENTENCES, texts
from common import BATCH_ROWS, RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs
from sklearn.metrics import roc_auc_score

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt.architectures import load_classifier
from moco_rt.engines import ENGINES, Conversion, Crew, is_rival
from moco_rt.engines.texts import FastTextSession, TextSession

STORED = RESULTS / "end_to_end.json"
RIVALS = ("openvino.int8", "openvino.bf16", "onnxruntime.int8")
OURS = "moco_rt"
AGREEMENT = 0.98
#: Texts to find a policy on, to certify it with, to report; the longest text in tokens.
SETS = {
    "minilm-sst2": (SENTENCES, "sst2/test.jsonl", "sst2/dev.jsonl", 64),
    "minilm-imdb": ("imdb/unlabelled.jsonl", "imdb/test.jsonl", "imdb/test.jsonl", 256),
}
#: Rows that int8 of others is calibrated on.
CALIBRATION_ROWS = 300


def rows_of(name: str, find_rows: int, certify_rows: int, report_rows: int) -> tuple[list, list, list[dict]]:
    """Texts to find on and to certify, and rows to report; where one file holds two of them it is cut in two."""
    find, certify, report, _ = SETS[name]
    folder = SHARED / "data"
    if certify == report:
        both = read_jsonl(folder / certify, certify_rows + report_rows)
        return texts(find, find_rows), [row["text"] for row in both[:certify_rows]], both[certify_rows:]
    return texts(find, find_rows), texts(certify, None), read_jsonl(folder / report, report_rows)


def probabilities(fast, given, report: list[str], true: list[int]) -> dict:
    """What becomes of probabilities, which rows that leave have by their off-ramps."""
    ours, full = (model.predict(report).probs.numpy() for model in (fast, given))
    return {
        "across_0.9": round(float(((ours >= 0.9) != (full >= 0.9)).any(axis=1).mean()), 5),
        "auc": round(float(roc_auc_score(true, ours[:, 1])), 5),
        "auc_given": round(float(roc_auc_score(true, full[:, 1])), 5),
    }


def run(name: str, rivals: list[str], options: argparse.Namespace, folder: Path) -> dict:
    """One model on one set."""
    limit, directory = SETS[name][3], SHARED / "models" / name
    find, certify, rows = rows_of(name, options.find_rows, options.certify_rows, options.report_rows)
    report, true = [row["text"] for row in rows], [row["label"] for row in rows]
    model, tokenizer = load_classifier(str(directory))
    start = time.perf_counter()
    fast = moco_rt.accelerate(
        model, find, tokenizer=tokenizer, calibration=certify, agreement=AGREEMENT, max_length=limit
    )
    searched = time.perf_counter() - start
    print(fast.report(), flush=True)
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"searched in {searched:.0f} s, {gib:.2f} GiB at most", flush=True)
    fast.save_pretrained(folder / OURS)
    if options.keep is not None:
        fast.save_pretrained(options.keep / name)
    encoded = [tokenizer(text, truncation=True, max_length=limit) for text in find[:CALIBRATION_ROWS]]
    batches = [{key: np.array([values]) for key, values in row.items()} for row in encoded]
    with Crew({rival: (Conversion, rival, directory, folder / rival, batches) for rival in rivals}) as crew:
        failed = crew.failed
    makers = {
        rival: (TextSession, rival, directory, folder / rival, options.threads, limit, BATCH_ROWS)
        for rival in rivals
        if rival not in failed
    }
    given = EarlyExitTextClassificationModel(model)
    given.tokenizer = tokenizer
    given.policy.made_for["max_length"] = limit
    expected = given.predict(report).labels
    with Crew({OURS: (FastTextSession, folder / OURS, options.threads), **makers}) as crew:
        seconds: dict[str, list[float]] = {engine: [] for engine in crew.names()}
        labels = {}
        for turn in range(options.turns + 1):  # the first one warms up
            for engine in crew.names():
                took, labels[engine] = crew.ask(engine, "label", report)
                seconds[engine] += [took] if turn else []
        failed |= crew.failed
    ours = np.array(seconds[OURS])
    return {
        "rows": len(report),
        "searched": round(searched),
        "gib": round(gib, 2),
        **probabilities(fast, given, report, true),
        "variant": fast.policy.certificate.variant,
        "failed": failed,
        "engines": {
            engine: {
                "rows_per_second": round(len(report) / float(np.median(taken)), 1),
                "times": round(float(np.median(np.array(taken) / ours)), 3),
                "agreement": round(float((labels[engine] == expected.numpy()).mean()), 5),
            }
            for engine, taken in seconds.items()
        },
    }


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    lines = [
        "| model | engine | rows/s | labels of the model as given | moco_rt is faster, times |",
        "|---|---|---:|---:|---:|",
    ]
    for name, found in results.items():
        for engine, figures in found["engines"].items():
            shown = f"**{engine}** ({found['variant']} and exits)" if engine == OURS else engine
            times = "" if engine == OURS else f"{figures['times']:.2f}"
            lines.append(
                f"| {name}, {found['rows']:,} rows | {shown} | {figures['rows_per_second']:,.0f} "
                f"| {figures['agreement']:.2%} | {times} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    rivals = [name for name in ENGINES if is_rival(name)]
    parser.add_argument("--engines", nargs="+", choices=rivals, default=list(RIVALS))
    parser.add_argument("--find-rows", type=int, default=20_000)
    parser.add_argument("--certify-rows", type=int, default=4_000, help="where a set is cut (%(default)s)")
    parser.add_argument("--report-rows", type=int, default=2_000, help="at most (%(default)s)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for the models that are found")
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(name, options.engines, options, Path(folder))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results), flush=True)
    if options.out == STORED:
        put_into_docs("end to end", table(results))


if __name__ == "__main__":
    main()
