"""Smaller models, what they keep and what they save: `python bench/bench_compress.py`, hours with `--epochs`.

`compress` makes models of several widths and lengths from unlabelled texts, without recovery and, with `--epochs`, with
it. Of each: the share of labels kept, accuracy and calibration error on labelled rows that nobody has seen, seconds of
1,000 rows in float32 and int8, batches of 64 in turns with the given model, and minutes to make it. Then `accelerate`'s
search with and without them among its variants, from one study: the fastest that is certified to lose at most one point
of accuracy, and to keep 97% and 95% of the labels, checked on the rest of the labelled rows. Needs `../shared`.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_policies import CONFIDENCE, SENTENCES, in_turns, texts
from common import BATCH_ROWS, RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import cpu_isa
from moco_rt.architectures import load_classifier
from moco_rt.architectures.compressed.layers import Widths, head_size, product_weights
from moco_rt.certification.promises import make_promise
from moco_rt.compression.schedule import share_seen
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.statistics.calibration import calibration_error
from moco_rt.tuning import Variant, as_given, choose_variant, study_variants

STORED = RESULTS / "compress.json"
#: Texts to learn from, texts that the model was not fine-tuned on, labelled rows (of several files, one after the
#: other), the longest row in tokens.
SETS = {
    "minilm-sst2": ("sst2/train.jsonl", SENTENCES, ("sst2/dev.jsonl", "sst2/test.jsonl"), 64),
    "minilm-imdb": ("imdb/unlabelled.jsonl", "imdb/unlabelled.jsonl", ("imdb/test.jsonl",), 256),
}
#: What is asked of `compress`.
DIALS: dict[str, list[dict[str, Any]]] = {
    "minilm-sst2": [
        {"width": 0.75},
        {"width": 0.5},
        {"lengths": 0.5},
        {"width": 0.5, "lengths": 0.7},
        {"sparsity": 0.5},
        {"sparsity": 0.8},
        {"sparsity": 0.9},
    ],
    "minilm-imdb": [
        {"width": 0.5},
        {"lengths": 0.5},
        {"width": 0.5, "lengths": 0.5},
        {"sparsity": 0.8},
        {"lengths": 0.65},
        {"lengths": {0: 0.5}},  # in the layers that all rows meet, for exits behind them
    ],
}
#: What is promised.
WISHES = {
    "at most 1 point of accuracy": partial(make_promise, "accuracy", None, 0.01),
    "97% agreement": partial(make_promise, "confident", 0.97, None),
    "95% agreement": partial(make_promise, "confident", 0.95, None),
}


def named(dials: dict[str, Any]) -> str:
    """Return what a table calls a model."""
    return ", ".join(f"{name} {value}" for name, value in dials.items())


def chosen(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what is asked of `compress` for a set."""
    return DIALS[name] if options.dials is None else [DIALS[name][place] for place in options.dials]


def ready(model: Any, tokenizer: Any, dtype: Any = None) -> EarlyExitTextClassificationModel:
    fast = EarlyExitTextClassificationModel(model, dtype=dtype)
    fast.tokenizer = tokenizer
    return fast


class Described(NamedTuple):
    """A model to describe, in float32 and in int8."""

    fast: EarlyExitTextClassificationModel
    int8: EarlyExitTextClassificationModel


def in_two_forms(model: Any, int8: Any, tokenizer: Any) -> Described:
    return Described(ready(model, tokenizer), ready(int8, tokenizer))


def describe(small: Described, given: Described, labelled: list[dict], limit: int) -> dict:
    """What a model keeps of another on labelled rows, and its time over that of the other, in two forms."""
    rows, true = [row["text"] for row in labelled], np.array([row["label"] for row in labelled])
    models = (small.fast, small.int8, given.fast)
    probs, probs_int8, full = (each.predict(rows, max_length=limit).probs.numpy() for each in models)
    batches, _ = length_sorted_batches(given.fast.tokenizer, rows[:1024], limit, BATCH_ROWS)
    seconds = in_turns([each.forward for each in (given.fast, small.fast, given.int8, small.int8)], batches)
    per_1000 = 1000 * seconds.sum(axis=0) / len(rows[:1024])
    return {
        "kept": [round(float((each.argmax(1) == full.argmax(1)).mean()), 5) for each in (probs, probs_int8)],
        "accuracy": round(float((probs.argmax(1) == true).mean()), 5),
        "calibration": round(calibration_error(probs.max(1), probs.argmax(1) == true), 4),
        "seconds": [round(float(each), 3) for each in per_1000],
        "speedups": [
            round(float(np.median(seconds[:, 0] / seconds[:, 1])), 2),
            round(float(np.median(seconds[:, 2] / seconds[:, 3])), 2),
        ],
    }


