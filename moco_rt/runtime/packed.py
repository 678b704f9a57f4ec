"""A batch through the packed encoder, rows leaving between its steps; `reference` is the specification.

Every line here is one call into the extension, which works on all rows that are left. They lie end to end without
padding, and the extension cuts them anew into tiles for every step: after rows have left, tiles are as full as before.
The threads share out the tiles of one step. Measured with bench/profile_forward.py (2 threads, 6 x 384, 64 rows of 25
tokens): they wait for each other for 2% of the time, all that whole batches per thread could gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from moco_rt._C import PackedBatch, Results, TransformerClassifier
from moco_rt.architectures.sites import EMBEDDINGS, TOKENS, attention_site, output_site
from moco_rt.runtime.exit_points import ExitPoint, needs_mean_before


def forward(
    encoder: TransformerClassifier,
    exits: Mapping[str, ExitPoint],
    batch: PackedBatch,
    input_ids: Tensor,
    token_type_ids: Tensor | None,
) -> Results:
    """Logits of every row, and where it left; `reference.forward` says what must come out.

    Args:
        encoder: the model.
        exits: the compiled exits by site.
        batch: the rows, which have no hidden states yet.
        input_ids: (B, S) or, end to end, (T), int64 or int32.
        token_type_ids: of the same shape, or None.

    Raises:
        IndexError: a token, its type or its position is not in the model's tables.
    """
    batch.take_ids(input_ids, token_type_ids)
    results = _results(encoder, batch)
    if TOKENS in exits:
        encoder.check_ids(batch)  # a row that leaves is not embedded, and would never be refused
        _leave(exits[TOKENS], batch, results)
        if batch.rows == 0:
            return results
    encoder.embed(batch)
    return _from_embeddings(encoder, exits, batch, results)


def forward_images(
    encoder: TransformerClassifier, exits: Mapping[str, ExitPoint], tokens: int, pixel_values: Tensor
) -> Results:
    """Logits of every image, and where it left; `reference.forward_images` says what must come out.

    Args:
        encoder: the model.
        exits: the compiled exits by site.
        tokens: what every image has of them.
        pixel_values: (B, channels, height, width) floating point.
    """
    batch = PackedBatch.of_lengths(torch.full((len(pixel_values),), tokens, device="cpu"))
    encoder.embed_images(batch, pixel_values)
    return _from_embeddings(encoder, exits, batch, _results(encoder, batch))


def _results(encoder: TransformerClassifier, batch: PackedBatch) -> Results:
    return Results(batch.rows, encoder.num_classes, dtype=encoder.dtype)


def _from_embeddings(
    encoder: TransformerClassifier, exits: Mapping[str, ExitPoint], batch: PackedBatch, results: Results
) -> Results:
    if needs_mean_before(EMBEDDINGS, exits):
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
    """The rows that are left after a layer; after the last one only their pooled tokens, where nobody reads the others.

    An exit that looks at no more than the pooled token after the layer has begun is decided by a peek: that token is
    computed for every row, and all the others only for rows that stay. What a peek cannot decide is decided as the
    layer goes:

    | a peek decides exits after | what is run, in this order; "1": for the pooled token of each row alone        |
    |----------------------------|--------------------------------------------------------------------------------|
    | attention and the layer    | peek 1, rows leave, feed-forward 1, rows leave, attention, feed-forward        |
    | attention only             | peek 1, rows leave, attention, feed-forward, rows leave                        |
    | the layer only             | attention, rows leave, feed-forward 1, rows leave, feed-forward                |
    | neither                    | attention, rows leave, feed-forward, rows leave                                |

    In the last layer only exits read other tokens than that one: where a peek decides those after it, nothing is run
    after "feed-forward 1". That pays even in a layer whose peek needs keys and values; in others such a peek would be
    lost on rows that stay.
    """
    after_attention, after_layer = exits.get(attention_site(layer)), exits.get(output_site(layer))
    if needs_mean_before(attention_site(layer), exits):
        batch.keep_mean()
    last = layer == encoder.num_layers - 1 and encoder.reads_one_token
    peek_output = last if after_layer is None else after_layer.can_peek
    peek_attention = peek_output if after_attention is None else after_attention.can_peek
    peek_attention = peek_attention and (encoder.folds_keys(layer) or (last and peek_output))
    if peek_attention:
        pooled_tokens = encoder.peek(layer, batch)
        _leave(after_attention, pooled_tokens, results)
    else:
        encoder.attention(layer, batch)
        _leave(after_attention, batch, results)
        if not peek_output:
            return _finish_layer(encoder, layer, after_layer, batch, results)
        pooled_tokens = batch.cls()
    if peek_output:
        encoder.feed_forward(layer, pooled_tokens)
        _leave(after_layer, pooled_tokens, results)
        if last:
            return pooled_tokens
    batch.keep_rows_of(pooled_tokens)
    if batch.rows > 0 and peek_attention:
        encoder.attention(layer, batch)
    return _finish_layer(encoder, layer, None if peek_output else after_layer, batch, results)


def _finish_layer(
    encoder: TransformerClassifier, layer: int, undecided: ExitPoint | None, batch: PackedBatch, results: Results
) -> PackedBatch:
    """The rows that are left after a feed-forward network, and after exits that had to wait for all tokens."""
    if batch.rows > 0:
        encoder.feed_forward(layer, batch)
        _leave(undecided, batch, results)
    return batch


def _leave(exits: ExitPoint | None, batch: PackedBatch, results: Results) -> None:
    if exits is not None and batch.rows > 0:
        exits.apply(batch, results)
