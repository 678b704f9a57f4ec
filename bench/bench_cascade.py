"""Cascades end to end: `python bench/bench_cascade.py` makes bench/results/cascade.json and its table in the docs.

From texts to labels, tokenising included, all in turns: the large model alone, the large model with exits, the small
model before it, and what `moco_rt.accelerate` finds among all that, each certified at 98%. Compared with the large
model in Hugging Face's eager float32, and with the public recipe: two Hugging Face models with one threshold on the
small one's softmax, certified on the same rows. Takes an hour; needs `../shared`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from bench_policies import SENTENCES, texts
from common import RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs

from moco_rt import Cascade, EarlyExitTextClassificationModel, quantize
from moco_rt.architectures import load_classifier
from moco_rt.cascades.tier import Tier, align_classes
from moco_rt.certification.exit_scores import ExitScores, last_certified
from moco_rt.certification.promises import Confident
from moco_rt.inputs.batching import by_length, pad
from moco_rt.inputs.tokenization import encode
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.tuning import Split, choose_cascade, split_texts, study_tiers, tiers_in_forms

STORED = RESULTS / "cascade.json"
GUARANTEE = Guarantee.of_agreement(0.98, 0.95)
#: What most people set.
HF_ROWS = 32
#: small model, large model, rows to find on, rows to certify on (None: a share of the former), rows to time, of which
#: those of the first file are unseen, tokens
SETS = {
    "SST-2": ("tiny-sst2", "minilm-sst2", SENTENCES, "sst2/test.jsonl", ("sst2/dev.jsonl", "sst2/test.jsonl"), 64),
    "IMDB": ("tiny-imdb", "minilm-imdb", "imdb/unlabelled.jsonl", None, ("imdb/test.jsonl",), 256),
}
EAGER, RECIPE = "Hugging Face", "two Hugging Face models"

Labels = Callable[[list], torch.Tensor]


class Eager:
    """A Hugging Face model in batches of rows sorted by length."""

    def __init__(self, model, tokenizer, limit: int):
        self._model, self._tokenizer, self._limit = model, tokenizer, limit

    @torch.inference_mode()
    def logits(self, of: list) -> torch.Tensor:
        """Of all texts, (n, C)."""
        rows = encode(self._tokenizer, of, self._limit)
        logits = torch.empty(len(rows), self._model.config.num_labels)
        for places in by_length(rows, HF_ROWS):
            logits[places] = self._model(**pad([rows[i] for i in places])).logits
        return logits

    def labels(self, of: list) -> torch.Tensor:
        """Of all texts, (n,)."""
        return self.logits(of).argmax(1)


class Recipe:
    """The small model's answer where its softmax exceeds a threshold, the large one's for the rest."""

    def __init__(self, small: Eager, large: Eager, split: Split):
        self._small, self._large = small, large
        self.threshold = self._certify(split.texts[split.calibration])

    def _certify(self, of: list) -> float:
        score, predicted = self._small.logits(of).softmax(1).max(1)
        scores = ExitScores.of_labels(predicted.numpy()[None], score.numpy()[None], self._large.labels(of).numpy())
        # From "never" down, in steps that nobody's rows have chosen.
        path = [np.full((1, 2), level, np.float32) for level in [np.inf, *np.linspace(1, 0.5, 2001)]]
        place = last_certified(map(scores.exit_of_row, path), scores, GUARANTEE)
        return float(path[max(0, place)][0, 0])

    def labels(self, of: list) -> torch.Tensor:
        """Of all texts, (n,)."""
        score, labels = self._small.logits(of).softmax(1).max(1)
        rest = (score <= self.threshold).nonzero().flatten()
        if len(rest):
            labels[rest] = self._large.labels([of[i] for i in rest.tolist()])
        return labels


def certified_cascades(models: list, split: Split, limit: int, dtype: str) -> dict[str, Cascade]:
    """Exits alone, tiers alone, and what is found among all that, in one dtype."""

    def afresh(pairs: list) -> list[Tier]:
        made = [Tier.of((EarlyExitTextClassificationModel(model), tokenizer), limit) for model, tokenizer in pairs]
        return align_classes(made)

    forms = study_tiers(tiers_in_forms(afresh(models), dtype, split), split, 0)
    exits, ends, _ = forms[0].candidates.groups
    kinds = {"exits": [exits], "cascade": [ends], "found": None}
    found = {}
    for kind, groups in kinds.items():  # each on models of its own, which get its exits
        own = [replace(form, tiers=afresh([(t.model.model, t.tokenizer) for t in form.tiers])) for form in forms]
        found[kind] = choose_cascade(own, split, Confident(GUARANTEE), dtype, groups)
    return found


def run(name: str, rows: int, find_rows: int | None, repetitions: int) -> dict:
    """Find, certify and measure everything on one set."""
    *names, find, certify, report, limit = SETS[name]
    models = [load_classifier(str(SHARED / "models" / model)) for model in names]
    calibration = None if certify is None else texts(certify, None)
    encoded = partial(encode, models[-1][1], max_length=limit)
    split = split_texts(texts(find, find_rows), encoded, calibration=calibration, seed=0)
    small, large = (Eager(*model, limit) for model in models)
    recipe = Recipe(small, large, split)
    systems: dict[str, Labels] = {EAGER: large.labels, RECIPE: recipe.labels}
    tables = {RECIPE: f"threshold {recipe.threshold:.4f}"}
    for dtype in ("float32", "int8"):
        alone = EarlyExitTextClassificationModel(models[-1][0])
        if dtype == "int8":
            learnt = split.texts[split.fit]
            alone = EarlyExitTextClassificationModel(
                quantize(models[-1][0], learnt, tokenizer=models[-1][1], max_length=limit)
            )
        systems[f"large, {dtype}"] = lambda of, model=alone: (
            model.predict(of, tokenizer=models[-1][1], max_length=limit).labels
        )
        for kind, cascade in certified_cascades(models, split, limit, dtype).items():
            systems[f"{kind}, {dtype}"] = lambda of, cascade=cascade: cascade.predict(of).labels
            tables[f"{kind}, {dtype}"] = cascade.certificate.table()
    files = [read_jsonl(SHARED / "data" / path, None) for path in report]
    found = [row for file in files for row in file][:rows]
    of, truth = [row["text"] for row in found], torch.tensor([row["label"] for row in found])
    unseen = min(len(files[0]), rows)
    seconds, labels = in_turns(systems, of, repetitions)
    return {
        "rows": len(of),
        "unseen": unseen,
        "find_rows": find_rows,
        "tables": tables,
        "systems": {
            system: {
                "rows_per_second": round(len(of) / statistics.median(spent), 1),
                "times_eager": ratio(seconds[EAGER], spent),
                "times_recipe": ratio(seconds[RECIPE], spent),
                "agreement": round(float((labels[system] == labels[EAGER])[:unseen].float().mean()), 5),
                "accuracy": round(float((labels[system] == truth).float().mean()), 5),
            }
            for system, spent in seconds.items()
        },
    }


def in_turns(systems: dict[str, Labels], of: list, repetitions: int) -> tuple[dict[str, list[float]], dict]:
    """Seconds of every pass over all texts, and the labels; some texts go before, to warm up."""
    seconds: dict[str, list[float]] = {system: [] for system in systems}
    labels = {}
    for _ in range(repetitions):
        for system, predict in systems.items():
            predict(of[:64])
            start = time.perf_counter()
            labels[system] = predict(of)
            seconds[system].append(time.perf_counter() - start)
    return seconds, labels


def ratio(baseline: list[float], spent: list[float]) -> float:
    """The median of ratios within repetitions."""
    return round(statistics.median(a / b for a, b in zip(baseline, spent, strict=True)), 3)


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    lines = [
        "| | | rows/s | x Hugging Face | x the two | labels kept | accuracy |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        head = f"{name}, {result['rows']:,} rows"
        for system, figures in result["systems"].items():
            cells = [
                f"{figures['rows_per_second']:,.0f}",
                f"{figures['times_eager']:.2f}",
                f"{figures['times_recipe']:.2f}",
                f"{figures['agreement']:.2%}",
                f"{figures['accuracy']:.2%}",
            ]
            lines.append(f"| {head} | {system} | " + " | ".join(cells) + " |")
            head = ""
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", type=int, default=2693, help="to time, at most (%(default)s)")
    parser.add_argument("--find-rows", type=int, help="to find policies on (all)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    for name in options.sets:
        results[name] = run(name, options.rows, options.find_rows, options.repetitions)
        STORED.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print("\n\n".join(f"{system}\n{said}" for system, said in results[name]["tables"].items()))
    print(table(results))
    put_into_docs("cascade", table(results))


if __name__ == "__main__":
    main()
