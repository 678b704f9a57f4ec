"""Attention by itself, in every form: how exact it is, and that a row's bits are its own."""

from __future__ import annotations

import math

import pytest
import torch
from instruction_sets import check_same_everywhere

from moco_rt import _C

#: Queries go by 64, keys by 64 and the last ones by 16, pairs of keys by 32, weights in int16 by 512 keys.
LENGTHS = {
    "one token": [1],
    "few": [15, 1, 16, 17, 31, 32, 33],
    "many": [63, 64, 65, 130, 300],
    "longest": [512],
    "longer": [1100],
}
HEADS = [(1, 2), (3, 20), (2, 32), (2, 64), (1, 50), (1, 128)]
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
every_head = pytest.mark.parametrize(("heads", "d"), HEADS)


def starts(lengths):
    return [0, *torch.tensor(lengths).cumsum(0).tolist()]


def random_qkv(lengths, heads, d, sharpness=1.0):
    """Queries, keys and values; scores vary by about `sharpness`."""
    torch.manual_seed(sum(lengths) + d)
    qkv = torch.randn(sum(lengths), 3, heads, d)
    qkv[:, 0] *= sharpness
    return qkv


def weights_of(row, before, behind):
    """Weights of one row, (heads, queries, keys), by torch's own operations, in its dtype."""
    query, key, _ = row.transpose(0, 2).unbind(1)  # (heads, tokens, d) each
    scores = query @ key.mT / math.sqrt(row.shape[3])
    distance = torch.arange(len(row)) - torch.arange(len(row))[:, None]
    there = (distance >= -before if before >= 0 else True) & (distance <= behind if behind >= 0 else True)
    return torch.softmax(scores if there is True else scores.masked_fill(~there, -math.inf), 2)


def plain(qkv, lengths, before=-1, behind=-1):
    """By torch's own operations, in the dtype of qkv."""
    rows = [weights_of(row, before, behind) @ row[:, 2].transpose(0, 1) for row in qkv.split(lengths)]
    return torch.cat([row.transpose(0, 1) for row in rows])


def plainly_received(qkv, lengths, before=-1, behind=-1):
    """What each token receives of attention, by torch's own operations, in the dtype of qkv."""
    return torch.cat([weights_of(row, before, behind).sum((0, 1)) for row in qkv.split(lengths)])


@every_head
@every_length
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_is_within_twice_the_error_of_torchs(lengths, heads, d, dtype):
    if not _C.can_multiply(dtype):
        pytest.skip(f"the processor does not multiply {dtype}")
    qkv = random_qkv(lengths, heads, d).to(dtype)
    exact = plain(qkv.double(), lengths)
    error = (_C.attention(qkv, starts(lengths)).double() - exact).abs().max()
    assert error <= 2 * (plain(qkv, lengths).double() - exact).abs().max() + 1e-7


@every_head
@every_length
@pytest.mark.parametrize("form", [torch.float32, torch.bfloat16, "int16"], ids=str)
def test_received_attention_is_the_sum_of_weights(lengths, heads, d, form):
    dtype = torch.float32 if form == "int16" else form
    if not _C.can_multiply(dtype):
        pytest.skip(f"the processor does not multiply {dtype}")
    qkv = random_qkv(lengths, heads, d).to(dtype)
    exact = plainly_received(qkv.double(), lengths)
    found = _C.received_attention(qkv, starts(lengths), form == "int16")
    if form == "int16":
        torch.testing.assert_close(found.double(), exact, rtol=5e-3, atol=5e-3)
    else:
        assert (found.double() - exact).abs().max() <= 2 * (plainly_received(qkv, lengths) - exact).abs().max() + 1e-6


@pytest.mark.parametrize("keys", [(-1, 0), (64, 64), (3, 3), (100, 20)], ids=str)
@pytest.mark.parametrize("int16", [False, True])
def test_attention_is_received_from_queries_that_attend(int16, keys):
    lengths = [5, 130, 33, 1100]
    qkv = random_qkv(lengths, 2, 32)
    found = _C.received_attention(qkv, starts(lengths), int16, *keys).double()
    torch.testing.assert_close(found, plainly_received(qkv.double(), lengths, *keys), rtol=5e-3, atol=5e-3)


