"""Embeddings of images by themselves, and heads without a dense layer, against plain torch."""

from __future__ import annotations

import pytest
import torch
from parity import assert_within_twice_the_error

from moco_rt._C import HeadSpec, NormSpec, PackedBatch, PatchEmbeddingSpec, TransformerClassifier

D, CLASSES = 40, 5


def make(image_size, patch_size, first=2, dtype=torch.float32, changes=None):
    """A model without layers, its convolution, and its tokens with positions in float64."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    weight, bias = random(D, image_size[0], *patch_size), random(D)
    patches = (image_size[1] // patch_size[0]) * (image_size[2] // patch_size[1])
    spec = {
        "projection": (weight.flatten(1), bias),
        "first_tokens": random(first, D),
        "positions": random(first + patches, D),
        "image_size": image_size,
        "patch_size": patch_size,
    } | (changes or {})
    output, norm = (random(CLASSES, D), random(CLASSES)), (random(D), random(D))
    head = HeadSpec(output=output, final_norm=NormSpec(norm, 1e-6))
    model = TransformerClassifier(PatchEmbeddingSpec(**spec), [], head, dtype=dtype)

    def plain(pixels, dtype):
        parts = [tensor.to(dtype) for tensor in (pixels, weight, bias, spec["first_tokens"], spec["positions"])]
        pixels, kernel, shift, tokens, positions = parts
        projected = torch.nn.functional.conv2d(pixels, kernel, shift, stride=patch_size).flatten(2).transpose(1, 2)
        hidden = torch.cat([tokens.expand(len(pixels), -1, -1), projected], dim=1) + positions
        states = torch.nn.functional.layer_norm(hidden[:, 0], (D,), norm[0].to(dtype), norm[1].to(dtype), 1e-6)
        return hidden, torch.nn.functional.linear(states, output[0].to(dtype), output[1].to(dtype))

    return model, plain


def embed(model, pixels, tokens):
    batch = PackedBatch.of_lengths(torch.full((len(pixels),), tokens))
    model.embed_images(batch, pixels)
    return batch


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize(
    ("image_size", "patch_size"),
    [((3, 16, 24), (8, 8)), ((1, 9, 9), (3, 3)), ((4, 20, 7), (2, 3)), ((3, 64, 64), (4, 4)), ((3, 56, 56), (28, 28))],
)
def test_embeddings_and_logits_are_torchs(packed_dtype, image_size, patch_size, first, rows):
    model, plain = make(image_size, patch_size, first, packed_dtype)
    pixels = torch.randn(rows, *image_size, generator=torch.Generator().manual_seed(1)).to(packed_dtype)
    (hidden, logits), (exact, exact_logits) = plain(pixels, packed_dtype), plain(pixels, torch.float64)
    batch = embed(model, pixels, hidden.shape[1])
    assert_within_twice_the_error(batch.hidden.view(hidden.shape), hidden, exact)
    assert_within_twice_the_error(model.classify(batch), logits, exact_logits)


def test_a_rows_bits_do_not_depend_on_its_batch():
    model, _ = make((3, 20, 20), (4, 4))
    pixels = torch.randn(13, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    together = embed(model, pixels, 27).hidden.view(13, 27, D)
    for row in range(13):
        assert torch.equal(embed(model, pixels[row : row + 1], 27).hidden, together[row])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": (32, 8)}, "patches must fit an image of (channels, height, width)"),
        ({"patch_size": (8,)}, "patches must fit an image of (channels, height, width)"),
        ({"image_size": (3, 0, 24)}, "patches must fit an image of (channels, height, width)"),
        ({"projection": (torch.zeros(D, 7), torch.zeros(D))}, "must have shape [40, 192] (got [40, 7])"),
        ({"first_tokens": torch.zeros(2, 7)}, "first_tokens must have shape [2, 40] (got [2, 7])"),
        ({"first_tokens": torch.zeros(7)}, "first_tokens must have shape (any, 40) (got [7])"),
        ({"positions": torch.zeros(7, D)}, "positions must have shape [8, 40] (got [7, 40])"),
    ],
)
def test_weights_that_do_not_fit_are_refused(one_line_error, changes, words):
    with one_line_error(ValueError, words):
        make((3, 16, 24), (8, 8), changes=changes)


def test_batches_that_do_not_fit_are_refused(one_line_error):
    model, _ = make((3, 16, 24), (8, 8))
    pixels = torch.zeros(2, 3, 16, 24)
    with one_line_error(ValueError, "pixel_values must have shape [2, 3, 16, 24] (got [2, 3, 24, 16])"):
        embed(model, pixels.transpose(2, 3), 8)
    with one_line_error(TypeError, "pixel_values must be floating point (got torch.int64)"):
        embed(model, pixels.long(), 8)
    with one_line_error(ValueError, "every row must have 8 tokens"):
        embed(model, pixels, 7)
    with one_line_error(ValueError, "embed: the model must take texts (got one that takes images)"):
        model.embed(PackedBatch.of_lengths(torch.ones(1).long()))
