"""What the extension throws arrives in Python as what it is, from any thread, and ends nothing but the call."""

from __future__ import annotations

import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from moco_rt._C import (
    AttentionSpec,
    EmbeddingSpec,
    Exits,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    OffRamp,
    PackedBatch,
    Results,
    SubLayerNorms,
    TransformerClassifier,
    refuse_in_parallel,
)

MASK = torch.ones(2, 3, dtype=torch.int64)


def unpacked(values=None):
    batch = PackedBatch(MASK)
    batch.unpad(torch.zeros(2, 3, 4) if values is None else values)
    return batch


def classifier():
    square, norm = (torch.ones(4, 4), torch.ones(4)), NormSpec((torch.ones(4), torch.ones(4)), 1e-5)
    layer = LayerSpec(
        attention=AttentionSpec(query=square, key=square, value=square, output=square, heads=2),
        around_attention=SubLayerNorms(after=norm),
        feed_forward=FeedForwardSpec(up=square, down=square, activation="gelu"),
        around_feed_forward=SubLayerNorms(after=norm),
    )
    tables = EmbeddingSpec(words=torch.ones(10, 4), positions=torch.ones(8, 4), norm=norm)
    head = HeadSpec(dense=square, activation="tanh", output=square)
    return TransformerClassifier(tables, [layer], head, dtype=torch.float32)


def read_features_of_nothing():
    exits = Exits(0, 2)
    exits.add_linear(0, torch.zeros(2), feature="flat", weight=torch.zeros(4), bias=0.0, threshold=0.0)
    exits.apply(unpacked(), Results(2, 2, dtype=torch.float32), features=[("mean", torch.zeros(2, 0))])


#: Calls that are refused, what with, and words of it.
REFUSALS = {
    "value": (lambda: PackedBatch(torch.ones(3)), ValueError, "attention_mask must have shape (rows, tokens)"),
    "type": (lambda: PackedBatch(torch.ones(2, 3)), TypeError, "attention_mask must be integer or bool (got torch.flo"),
    "value in a constructor": (lambda: Exits(-1, 2), ValueError, "Exits: site must be at least 0"),
    "value with numbers": (lambda: Exits(0, 2).add_callable(-1, torch.zeros(2)), ValueError, "at least 0 (got -1)"),
    "value with a shape": (lambda: unpacked(torch.zeros(2, 2, 4)), ValueError, "(2, at least 3, at least 1) (got [2, "),
    "type of a dtype": (
        lambda: Results(1, 2, dtype=torch.int64),
        TypeError,
        "must be floating point",
    ),
    "value in a name": (lambda: unpacked().pool("max"), ValueError, "cls, mean, flat, cls+mean (got max)"),
    "value in a list": (lambda: OffRamp([], score="entropy", temperature=1), ValueError, "one or two (got 0)"),
    "index": (lambda: classifier().attention(7, unpacked()), IndexError, "layer must be from 0 to 0 (got 7)"),
    "memory": (lambda: unpacked().pool("flat", tokens=2**50), MemoryError, "there must be memory"),
    "shapes": (lambda: unpacked().pool("flat", tokens=2**62), MemoryError, "there must be memory"),
    "no memory": (lambda: PackedBatch(MASK.to("meta")), ValueError, "dense and on cpu (got torch.strided on meta)"),
    "not dense": (lambda: PackedBatch(MASK.to_sparse()), ValueError, "dense and on cpu (got torch.sparse_coo on cpu)"),
    "complex": (lambda: PackedBatch(MASK.to(torch.complex64)), TypeError, "computed with here (got torch.complex64)"),
    "features of nothing": (read_features_of_nothing, ValueError, "features must have a size of at least 1 (got 0)"),
    "no such call": (lambda: PackedBatch("mask"), TypeError, "incompatible constructor arguments"),
}
each_refusal = pytest.mark.parametrize(("call", "kind", "words"), REFUSALS.values(), ids=REFUSALS)


def caught(call):
    try:
        call()
    except Exception as error:
        return error
    return None


@each_refusal
def test_a_refusal_is_a_python_exception_of_its_kind(call, kind, words):
    error = caught(call)
    assert type(error) is kind
    assert words in str(error)


@each_refusal
def test_a_refusal_is_the_same_in_another_thread(call, kind, words):
    found = []
    thread = threading.Thread(target=lambda: found.append(caught(call)))
    thread.start()
    thread.join()
    assert type(found[0]) is kind
    assert words in str(found[0])


def test_refusals_of_many_threads_at_once_do_not_mix():
    """Each thread is refused again and again while the others are in the extension, without the GIL."""
    calls = [(call, kind, words) for call, kind, words in REFUSALS.values() if kind is not MemoryError]

    def refused(place):
        call, kind, words = calls[place % len(calls)]
        for _ in range(50):
            unpacked().pool("mean")
            error = caught(call)
            assert type(error) is kind
            assert words in str(error)
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(refused, range(16)))


def test_a_thousand_refusals_take_no_memory():
    def thousand():
        for _ in range(1000):
            assert caught(lambda: PackedBatch(torch.ones(3))) is not None

    thousand()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    references = sys.getrefcount(ValueError)
    for _ in range(5):
        thousand()
    assert sys.getrefcount(ValueError) - references < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB


def test_what_a_parallel_loop_throws_is_thrown_by_the_call(one_line_error):
    for _ in range(100):
        with one_line_error(ValueError, "refuse_in_parallel: task must be below 63 (got 63)"):
            refuse_in_parallel(64)


def test_an_argument_that_cannot_be_is_refused_before_anything_is_made():
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        EmbeddingSpec(words=1, norm=NormSpec((MASK, MASK), 1e-5))
