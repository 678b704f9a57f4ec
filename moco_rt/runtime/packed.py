"""A batch through the packed encoder, rows leaving between its steps: read this first.

Every line here is one call into the extension, which works on all rows that are left. They lie end to end without
padding, and the extension cuts them anew into packs for every step: after rows have left, packs are as full as before.
The threads share out the packs of one step. Measured with bench/profile_forward.py (2 threads, 6 x 384, 64 rows of 25
tokens): they wait for each other for 2% of the time, all that whole batches per thread could gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from moco_rt._C import PackedBatch, Results, TransformerClassifier
from moco_rt.architectures.sites import EMBEDDINGS, attention_site, output_site
from moco_rt.runtime.exit_points import ExitPoint


def forward(
    encoder: TransformerClassifier,
    exits: Mapping[str, ExitPoint],
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None,
) -> Results:
    """Logits of every row, and where it left; `reference.forward` says what must come out.

    Args:
        encoder: the model.
        exits: the compiled exits by site.
        input_ids: (B, S) int64.
        attention_mask: (B, S), integer or bool, right-padded.
        token_type_ids: (B, S) int64 or None.

    Raises:
        IndexError: a token, its type or its position is not in the model's tables.
    """
    batch = PackedBatch(attention_mask)
    results = Results(batch.rows, encoder.num_classes, dtype=encoder.dtype, device=torch.device("cpu"))
    encoder.embed(batch, input_ids, token_type_ids)
    if EMBEDDINGS in exits and exits[EMBEDDINGS].needs_mean:
        batch.keep_mean()
    _leave(exits.get(EMBEDDINGS), batch, results)
    for layer in range(encoder.num_layers):
        if batch.rows == 0:
            return results
        batch = _run_layer(encoder, layer, exits, batch, results)
    if batch.rows > 0:
        results.write_last(batch, encoder.classify(batch))
    return results


def _run_layer(
    encoder: TransformerClassifier, layer: int, exits: Mapping[str, ExitPoint], batch: PackedBatch, results: Results
) -> PackedBatch:
    """The rows that are left after a layer; after the last one only their first tokens, where that is all one needs.

    What only looks at first tokens, and at the mean before the layer, is decided by a peek at these tokens, before the
    layer is run for all the others.
    """
    attention_exits, output_exits = exits.get(attention_site(layer)), exits.get(output_site(layer))
    if any(found is not None and found.needs_mean for found in (attention_exits, output_exits)):
        batch.keep_mean()
    last = layer == encoder.num_layers - 1
    peek_output = last if output_exits is None else output_exits.can_peek
    peek_attention = peek_output if attention_exits is None else attention_exits.can_peek
    if not peek_attention:
        encoder.attention(layer, batch)
        _leave(attention_exits, batch, results)
    if peek_attention or peek_output:
        cls = encoder.peek(layer, batch) if peek_attention else batch.cls()
        if peek_attention:
            _leave(attention_exits, cls, results)
        if peek_output:
            encoder.feed_forward(layer, cls)
            _leave(output_exits, cls, results)
            if last:
                return cls
        batch.keep_rows_of(cls)
        if batch.rows == 0:
            return batch
    if peek_attention:
        encoder.attention(layer, batch)
    encoder.feed_forward(layer, batch)
    if not peek_output:
        _leave(output_exits, batch, results)
    return batch


def _leave(exits: ExitPoint | None, batch: PackedBatch, results: Results) -> None:
    if exits is not None and batch.rows > 0:
        exits.apply(batch, results)
