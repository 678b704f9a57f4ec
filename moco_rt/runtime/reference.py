"""The specification: a batch through Hugging Face's own sub-modules, rows leaving between them.

Slow and clear for ever: what a reader starts from, what tests compare with, and what runs where nothing faster
covers a model, device or dtype.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import Architecture
from moco_rt.architectures.compressed.shortening import leave_out
from moco_rt.architectures.device_batch import AnyBatch, batch_of, on_cpu
from moco_rt.architectures.sites import TOKENS
from moco_rt.runtime.exit_points import ExitPoint, needs_mean_before


def forward(
    architecture: Architecture,
    exits: Mapping[str, ExitPoint],
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None,
) -> Results:
    """Logits of every row, and where it left.

    Between exits the hidden states are padded, (rows, S, D), as Hugging Face's modules want them, so that without
    exits the logits are Hugging Face's to the bit. At an exit they are packed; the survivors are padded again
    only as far as the longest of them.

    Args:
        architecture: the model.
        exits: the compiled exits by site.
        input_ids: (B, S) int64.
        attention_mask: (B, S), integer or bool, padded as the family allows.
        token_type_ids: (B, S) int64 or None.
    """
    input_ids, attention_mask = architecture.real_tokens(input_ids, attention_mask)
    batch, results = _begin(architecture, attention_mask)
    if TOKENS in exits:
        batch.take_ids(input_ids, token_type_ids)
        left = exits[TOKENS].apply(batch, results)
        if batch.rows == 0:
            return results
        if left:
            stay = batch.row_ids.to(input_ids.device, torch.long)
            input_ids, attention_mask = (each[stay, : batch.max_seqlen] for each in (input_ids, attention_mask))
            token_type_ids = None if token_type_ids is None else token_type_ids[stay, : batch.max_seqlen]
    hidden = architecture.embed(input_ids, token_type_ids)
    return _from_embeddings(architecture, exits, hidden, attention_mask, batch, results)


def forward_images(architecture: Architecture, exits: Mapping[str, ExitPoint], pixel_values: Tensor) -> Results:
    """Logits of every image, and where it left, as `forward` gives them of texts; all rows have all tokens.

    Args:
        architecture: the model.
        exits: the compiled exits by site.
        pixel_values: (B, channels, height, width) floating point.
    """
    hidden = architecture.embed(pixel_values, None)
    attention_mask = hidden.new_ones(hidden.shape[:2], dtype=torch.long)
    return _from_embeddings(architecture, exits, hidden, attention_mask, *_begin(architecture, attention_mask))


def _begin(architecture: Architecture, attention_mask: Tensor) -> tuple[AnyBatch, Results]:
    """A batch of rows that have neither ids nor hidden states yet, and results that none of them has yet."""
    batch = batch_of(attention_mask, pooled=architecture.pooled_token)
    return batch, Results(batch.rows, architecture.num_classes, dtype=architecture.dtype)


def _from_embeddings(
    architecture: Architecture,
    exits: Mapping[str, ExitPoint],
    hidden: Tensor,
    attention_mask: Tensor,
    batch: AnyBatch,
    results: Results,
) -> Results:
    mask = architecture.context(attention_mask, hidden)
    for site, run in architecture.steps():
        if needs_mean_before(site, exits):
            batch.unpad(hidden)
            batch.keep_mean()
        before = attention_mask
        hidden, attention_mask = leave_out(architecture, site, hidden, run(hidden, mask), attention_mask, batch)
        if site in exits:
            batch.unpad(hidden)
            left = exits[site].apply(batch, results)
            if batch.rows == 0:
                return results
            if left:
                hidden, attention_mask = batch.pad(), batch.attention_mask()
        if attention_mask is not before:
            mask = architecture.context(attention_mask, hidden)
    results.write_last(on_cpu(batch), architecture.classify(hidden, attention_mask).cpu())
    return results
