"""A padded batch through the tiers of a cascade, as `transformers.pipeline` brings it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt.runtime.checks import check_inputs
from moco_rt.runtime.outputs import CascadeOutput


def answer_padded(
    cascade: Any, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
) -> CascadeOutput:
    """Classify a padded batch; for arguments and errors see `Cascade.forward`."""
    first = cascade.tiers[0]
    if not all(tier.tokenises_like(first) and tier.tokenizer is not None for tier in cascade.tiers):
        raise ValueError("tiers must share one tokenizer to be given its tokens (got several: use predict)")
    check_inputs(input_ids, attention_mask, token_type_ids, first.max_length, first.model.device)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    batch = (input_ids, mask, token_type_ids)
    rows = torch.arange(len(input_ids), device="cpu")
    logits = torch.empty(len(rows), cascade.config.num_labels, dtype=torch.float32, device="cpu")
    exit_site, exit_rule, who = (torch.full((len(rows),), -1, device="cpu") for _ in range(3))
    for number, tier in enumerate(cascade.tiers):
        longest = int(mask[rows].nonzero()[:, 1].max()) + 1 if number else mask.shape[1]
        answers = tier.decide(tier.model(*(None if x is None else x[rows, :longest] for x in batch)))
        if cascade.watched_by is not None:
            cascade.watched_by.watch(number, answers, partial(_run_full, cascade, batch, rows))
        settled = answers.settled
        done = rows[settled]
        logits[done], who[done] = answers.logits[settled], number
        exit_site[done], exit_rule[done] = answers.exit_site[settled], answers.exit_rule[settled]
        rows = rows[~settled]
        if len(rows) == 0:
            break
    return CascadeOutput(logits, exit_site, exit_rule, who)


def _run_full(
    cascade: Any, batch: tuple[Tensor, Tensor, Tensor | None], rows: Tensor, places: NDArray[np.int64]
) -> Tensor:
    """Run some of the remaining rows of a padded batch through the model as it was given: logits (n, C)."""
    taken = rows[torch.from_numpy(places)]
    ids, mask, segments = batch
    logits: Tensor = cascade.given.run(
        {}, ids[taken], mask[taken], None if segments is None else segments[taken]
    ).logits
    return logits