def compressed(name: str, dials: dict[str, Any], epochs: int, options: argparse.Namespace) -> tuple[Any, float]:
    """The model of these dials and the minutes that it took, from `--keep` where it lies there already."""
    model, tokenizer = load_classifier(str(SHARED / "models" / name))
    folder = options.keep / f"{name} {named(dials)}, epochs {epochs}"
    if (folder / "minutes.json").exists():
        return load_classifier(str(folder))[0], json.loads((folder / "minutes.json").read_text())
    learn_from, _, _, limit = SETS[name]
    checkpoint = folder.with_name(f"{folder.name}.pt")
    began = time.perf_counter()
    rows = texts(learn_from, options.learn_rows)
    small = moco_rt.compress(
        model,
        rows,
        tokenizer=tokenizer,
        max_length=limit,
        epochs=epochs,
        checkpoint=checkpoint,
        **dials,
    )
    minutes = (time.perf_counter() - began) / 60
    small.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "minutes.json").write_text(json.dumps(round(minutes, 1)))
    checkpoint.unlink(missing_ok=True)
    return small, minutes


def measure(name: str, options: argparse.Namespace) -> dict:
    """All models of a set."""
    _, unseen, files, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / name))
    labelled = [row for file in files for row in read_jsonl(SHARED / "data" / file, options.rows)]
    calibrate = texts(unseen, 512)
    int8 = moco_rt.quantize(model, calibrate, tokenizer=tokenizer, max_length=limit)
    given = in_two_forms(model, int8, tokenizer)
    whole = product_weights(Widths.of(model), model.config.hidden_size, head_size(model.config))
    found = {"given": describe(given, given, labelled, limit)}
    for dials in chosen(name, options):
        for epochs in (0, options.epochs) if options.epochs else (0,):
            small, minutes = compressed(name, dials, epochs, options)
            work = product_weights(small.config.widths, model.config.hidden_size, head_size(model.config)) / whole
            seen = share_seen(small.config.lengths) if small.config.lengths else 1.0
            key = f"{named(dials)}, epochs {epochs}"
            int8 = moco_rt.quantize(small, calibrate, tokenizer=tokenizer, max_length=limit)
            found[key] = {
                **describe(in_two_forms(small, int8, tokenizer), given, labelled, limit),
                "work": round(work * seen * (1 - dials.get("sparsity", 0)), 3),
                "minutes": round(minutes, 1),
                "widths": [small.config.heads, small.config.neurons, small.config.lengths],
            }
            print(name, key, found[key], flush=True)
    return {"rows": len(labelled), "learn_rows": options.learn_rows, "isa": cpu_isa(), "models": found}


