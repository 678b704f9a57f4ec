"""`moco-rt demo`: from texts and a fine-tuned classifier to rules, a measured table and two pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt import calibrate
from moco_rt.analytics import AnalyticsEngine, NoSufficientRuleError
from moco_rt.architectures import load_classifier
from moco_rt.batches import Text, length_limit, length_sorted_batches
from moco_rt.capture import capture
from moco_rt.demo_data import make_corpus, train_classifier
from moco_rt.ml_frame import MLFrame
from moco_rt.pictures import draw_exits
from moco_rt.report import Comparison, compare
from moco_rt.rules import LinearRule
from moco_rt.sites import EMBEDDINGS
from moco_rt.torch_early_exit_models import EarlyExitTextClassificationModel

_BATCH_ROWS = 64
_TRAIN_ROWS, _RULE_ROWS, _TEST_ROWS = 14_000, 12_000, 2_000
_CONFIDENCE = 0.95
_WORTH = 0.01  # a rule by which fewer rows leave is not worth its place


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
    if not model_dir.exists():
        # Short reviews and more of the hard ones to learn from; those to run on come as they may.
        train = make_corpus(_TRAIN_ROWS, seed=0, hard_share=0.33, median_words=28)
        model, tokenizer = train_classifier([row.text for row in train], [row.label for row in train], seed=0)
        partial = model_dir.with_name(f"{model_dir.name}.partial")  # renamed when whole
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(model_dir)
    model, tokenizer = load_classifier(str(model_dir))
    rules, test = make_corpus(_RULE_ROWS, seed=1), make_corpus(_TEST_ROWS, seed=2)
    return Task(model, tokenizer, [row.text for row in rules], [row.text for row in test], [row.label for row in test])


def load_task(model_name: str, data: Path, seed: int = 0) -> Task:
    """The user's own model and rows: two thirds to find rules on, one third to compare on.

    Args:
        model_name: a directory or the name of a model on the Hugging Face hub.
        data: a JSON object a line: `text`[, `text2`][, `label`]; the model must not have been fine-tuned on them.
            A label is a class number or one of the model's own names of classes.
        seed: of the split.

    Raises:
        ValueError: a line is not such an object, or there are fewer than 3.
    """
    rows = _read_rows(data)
    model, tokenizer = load_classifier(model_name)
    texts: list[Text] = [(row["text"], row["text2"]) if "text2" in row else row["text"] for row in rows]
    labels = None
    if all("label" in row for row in rows):
        labels = [_class_of(row["label"], line, model.config) for line, row in enumerate(rows, 1)]
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    for_rules, for_test = order[: len(rows) * 2 // 3], order[len(rows) * 2 // 3 :]
    return Task(
        model,
        tokenizer,
        [texts[i] for i in for_rules],
        [texts[i] for i in for_test],
        None if labels is None else [labels[i] for i in for_test],
    )


def _read_rows(data: Path) -> list[dict[str, Any]]:
    rows = []
    with data.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{data}, line {number} must be a JSON object (got {line[:40]!r})") from error
            texts = (row.get("text"), row.get("text2", "")) if isinstance(row, dict) else (None,)
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{data}, line {number} must have a string `text`[, `text2`] (got {line[:40]!r})")
            rows.append(row)
    if len(rows) < 3:
        raise ValueError(f"{data} must have at least 3 lines (got {len(rows)})")
    return rows


def _class_of(label: Any, line: int, config: Any) -> int:
    if isinstance(label, str) and label in config.label2id:
        return int(config.label2id[label])
    if type(label) is int and label in config.id2label:
        return label
    known = ", ".join(f"{number} ({name})" for number, name in config.id2label.items())
    raise ValueError(f"line {line}: label must be one of the model's, {known} (got {label!r})")


def run(task: Task, out: Path, *, max_error: float = 0.01, max_length: int | None = None) -> Comparison:
    """Capture, find rules, compare with and without them; `knn_graph.png` and `exits.png` go to out.

    Args:
        task: what to run.
        out: a directory, made if need be.
        max_error: all rules together change the label of at most this share of rows, with confidence 95%.
        max_length: in tokens; None: what the model allows.

    Raises:
        ValueError: max_error is outside (0, 1), or rows are too few to promise it: the message says how many to find
            rules on are needed.
    """
    if not 0 < max_error < 1:
        raise ValueError(f"max_error must be inside (0, 1) (got {max_error})")
    model = EarlyExitTextClassificationModel(task.model)
    sites = _few_sites(model.sites)
    frame = capture(task.model, task.tokenizer, task.rule_texts, sites=sites, max_length=max_length)
    unseen = len(frame) // 5
    rules = find_rules(frame.subset(slice(unseen, None)), sites, max_error)
    for rule, bound in bound_exits(rules, frame.subset(slice(unseen)), model.policy.num_classes):
        model.add_rule(rule.condition, rule.metadata["class"], rule.metadata["site"], bound=bound)

    longest = length_limit(task.tokenizer, model.max_seqlen, max_length)
    batches, order = length_sorted_batches(task.tokenizer, task.test_texts, longest, _BATCH_ROWS, model.device)
    labels = None if task.test_labels is None else np.array(task.test_labels)[order]
    comparison = compare(EarlyExitTextClassificationModel(task.model), model, batches, labels)
    out.mkdir(parents=True, exist_ok=True)
    engine = AnalyticsEngine(frame[f"{sites[0]}.cls"], {"predictions": frame["predictions"]})
    engine.plot_knn_graph().savefig(out / "knn_graph.png", dpi=120)
    draw_exits(comparison, task.model.config.id2label).savefig(out / "exits.png", dpi=120)
    return comparison


def _few_sites(sites: Sequence[str]) -> list[str]:
    """Up to three, spread over the depth: every site more takes its part of the error, and asks for more rows."""
    # Where attention has just looked at the whole text; after the last there is too little left to save.
    candidates = [site for site in sites if site.endswith(".attention")][:-1] or [EMBEDDINGS]
    count = min(3, len(candidates))
    return [candidates[i * len(candidates) // count] for i in range(count)]


def find_rules(frame: MLFrame, sites: Sequence[str], max_error: float) -> list[LinearRule]:
    """A rule for every site and predicted class that has one: together wrong on at most max_error of all rows.

    A row is answered wrongly only by a rule of another class than its own. There are sites x (classes - 1) of
    these, and each promises its part of max_error; together they hold with the confidence 95% (union bounds).
    """
    classes = np.unique(frame["predictions"])
    each = max_error / len(sites) / max(1, len(classes) - 1)
    confidence = 1 - (1 - _CONFIDENCE) / len(sites) / len(classes)
    rules = []
    for site in sites:
        engine = AnalyticsEngine(frame[f"{site}.cls"], {"predictions": frame["predictions"]})
        for class_value in classes.tolist():
            try:
                rules.append(engine.compute_linear_sufficient_rule("predictions", class_value, each, confidence))
            except NoSufficientRuleError:
                continue  # nothing at this site settles this class
            except ValueError as error:
                raise ValueError(
                    f"of {len(frame)} rows to find rules on (8 in 15 of a file), with max_error={max_error} shared by "
                    f"{len(sites)} sites and {len(classes)} classes: {error}"
                ) from error
    return [rule for rule, leaves in _leaving(rules, frame) if leaves.mean() >= _WORTH]


def bound_exits(rules: Sequence[LinearRule], frame: MLFrame, num_classes: int) -> list[tuple[LinearRule, float]]:
    """The rules that rows leave by, one after the other, each with a bound on what is wrong among those rows.

    A rule's own bound speaks of all rows it fires on; here it meets those that the rules before it have left.
    Clopper-Pearson on rows that no rule was found on, all bounds together with confidence 95%. Where these are too
    few to speak for the rule's class, the bound is the highest that an exit may have.
    """
    highest = 0.99 * (1 - 1 / num_classes)
    bounded = []
    for rule, leaves in _leaving(rules, frame):
        wrong = int((frame["predictions"][leaves] != rule.metadata["class"]).sum())
        bound = calibrate.upper_bound(wrong, int(leaves.sum()), 1 - (1 - _CONFIDENCE) / len(rules))
        bounded.append((rule, min(bound, highest)))
    return bounded


def _leaving(rules: Sequence[LinearRule], frame: MLFrame) -> Iterator[tuple[LinearRule, NDArray[np.bool_]]]:
    """Each rule with the rows (rows,) that leave by it after those before it have had theirs."""
    staying = np.ones(len(frame), dtype=bool)
    for rule in rules:
        leaves = staying & rule.condition(np.asarray(frame[f"{rule.metadata['site']}.cls"]))
        staying &= ~leaves
        yield rule, leaves
