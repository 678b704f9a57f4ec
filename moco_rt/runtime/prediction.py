"""What a model answers, and many texts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from moco_rt.inputs.batching import by_tokens, pad
from moco_rt.inputs.prefetch import prefetch_encoded
from moco_rt.inputs.texts import TextInput, check_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import check_tokenizer
from moco_rt.runtime.outputs import Prediction

#: Texts tokenised at a time, while those before them are computed.
CHUNK_TEXTS = 4096


def predict(model: Any, texts: Sequence[TextInput], tokenizer: Any, max_length: int | None) -> Prediction:
    """The body of `EarlyExitTextClassificationModel.predict`, which says what it takes and returns."""
    check_texts(texts)
    if len(texts) == 0:
        raise ValueError("texts must hold at least one text (got none)")
    if model.config.problem_type == "regression":
        raise ValueError("model must classify (got problem_type=regression)")
    made_for = model.policy.made_for
    check_tokenizer(made_for, tokenizer)
    max_length = made_for.get("max_length") if max_length is None else max_length
    longest = length_limit(tokenizer, model.max_seqlen, max_length)
    logits: Tensor | None = None
    exit_site = torch.full((len(texts),), -1)
    exit_rule = torch.full((len(texts),), -1)
    with tqdm(total=len(texts), unit="text", delay=2, leave=False) as progress:
        for start, _, rows in prefetch_encoded(texts, lambda chunk: encode(tokenizer, chunk, longest)):
            for places in by_tokens(rows):
                output = model(**pad([rows[i] for i in places], model.device))
                index = start + torch.tensor(places)
                if logits is None:
                    logits = torch.empty(len(texts), output.logits.shape[1], dtype=torch.float32)
                logits[index] = output.logits.float().cpu()
                exit_site[index] = output.exit_site.cpu()
                exit_rule[index] = output.exit_rule.cpu()
                progress.update(len(places))
    assert logits is not None
    one_of_many = logits.shape[1] > 1 and model.config.problem_type != "multi_label_classification"
    probs = logits.softmax(dim=1) if one_of_many else logits.sigmoid()
    return Prediction(logits.argmax(dim=1), probs, exit_site, exit_rule, torch.zeros_like(exit_rule))
