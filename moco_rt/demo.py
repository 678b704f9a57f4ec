"""`moco-rt demo`: from texts and a fine-tuned classifier to rules, a measured table and two pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moco_rt.analytics import AnalyticsEngine, NoSufficientRuleError
from moco_rt.architectures import load_classifier
from moco_rt.batches import Text, by_length, encode, pad
from moco_rt.capture import capture
from moco_rt.demo_data import make_corpus, train_classifier
from moco_rt.ml_frame import MLFrame
from moco_rt.report import Comparison, compare, draw_exits
from moco_rt.rules import LinearRule
from moco_rt.sites import attention_site
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

_BATCH_ROWS = 64
_TRAIN_ROWS, _RULE_ROWS, _TEST_ROWS = 14_000, 10_000, 2_000


@dataclass(frozen=True)
class Task:
    """A classifier, rows to find rules on, and rows to compare on.

    Attributes:
        model: a Hugging Face `...ForSequenceClassification`.
        tokenizer: its tokenizer.
        rule_texts: rules are found and bounded on these, by the model's own predictions.
        test_texts: rows that no rule has seen.
        test_labels: their true classes, or None.
    """

    model: Any
    tokenizer: Any
    rule_texts: Sequence[Text]
    test_texts: Sequence[Text]
    test_labels: Sequence[int] | None


def embedded_task(model_dir: Path) -> Task:
    """The default that needs no network: a seeded corpus and a small BERT trained on it in about a minute.

    Args:
        model_dir: where the model is kept: it is trained once.
    """
    if not (model_dir / "model.safetensors").exists():
        # Short reviews and more of the hard ones to learn from; those to run on come as they may.
        train = make_corpus(_TRAIN_ROWS, seed=0, hard_share=0.33, median_words=28)
        model, tokenizer = train_classifier([row.text for row in train], [row.label for row in train], seed=0)
        tokenizer.save_pretrained(model_dir)
        model.save_pretrained(model_dir)
    model, tokenizer = load_classifier(str(model_dir))
    rules, test = make_corpus(_RULE_ROWS, seed=1), make_corpus(_TEST_ROWS, seed=2)
    return Task(model, tokenizer, [row.text for row in rules], [row.text for row in test], [row.label for row in test])


def load_task(model_name: str, data: Path, seed: int = 0) -> Task:
    """The user's own model and rows: two thirds to find rules on, one third to compare on.

    Args:
        model_name: a directory or the name of a model on the Hugging Face hub.
        data: a JSON object a line: `text`[, `text2`][, `label`]; the model must not have been fine-tuned on them.
        seed: of the split.

    Raises:
        ValueError: a line is not such an object, or there are fewer than 3.
    """
    rows = _read_rows(data)
    random.Random(seed).shuffle(rows)
    cut = len(rows) * 2 // 3
    texts: list[Text] = [(row["text"], row["text2"]) if "text2" in row else row["text"] for row in rows]
    labels = [row["label"] for row in rows[cut:]] if all("label" in row for row in rows[cut:]) else None
    model, tokenizer = load_classifier(model_name)
    return Task(model, tokenizer, texts[:cut], texts[cut:], labels)


def _read_rows(data: Path) -> list[dict[str, Any]]:
    rows = []
    with data.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{data}, line {number} must be a JSON object (got {line[:40]!r})") from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise ValueError(f"{data}, line {number} must have a string `text` (got {line[:40]!r})")
            rows.append(row)
    if len(rows) < 3:
        raise ValueError(f"{data} must have at least 3 lines (got {len(rows)})")
    return rows


def run(task: Task, out: Path, *, max_error: float = 0.01, max_length: int | None = None) -> Comparison:
    """Capture, find rules, compare with and without them; `knn_graph.png` and `exits.png` go to out.

    Args:
        task: what to run.
        out: a directory, made if need be.
        max_error: all rules together may change the label of at most this share of rows.
        max_length: in tokens; None: what the model allows.

    Raises:
        ValueError: rows are too few to promise max_error: the message says how many are needed.
    """
    model = EarlyExitTextClassificationModel(task.model)
    sites = [site for site in model.sites if site.endswith(".attention")]
    frame = capture(task.model, task.tokenizer, task.rule_texts, sites=sites, max_length=max_length)
    for rule in find_rules(frame, sites, model.policy.num_classes, max_error):
        model.add_rule(rule.condition, rule.metadata["class"], rule.metadata["site"])

    longest = max_length or min(task.tokenizer.model_max_length, task.model.config.max_position_embeddings)
    rows = encode(task.tokenizer, task.test_texts, longest)
    order = list(by_length(rows, _BATCH_ROWS))
    comparison = compare(
        EarlyExitTextClassificationModel(task.model),
        model,
        [pad([rows[i] for i in places], model.device) for places in order],
        None if task.test_labels is None else np.array(task.test_labels)[np.concatenate(order)],
    )
    out.mkdir(parents=True, exist_ok=True)
    engine = AnalyticsEngine(frame[f"{attention_site(0)}.cls"], {"predictions": frame["predictions"]})
    engine.plot_knn_graph().savefig(out / "knn_graph.png", dpi=120)
    draw_exits(comparison, task.model.config.id2label).savefig(out / "exits.png", dpi=120)
    return comparison


def find_rules(frame: MLFrame, sites: Sequence[str], num_classes: int, max_error: float) -> list[LinearRule]:
    """A rule for every site and class that has one, the error shared out evenly among the sites.

    A row of class c can only be answered wrongly by the rules of other classes, and each fires on at most
    max_error / sites of such rows: together at most max_error (union bound over the sites).
    """
    rules = []
    for site in sites:
        engine = AnalyticsEngine(frame[f"{site}.cls"], {"predictions": frame["predictions"]})
        for class_value in range(num_classes):
            try:
                rules.append(engine.compute_linear_sufficient_rule("predictions", class_value, max_error / len(sites)))
            except NoSufficientRuleError:
                continue  # nothing at this site settles this class
    return rules
