"""Options of layers and heads against plain torch in float64: norms of outputs, and where a mean is taken."""

from __future__ import annotations

import pytest
import torch
from parity import assert_within_twice_the_error
from torch.nn.functional import layer_norm, linear, relu

from moco_rt._C import (
    AttentionSpec,
    EmbeddingSpec,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    PackedBatch,
    SubLayerNorms,
    TransformerClassifier,
)

D, INNER, CLASSES, EPS = 24, 40, 3, 1e-2
LENGTHS = [3, 1, 70, 16, 33]


@pytest.fixture
def weights(packed_dtype):
    """`weights(outputs, inputs)`: a random linear layer, `weights(size)`: a random norm."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape):
        size, spread = shape[0], 0.2 if len(shape) == 2 else 1.0
        weight, bias = (torch.randn(each, generator=generator) * spread for each in (shape, (size,)))
        return weight.to(packed_dtype), bias.to(packed_dtype)

    return make


def classifier(dtype, norms, head, feed_forward, square):
    layer = LayerSpec(
        attention=AttentionSpec(query=square, key=square, value=square, output=square, heads=2),
        around_attention=SubLayerNorms(),
        feed_forward=FeedForwardSpec(**feed_forward, activation="relu"),
        around_feed_forward=norms,
    )
    return TransformerClassifier(EmbeddingSpec(words=torch.ones(10, D)), [layer], head, dtype=dtype)


def batch_of(hidden):
    """A batch of rows of `LENGTHS` with these hidden states, end to end: (tokens, D)."""
    batch = PackedBatch.of_lengths(torch.tensor(LENGTHS))
    rows = hidden.split(LENGTHS)
    batch.unpad(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
    return batch


def in_float64(*affines):
    return [(weight.double(), bias.double()) for weight, bias in affines]


@pytest.mark.parametrize("after", [False, True])
def test_the_output_of_a_sub_layer_has_a_norm_of_its_own(weights, packed_dtype, after):
    square, up, down, inner, outer = weights(D, D), weights(INNER, D), weights(D, INNER), weights(D), weights(D)
    norms = SubLayerNorms(output=NormSpec(inner, EPS), after=NormSpec(outer, EPS) if after else None)
    model = classifier(packed_dtype, norms, HeadSpec(output=weights(CLASSES, D)), {"up": up, "down": down}, square)
    hidden = torch.randn(sum(LENGTHS), D, generator=torch.Generator().manual_seed(1)).to(packed_dtype)

    def plain(x, up, down, inner, outer):
        x = x + layer_norm(linear(relu(linear(x, *up)), *down), (D,), *inner, EPS)
        return layer_norm(x, (D,), *outer, EPS) if after else x

    batch = batch_of(hidden)
    model.feed_forward(0, batch)
    exact = plain(hidden.double(), *in_float64(up, down, inner, outer))
    assert_within_twice_the_error(batch.hidden, plain(hidden, up, down, inner, outer), exact)


def test_the_mean_may_be_taken_behind_the_dense_layer(weights, packed_dtype):
    square, up, down = weights(D, D), weights(INNER, D), weights(D, INNER)
    dense, output, final = weights(INNER, D), weights(CLASSES, INNER), weights(D)
    head = HeadSpec(
        dense=dense, activation="relu", output=output, final_norm=NormSpec(final, EPS), pooling="dense_mean"
    )
    model = classifier(packed_dtype, SubLayerNorms(), head, {"up": up, "down": down}, square)
    assert not model.reads_one_token
    hidden = torch.randn(sum(LENGTHS), D, generator=torch.Generator().manual_seed(1)).to(packed_dtype)

    def plain(x, dense, output, final):
        inner = relu(linear(layer_norm(x, (D,), *final, EPS), *dense))
        return linear(torch.stack([row.mean(0) for row in inner.split(LENGTHS)]), *output)

    exact = plain(hidden.double(), *in_float64(dense, output, final))
    assert_within_twice_the_error(model.classify(batch_of(hidden)), plain(hidden, dense, output, final), exact)


def test_another_pooling_is_refused(one_line_error):
    square = torch.ones(D, D), torch.ones(D)
    with one_line_error(ValueError, "pooling must be one of token, mean, dense_mean (got max)"):
        classifier(
            torch.float32,
            SubLayerNorms(),
            HeadSpec(output=square, pooling="max"),
            {"up": square, "down": square},
            square,
        )
