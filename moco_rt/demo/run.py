"""`moco-rt demo`: from texts and a fine-tuned classifier to a policy, a measured table and pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moco_rt.architectures import load_classifier
from moco_rt.architectures.conversion import Dtype
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.inputs.file_formats import Columns, FileFormat
from moco_rt.inputs.labels import true_classes
from moco_rt.inputs.text_files import read_rows
from moco_rt.inputs.texts import TextInput
from moco_rt.inputs.tokenization import length_limit
from moco_rt.reports.comparison import Comparison, compare
from moco_rt.reports.page import report_page
from moco_rt.reports.plots import draw_exits
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.tuning.accelerate import accelerate

_BATCH_ROWS = 64
_TRAIN_ROWS, _RULE_ROWS, _TEST_ROWS = 14_000, 12_000, 2_000


@dataclass(frozen=True)
class Task:
    """A classifier, rows to find a policy on, and rows to compare on.

    Attributes:
        model: a Hugging Face `...ForSequenceClassification`.
        tokenizer: its tokenizer.
        rule_texts: a policy is found and certified on these, by the model's own predictions.
        test_texts: rows that it has not seen.
        test_labels: their true classes, or None.
    """

    model: Any
    tokenizer: Any
    rule_texts: Sequence[TextInput]
    test_texts: Sequence[TextInput]
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


def load_task(
    model_name: str,
    data: Path,
    seed: int = 0,
    *,
    kind: FileFormat | None = None,
    columns: Columns | None = None,
) -> Task:
    """The user's own model and rows: two thirds to find a policy on, one third to compare on.

    Args:
        model_name: a directory or the name of a model on the Hugging Face hub.
        data: a file of texts, see `open_rows`; the model must not have been fine-tuned on them. Labels, which only
            compare, are class numbers or the model's own names of classes.
        seed: of the split.
        kind: the format of the file; None: by its ending.
        columns: the columns of the file; None: those of `Columns`.

    Raises:
        ValueError: a line is not what it must be, a label is not the model's, or there are fewer than 3 lines.
    """
    rows = read_rows(data, kind, columns)
    if len(rows) < 3:
        raise ValueError(f"{data} must have at least 3 lines (got {len(rows)})")
    model, tokenizer = load_classifier(model_name)
    labels = true_classes(rows, model.config)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    for_rules, for_test = order[: len(rows) * 2 // 3], order[len(rows) * 2 // 3 :]
    return Task(
        model,
        tokenizer,
        [rows[i].text for i in for_rules],
        [rows[i].text for i in for_test],
        None if labels is None else [labels[i] for i in for_test],
    )


def run(
    task: Task, out: Path, *, agreement: float = 0.99, dtype: Dtype | None = None, max_length: int | None = None
) -> Comparison:
    """Find a policy, compare with and without it; `exits.png` and `report.html` go to out.

    Args:
        task: what to run.
        out: a directory, made if need be.
        agreement: share of rows that keep the full model's label, with confidence 95%.
        dtype: what the fast one computes in; None: the model's own dtype.
        max_length: in tokens; None: what the model allows.

    Raises:
        ValueError: agreement is outside (0, 1), or rows are too few to find a policy on.
    """
    model = accelerate(
        task.model, task.rule_texts, tokenizer=task.tokenizer, agreement=agreement, dtype=dtype, max_length=max_length
    )
    longest = length_limit(task.tokenizer, model.max_seqlen, max_length)
    batches, order = length_sorted_batches(task.tokenizer, task.test_texts, longest, _BATCH_ROWS, model.device)
    labels = None if task.test_labels is None else np.array(task.test_labels)[order]
    comparison = compare(EarlyExitTextClassificationModel(model.given.model), model, batches, labels)
    out.mkdir(parents=True, exist_ok=True)
    assert model.policy.certificate is not None
    assert model.search_report is not None
    page = report_page("moco-rt demo", model.policy.certificate.table(), model.search_report)
    (out / "report.html").write_text(page, encoding="utf-8")
    draw_exits(comparison, task.model.config.id2label).savefig(out / "exits.png", dpi=120)
    return comparison
