"""The case study on real input: a two-layer BERT on IMDB reviews, rules of both classes after its first attention.

Rules are fitted and bounded on unlabelled reviews; time and accuracy are measured on test reviews, of which no rule
has seen one. `python bench/case_study.py` writes bench/results/case_study.json and the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from common import BATCH_ROWS, RESULTS, SHARED, read_jsonl
from docs_table import put_into_docs

from moco_rt import AnalyticsEngine, EarlyExitTextClassificationModel, LinearRule, capture
from moco_rt.architectures import load_classifier
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.reports.comparison import Comparison, compare

STORED = RESULTS / "case_study.json"
SITE = "encoder.0.attention"
MAX_LENGTH = 256
MAX_ERROR, CONFIDENCE = 0.005, 0.95


def run(model_dir: Path, data_dir: Path, rule_rows: int | None, test_rows: int | None) -> dict:
    """Find the rules, compare with and without them. Returns what goes into the JSON."""
    model, tokenizer = load_classifier(str(model_dir))
    unlabelled = [row["text"] for row in read_jsonl(data_dir / "unlabelled.jsonl", rule_rows)]
    test = read_jsonl(data_dir / "test.jsonl", test_rows)

    frame = capture(model, tokenizer, unlabelled, sites=SITE, max_length=MAX_LENGTH)
    engine = AnalyticsEngine(frame[f"{SITE}.cls"], {"predictions": frame["predictions"]})
    accelerated = EarlyExitTextClassificationModel(model)
    rules = []
    for class_value in range(model.config.num_labels):
        rule = engine.compute_linear_sufficient_rule("predictions", class_value, MAX_ERROR, CONFIDENCE)
        accelerated.add_rule(rule.condition, rule.metadata["class"], "encoder", 0, "attention")
        rules.append(rule)

    batches, order = length_sorted_batches(tokenizer, [row["text"] for row in test], MAX_LENGTH, BATCH_ROWS)
    labels = np.array([row["label"] for row in test])[order]
    comparison = compare(EarlyExitTextClassificationModel(model), accelerated, batches, labels)
    return summary(comparison, rules, len(unlabelled), held_out_errors(model, rules, batches))


@torch.no_grad()
def held_out_errors(model, rules: list[LinearRule], batches: list[dict]) -> list[dict]:
    """What each rule, asked about every test row, gets wrong."""
    features, labels = [], []
    keep = model.bert.encoder.layer[0].attention.register_forward_hook(
        lambda _module, _inputs, output: features.append(output[0][:, 0].clone())
    )
    for batch in batches:
        labels.append(model(**batch).logits.argmax(dim=1))
    keep.remove()
    x, label = torch.cat(features), torch.cat(labels)
    counts = []
    for rule in rules:
        fires, of_class = rule.condition(x), label == rule.metadata["class"]
        counts.append(
            {
                "fired": int(fires.sum()),
                "wrong": int((fires & ~of_class).sum()),
                "wrong_of_fired": float((fires & ~of_class).sum() / fires.sum()),
                "wrong_of_other_classes": float(fires[~of_class].float().mean()),
            }
        )
    return counts


def summary(comparison: Comparison, rules: list[LinearRule], rule_rows: int, held_out: list[dict]) -> dict:
    """What the run found, with what it ran on."""
    return {
        "rows": comparison.rows,
        "rule_rows": rule_rows,
        "seconds_baseline": round(comparison.seconds_baseline, 3),
        "seconds": round(comparison.seconds_accelerated, 3),
        "time_reduction": round(comparison.time_reduction, 4),
        "speedup_median_batch": round(comparison.speedup, 3),
        "accuracy_baseline": round(comparison.accuracy_baseline, 5),
        "accuracy": round(comparison.accuracy, 5),
        "agreement": round(comparison.agreement, 5),
        "exited": round(comparison.exited, 5),
        "rules": [rule.metadata | {"held_out": errors} for rule, errors in zip(rules, held_out, strict=True)],
        "threads": comparison.threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def table(result: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    reduction = f"-{result['time_reduction']:.1%}"
    lines = [
        f"{result['rows']:,} test reviews, {MAX_LENGTH} tokens, batches of {BATCH_ROWS} sorted by length, "
        f"{result['threads']} threads, torch {result['torch']}:",
        "",
        "| | without rules | with rules | |",
        "|---|---:|---:|---:|",
        f"| time | {result['seconds_baseline']:.1f} s | {result['seconds']:.1f} s | {reduction} |",
        f"| reviews/s | {result['rows'] / result['seconds_baseline']:,.0f} "
        f"| {result['rows'] / result['seconds']:,.0f} | {result['speedup_median_batch']:.2f}x (median batch) |",
        f"| accuracy | {result['accuracy_baseline']:.2%} | {result['accuracy']:.2%} "
        f"| {100 * (result['accuracy'] - result['accuracy_baseline']):+.2f} points |",
        f"| same label as the full model | | {result['agreement']:.2%} | |",
        f"| left after the first attention | | {result['exited']:.1%} | |",
        "",
        f"| rule | wrong on rows of other labels: promised ({CONFIDENCE:.0%} confidence) | measured "
        "| wrong where it fires: bound | measured |",
        "|---|---:|---:|---:|---:|",
    ]
    for rule in result["rules"]:
        found = rule["held_out"]
        lines.append(
            f"| label {rule['class']} | <= {rule['max_error']:.2%} | {found['wrong_of_other_classes']:.2%} "
            f"| <= {rule['bound']:.2%} | {found['wrong_of_fired']:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rule-rows", type=int, help="find the rules on so many rows (all)")
    parser.add_argument("--test-rows", type=int, help="compare on so many rows (all)")
    parser.add_argument("--out", type=Path, default=STORED, help="only a full run into %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = run(SHARED / "models" / "tiny-imdb", SHARED / "data" / "imdb", options.rule_rows, options.test_rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.out == STORED and options.rule_rows is None and options.test_rows is None:
        put_into_docs("case study", table(result))
    print(table(result))


if __name__ == "__main__":
    main()