@every_length
@pytest.mark.parametrize("keys", [(-1, 0), (64, 64), (3, 3), (0, 0), (5, -1), (100, 20)], ids=str)
@pytest.mark.parametrize("form", [torch.float32, torch.bfloat16, "int16"], ids=str)
def test_queries_attend_to_their_own_keys_only(lengths, keys, form):
    """To those so many before their own and behind it; -1: all."""
    dtype = torch.float32 if form == "int16" else form
    if not _C.can_multiply(dtype):
        pytest.skip(f"the processor does not multiply {dtype}")
    qkv = random_qkv(lengths, 2, 32).to(dtype)
    exact = plain(qkv.double(), lengths, *keys)
    error = (_C.attention(qkv, starts(lengths), form == "int16", *keys).double() - exact).abs().max()
    if form == "int16":
        assert error <= 2e-3 * qkv[:, 2].abs().max()
    else:
        assert error <= 2 * (plain(qkv, lengths, *keys).double() - exact).abs().max() + 1e-7


@pytest.mark.parametrize("int16", [False, True])
def test_keys_that_reach_from_end_to_end_are_all_keys(int16):
    """To the bit, in rows that are short enough; in longer ones some are left out."""
    qkv = random_qkv([40, 39, 41], 2, 32)
    everything, some = (_C.attention(qkv, starts([40, 39, 41]), int16, *keys) for keys in ((-1, -1), (39, 39)))
    assert torch.equal(some[:79], everything[:79])
    assert not torch.equal(some[79:], everything[79:])


