"""The promises besides that of all rows, on real rows: `python bench/bench_promises.py`, half an hour.

`"accuracy"`: minilm-imdb, IMDB's labelled test reviews parted by seed into rows that certify that at most one point of
accuracy is lost, and rows that check it; beside the policy of 98% agreement, certified on the same rows.
`"per class"`: minilm-sst2 on sentences of which 1% are positive by the model: what plain 99% does to these few, what
promises of each class keep of them, on sentences that nothing has seen. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_policies import CONFIDENCE, SENTENCES, in_turns, texts
from common import BATCH_ROWS, RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs

from moco_rt.architectures import load_classifier
from moco_rt.certification.promises import Promise, make_promise
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.tuning import Variant, as_given, choose_variant, study_variants

STORED = RESULTS / "promises.json"
MAX_DROP, AGREEMENT = 0.01, 0.98
#: The rare class, its share, and how many of its sentences find and certify.
RARE, SHARE, FEW = 1, 0.01, (100, 150)
#: What is promised of each class.
PER_CLASS = {"99% of all": 0.99, "97% of each class": 0.97, "95% of each class": 0.95}


def choose(variants: list[Variant], promise: Promise) -> tuple[EarlyExitClassifier, dict]:
    """What is chosen for a promise, which stays as it is when another is chosen, and the first line of its report."""
    fast = copy.copy(choose_variant(variants, promise))
    certificate = fast.policy.certificate
    return fast, {"variant": certificate.variant, "says": certificate.table().splitlines()[0]}


def speedups(given: EarlyExitClassifier, models: list[EarlyExitClassifier], rows: list, limit: int) -> list[float]:
    """Time of the model as it was given over that of each model, on batches in turns."""
    batches, _ = length_sorted_batches(given.tokenizer, rows, limit, BATCH_ROWS)
    seconds = in_turns([model.forward for model in (given, *models)], batches)
    return [round(float(np.median(seconds[:, 0] / seconds[:, place])), 3) for place in range(1, len(models) + 1)]


def accuracy(options: argparse.Namespace) -> dict:
    """One point of accuracy at most, on IMDB."""
    limit = 256
    model, tokenizer = load_classifier(str(SHARED / "models" / "minilm-imdb"))
    given = as_given(model, tokenizer, None, None, limit)
    labelled = read_jsonl(SHARED / "data" / "imdb/test.jsonl", options.certify_rows + options.report_rows)
    certify, report = labelled[: options.certify_rows], labelled[options.certify_rows :]
    split = given.split(
        texts("imdb/unlabelled.jsonl", options.find_rows),
        [row["text"] for row in certify],
        [row["label"] for row in certify],
        0,
    )
    plain, variants = copy.copy(given.model), study_variants(given, "auto", split, 0)
    wishes = {
        f"at most {MAX_DROP:.0%} of accuracy": partial(make_promise, "accuracy", None, MAX_DROP),
        f"{AGREEMENT:.0%} agreement": partial(make_promise, "confident", AGREEMENT, None),
    }
    chosen = {name: choose(variants, wish(CONFIDENCE, given.model.class_names, 0)) for name, wish in wishes.items()}
    rows, true = [row["text"] for row in report], np.array([row["label"] for row in report])
    models = [fast for fast, _ in chosen.values()]
    times = speedups(plain, models, rows[: options.time_rows], limit)
    labels = [fast.predict(rows, max_length=limit).labels.numpy() for fast in (plain, *models)]
    results = {
        name: {
            **said,
            "speedup": speedup,
            "drop": round(float((labels[0] == true).mean() - (own == true).mean()), 5),
            "agreement": round(float((own == labels[0]).mean()), 5),
        }
        for (name, (_, said)), speedup, own in zip(chosen.items(), times, labels[1:], strict=True)
    }
    return {"rows": len(rows), "accuracy": round(float((labels[0] == true).mean()), 5), "promises": results}


def per_class(options: argparse.Namespace) -> dict:
    """A class that is rare: sentences with 1% of positive ones."""
    limit = 64
    model, tokenizer = load_classifier(str(SHARED / "models" / "minilm-sst2"))
    given = as_given(model, tokenizer, None, None, limit)
    sentences = list(dict.fromkeys(texts(SENTENCES, options.sentences)))
    labels = given.model.predict(sentences, max_length=limit).labels.numpy()
    rare = [sentence for sentence, label in zip(sentences, labels, strict=True) if label == RARE]
    other = [sentence for sentence, label in zip(sentences, labels, strict=True) if label != RARE]
    parts = []
    for few in FEW:
        many = round(few / SHARE) - few
        if len(rare) < few or len(other) < many:
            raise ValueError(f"sentences must be more: {few} and {many} are needed (got {len(rare)} and {len(other)})")
        part = [*rare[:few], *other[:many]]
        parts.append([part[place] for place in np.random.default_rng(0).permutation(len(part))])
        rare, other = rare[few:], other[many:]
    split = given.split(parts[0], parts[1], None, 0)
    plain, variants = copy.copy(given.model), study_variants(given, "auto", split, 0)
    chosen = {}
    for name, agreement in PER_CLASS.items():
        kind = "confident" if name.endswith("all") else "per class"
        chosen[name] = choose(variants, make_promise(kind, agreement, None, CONFIDENCE, given.model.class_names, 0))
    models = [fast for fast, _ in chosen.values()]
    mixed = other[: options.time_rows - round(SHARE * options.time_rows)]
    mixed += rare[: round(SHARE * options.time_rows)]
    times = speedups(plain, models, mixed, limit)
    results = {}
    for (name, (fast, said)), speedup in zip(chosen.items(), times, strict=True):
        kept = [
            float((fast.predict(rows, max_length=limit).labels.numpy() == label).mean())
            for rows, label in ((rare, RARE), (other, 1 - RARE))
        ]
        results[name] = {**said, "speedup": speedup, "rare": round(kept[0], 5), "other": round(kept[1], 5)}
    return {"rare": len(rare), "other": len(other), "promises": results}


def table(results: dict) -> str:
    """Make the tables of docs/benchmarks.md."""
    lines = []
    if found := results.get("accuracy"):
        lines += [
            f"| minilm-imdb, {found['rows']:,} rows (accuracy {found['accuracy']:.2%}) | form | speed | accuracy lost "
            "| labels kept |",
            "|---|---|---:|---:|---:|",
            *(
                f"| {name} | {one['variant']} | {one['speedup']:.2f}x | {100 * one['drop']:.2f} points "
                f"| {one['agreement']:.2%} |"
                for name, one in found["promises"].items()
            ),
            "",
        ]
    if found := results.get("per class"):
        lines += [
            f"| minilm-sst2, {SHARE:.0%} positive | form | speed | kept of {found['rare']:,} positive "
            f"| kept of {found['other']:,} others |",
            "|---|---|---:|---:|---:|",
            *(
                f"| {name} | {one['variant']} | {one['speedup']:.2f}x | {one['rare']:.2%} | {one['other']:.2%} |"
                for name, one in found["promises"].items()
            ),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    runs = {"accuracy": accuracy, "per class": per_class}
    parser.add_argument("--promises", nargs="+", choices=runs, default=list(runs))
    parser.add_argument("--find-rows", type=int, default=8_000, help="reviews to find policies on (%(default)s)")
    parser.add_argument("--certify-rows", type=int, default=10_000, help="labelled reviews (%(default)s)")
    parser.add_argument("--report-rows", type=int, default=14_877, help="labelled reviews, at most (%(default)s)")
    parser.add_argument("--sentences", type=int, default=60_000, help="sentences to choose from (%(default)s)")
    parser.add_argument("--time-rows", type=int, default=1280, help="to time (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.promises:
        results[name] = runs[name](options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results), flush=True)
    if options.out == STORED:
        put_into_docs("promises", table(results))


if __name__ == "__main__":
    main()