def certify(name: str, options: argparse.Namespace) -> dict:
    """The fastest that is certified with and without smaller models, from one study."""
    _, unseen, files, limit = SETS[name]
    model, tokenizer = load_classifier(str(SHARED / "models" / name))
    others = [compressed(name, dials, options.epochs, options)[0] for dials in chosen(name, options)]
    given = as_given(model, tokenizer, None, None, limit)
    labelled = [row for file in reversed(files) for row in read_jsonl(SHARED / "data" / file, None)]
    certifying, report = labelled[: options.certify_rows], labelled[options.certify_rows :][: options.report_rows]
    split = given.split(
        texts(unseen, options.find_rows),
        [row["text"] for row in certifying],
        [row["label"] for row in certifying],
        0,
    )
    plain, variants = copy.copy(given.model), study_variants(given, "auto", split, 0, others)
    own = [variant for variant in variants if variant.model.config.model_type == model.config.model_type]
    rows, true = [row["text"] for row in report], np.array([row["label"] for row in report])
    full = plain.predict(rows, max_length=limit).labels.numpy()
    batches, _ = length_sorted_batches(tokenizer, rows[: options.time_rows], limit, BATCH_ROWS)
    found = {}
    for wish_name, wish in WISHES.items():
        promise = wish(CONFIDENCE, given.model.class_names, 0)
        pair: list[Variant] = [copy.copy(choose_variant(among, promise)) for among in (own, variants)]
        seconds = in_turns([each.forward for each in (plain, *pair)], batches)
        found[wish_name] = [
            {
                "variant": fast.policy.certificate.variant,
                "speedup": round(float(np.median(seconds[:, 0] / seconds[:, place])), 2),
                "drop": round(float((full == true).mean() - (labels == true).mean()), 5),
                "kept": round(float((full == labels).mean()), 5),
            }
            for place, fast in enumerate(pair, 1)
            for labels in [fast.predict(rows, max_length=limit).labels.numpy()]
        ]
        found[wish_name].append({"gain": round(float(np.median(seconds[:, 1] / seconds[:, 2])), 2)})
        print(name, wish_name, found[wish_name], flush=True)
    return {"certify_rows": len(certifying), "rows": len(rows), "wishes": found}


def table(results: dict) -> str:
    """Make the tables of docs/benchmarks.md."""
    lines = []
    for name, result in results.items():
        if found := result.get("models"):
            lines += [
                f"| {name}, {result['rows']:,} rows | work left | labels kept, float32 / int8 | accuracy "
                "| calibration error | s per 1,000 rows, float32 / int8 | times as fast | minutes to make |",
                "|---|---:|---:|---:|---:|---:|---:|---:|",
            ]
            lines += [
                f"| {key} | {one.get('work', 1):.0%} | {one['kept'][0]:.2%} / {one['kept'][1]:.2%} "
                f"| {one['accuracy']:.2%} | {one['calibration']:.3f} "
                f"| {one['seconds'][1]:.2f} / {one['seconds'][3]:.2f} "
                f"| {one['speedups'][0]:.2f} / {one['speedups'][1]:.2f} | {one.get('minutes', '')} |"
                for key, one in found.items()
            ]
            lines.append("")
        if found := result.get("certified"):
            lines += [
                f"| {name}, certified on {found['certify_rows']:,} rows | without variants | with | gain | what runs "
                f"| on {found['rows']:,} other rows: accuracy lost, labels kept |",
                "|---|---:|---:|---:|---|---:|",
            ]
            lines += [
                f"| {wish} | {without['speedup']:.2f}x | {with_all['speedup']:.2f}x | {gain['gain']:.2f}x "
                f"| {with_all['variant']} | {100 * with_all['drop']:.2f} points, {with_all['kept']:.2%} |"
                for wish, (without, with_all, gain) in found["wishes"].items()
            ]
            lines.append("")
    return "\n".join(lines).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epochs", type=int, default=0, help="of recovery (%(default)s: none)")
    parser.add_argument("--only", choices=("models", "certified"), help="one of the two parts")
    parser.add_argument("--dials", nargs="+", type=int, help="places in DIALS of what is tried; all")
    parser.add_argument("--learn-rows", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=2_000, help="labelled ones of each file (%(default)s)")
    parser.add_argument("--find-rows", type=int, default=8_000)
    parser.add_argument("--certify-rows", type=int, default=10_000)
    parser.add_argument("--report-rows", type=int, help="of the other labelled ones; all")
    parser.add_argument("--time-rows", type=int, default=1_500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, required=True, help="a folder for the models, which are made once")
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.keep.mkdir(parents=True, exist_ok=True)
    stored = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.sets:
        for part, make in (("models", measure), ("certified", certify)):
            if options.only in (None, part):
                result = make(name, options)
                if part == "models":
                    result["models"] = stored.get(name, {}).get("models", {}) | result["models"]
                stored[name] = stored.get(name, {}) | (result if part == "models" else {"certified": result})
                options.out.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    if options.out == STORED:
        put_into_docs("compress", table(stored))


if __name__ == "__main__":
    main()