@every_head
@every_length
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 30.0])
def test_int16_is_as_exact_as_its_numbers_allow(lengths, heads, d, sharpness):
    """Values are rounded to a 2047th of the largest at least, scores much finer, weights to a 16,384th of the largest.

    A score is that of rounded queries and keys: where they are large, a weight is off by more, all the same by a part
    of itself and of what is near it.
    """
    qkv = random_qkv(lengths, heads, d, sharpness)
    exact = plain(qkv.double(), lengths)
    error = (_C.attention(qkv, starts(lengths), int16=True).double() - exact).abs().max()
    largest = qkv[:, 2].abs().max()
    step = math.sqrt(2**30 // d)
    of_scores = qkv[:, 0].abs().max() * qkv[:, 1].abs().max() / step * math.sqrt(d)
    assert error <= largest * (1 / 2047 + 1e-3 + of_scores)
    assert error <= 0.02 * largest


@pytest.mark.parametrize("keys", [(-1, -1), (-1, 0), (700, 700)], ids=str)
@pytest.mark.parametrize("sink", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("tokens", [64, 300, 512, 513, 1024, 2500, 5000])
def test_what_many_keys_have_together_is_not_lost_beside_one(tokens, sink, keys):
    """One key has most of the probability, the others share the rest evenly: as first tokens often do.

    At 512 keys and 99%, each of the others has less than half a step of the weights, so that all of them are lost.
    """
    qkv = torch.zeros(tokens, 3, 1, 64)
    qkv[:, 0, 0, 0] = 8.0
    qkv[0, 1, 0, 0] = math.log(sink / (1 - sink) * (tokens - 1))
    qkv[:, 2], qkv[0, 2] = 1.0, 0.0
    exact = plain(qkv.double(), [tokens], *keys)
    error = (_C.attention(qkv, [0, tokens], True, *keys).double() - exact).abs().max()
    assert error <= 512 / 2**15 + 1 / 2047


@pytest.mark.parametrize("d", [4, 32, 64])
@pytest.mark.parametrize("int16", [False, True])
def test_scores_of_any_size_are_compared_exactly(int16, d):
    """One key is far above the others, then far below them, at the ends of what the sums can hold."""
    for size in (1e2, 1e4, 1e8, 1e15):
        qkv = torch.zeros(40, 3, 1, d)
        qkv[:, 0], qkv[:, 2, 0, 0] = size, torch.arange(40.0)
        qkv[:, 1], qkv[17, 1] = -size, size
        context = _C.attention(qkv, [0, 40], int16)
        torch.testing.assert_close(context[:, 0, 0], torch.full((40,), 17.0), rtol=1e-3, atol=0)
        qkv[:, 1] *= -1
        context = _C.attention(qkv, [0, 40], int16)
        torch.testing.assert_close(context[:, 0, 0], torch.full((40,), (39 * 40 / 2 - 17) / 39), rtol=1e-3, atol=0)


@pytest.mark.parametrize("int16", [False, True])
def test_zeros_are_attended_to_equally(int16):
    context = _C.attention(torch.zeros(33, 3, 2, 32), [0, 33], int16)
    assert torch.equal(context, torch.zeros(33, 2, 32))
    qkv = torch.zeros(33, 3, 2, 32)
    qkv[:, 2] = torch.arange(33.0)[:, None, None]
    torch.testing.assert_close(_C.attention(qkv, [0, 33], int16), torch.full((33, 2, 32), 16.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("int16", [False, True])
def test_what_is_not_finite_is_seen_in_its_row_and_head_only(int16, value, part):
    qkv = random_qkv([40, 30], 2, 32)
    whole = _C.attention(qkv, [0, 40, 70], int16)
    qkv[39, part, 1, 3] = value
    context = _C.attention(qkv, [0, 40, 70], int16)
    assert torch.equal(context[40:], whole[40:])
    assert torch.equal(context[:, 0], whole[:, 0])
    if math.isnan(value):
        seen = [39] if part == 0 else range(40)  # a query's own token sees it, a key's or a value's the whole row
        assert not context[seen, 1].isfinite().all(1).any()


@pytest.mark.parametrize("kernel", [_C.attention, _C.received_attention], ids=["context", "received"])
@pytest.mark.parametrize("int16", [False, True])
def test_a_rows_bits_are_the_same_bits_alone_among_others_and_on_one_thread(int16, kernel):
    lengths = [5, 64, 1, 300, 33]
    qkv = random_qkv(lengths, 3, 32)
    together = kernel(qkv, starts(lengths), int16)
    for row, found in zip(qkv.split(lengths), together.split(lengths), strict=True):
        assert torch.equal(kernel(row, [0, len(row)], int16), found)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(kernel(qkv, starts(lengths), int16), together)
    finally:
        torch.set_num_threads(threads)


def test_every_instruction_set_with_fused_multiply_add_gives_the_same_bits():
    script = (
        "import hashlib, torch\n"
        "from moco_rt import _C\n"
        "torch.manual_seed(0)\n"
        "found = hashlib.sha256()\n"
        "for tokens, heads, d in ((1, 1, 2), (40, 2, 32), (300, 1, 50), (512, 1, 64), (1300, 2, 32)):\n"
        "    qkv = torch.randn(tokens, 3, heads, d, dtype=torch.float64).float()\n"
        "    found.update(_C.attention(qkv, [0, tokens], int16=True).numpy().tobytes())\n"
        "print(found.hexdigest())\n"
    )
    check_same_everywhere(script)


@pytest.mark.parametrize(
    ("shape", "cu_seqlens", "int16", "message"),
    [
        ((4, 2, 1, 2), [0, 4], False, r"qkv must have shape \(tokens, 3, heads, d\)"),
        ((4, 3, 1, 2), [0, 3], False, "cu_seqlens must rise from 0 to the number of tokens, 4"),
        ((4, 3, 1, 3), [0, 4], True, "d must be even"),
    ],
)
def test_refusals(shape, cu_seqlens, int16, message):
    with pytest.raises(ValueError, match=message):
        _C.attention(torch.zeros(shape), cu_seqlens, int16)
