from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from moco_rt._C import PackedBatch

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TWO_ROWS = torch.tensor([[1, 1, 0], [1, 1, 1]])


def random_rows(lengths, dim=5, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator).to(dtype) for length in lengths]


def mask_of(lengths, tokens=None, dtype=torch.int64):
    return (torch.arange(tokens or max(lengths)) < torch.tensor(lengths)[:, None]).to(dtype)


def pack(rows, tokens=None):
    """A batch of rows [(length, D)], padded with NaN: whatever reads the padding shows it."""
    mask = mask_of([len(row) for row in rows], tokens)
    batch = PackedBatch(mask)
    batch.unpad(padded_with_nan(rows, mask.shape[1]))
    return batch


def padded_with_nan(rows, tokens=None):
    padded = pad_sequence(rows, batch_first=True, padding_value=float("nan"))
    short = (tokens or padded.shape[1]) - padded.shape[1]
    return torch.nn.functional.pad(padded, (0, 0, 0, short), value=float("nan"))


def keep(*answers):
    return torch.tensor(answers, dtype=torch.bool)


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def assert_holds(batch, rows, row_ids):
    """Batch holds these rows [(length, D)], which came in at these places: everything rebuilt from the list."""
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    assert (batch.rows, batch.total_tokens, batch.max_seqlen) == (len(rows), lengths.sum(), lengths.max())
    assert_same(batch.cu_seqlens, lengths.cumsum(0).int())
    assert_same(batch.row_ids, torch.tensor(row_ids, dtype=torch.int32))
    if not rows:
        assert batch.hidden.shape[0] == batch.pad().shape[0] == batch.pool("mean").shape[0] == 0
        return
    assert_same(batch.hidden, torch.cat(rows))
    assert_same(batch.pad(), pad_sequence(rows, batch_first=True))
    assert_same(batch.attention_mask(), mask_of(lengths[1:].tolist()))
    assert_same(batch.pool("cls"), torch.stack([row[0].float() for row in rows]))
    assert_same(batch.pool("flat"), pad_sequence(rows, batch_first=True).float().flatten(1))


# Unpadding and padding


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [[1], [4], [3, 1, 4], [2, 2, 2], [1] * 65], ids=str)
@pytest.mark.parametrize("more_tokens", [0, 3])
def test_unpad_then_pad_gives_the_rows_back(dtype, lengths, more_tokens):
    rows = random_rows(lengths, dtype=dtype)
    assert_holds(pack(rows, max(lengths) + more_tokens), rows, list(range(len(rows))))


@pytest.mark.parametrize("dim", [1, 7, 128])
def test_many_long_rows_are_moved_by_several_threads_alike(dim):
    rows = random_rows(range(1, 513, 8), dim=dim)
    assert_holds(pack(rows), rows, list(range(64)))


def test_the_boundaries_of_a_worked_batch():
    batch = PackedBatch(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]))
    assert (batch.rows, batch.total_tokens, batch.max_seqlen) == (3, 6, 3)
    assert_same(batch.cu_seqlens, torch.tensor([0, 2, 5, 6], dtype=torch.int32))
    assert_same(batch.row_ids, torch.tensor([0, 1, 2], dtype=torch.int32))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64])
def test_a_mask_may_be_bool_or_any_integer(dtype):
    batch = PackedBatch(TWO_ROWS.to(dtype))
    assert_same(batch.cu_seqlens, torch.tensor([0, 2, 5], dtype=torch.int32))


def test_strided_inputs_are_read_as_they_look():
    rows = random_rows([2, 3])
    batch = PackedBatch(TWO_ROWS.T.contiguous().T)
    batch.unpad(padded_with_nan(rows).permute(2, 0, 1).contiguous().permute(1, 2, 0))
    assert_holds(batch, rows, [0, 1])


def test_unpad_copies():
    padded = torch.ones(2, 3, 4)
    batch = PackedBatch(TWO_ROWS)
    batch.unpad(padded)
    padded.zero_()
    assert_same(batch.hidden, torch.ones(5, 4))


# Pooling


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cls_and_flat_are_plain_torch_to_the_bit(dtype):
    rows = random_rows([3, 1, 5], dim=33, dtype=dtype)
    batch = pack(rows, tokens=6)
    assert_same(batch.pool("cls"), torch.stack([row[0] for row in rows]).float())
    assert_same(batch.pool("flat"), pad_sequence(rows, batch_first=True).flatten(1).float())
    wider = torch.nn.functional.pad(pad_sequence(rows, batch_first=True), (0, 0, 0, 4))
    assert_same(batch.pool("flat", tokens=9), wider.flatten(1).float())


def test_pools_of_a_worked_batch():
    batch = PackedBatch(torch.tensor([[1, 1], [1, 0]]))
    batch.unpad(torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 7.0], [100.0, 100.0]]]))
    assert batch.pool("cls").tolist() == [[1, 2], [5, 7]]
    assert batch.pool("mean").tolist() == [[2, 4], [5, 7]]
    assert batch.pool("flat").tolist() == [[1, 2, 3, 6], [5, 7, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("length", [1, 2, 16, 128, 512])
def test_mean_is_within_twice_the_error_of_plain_torch(length, dtype):
    """Both against float64. A pool is float32, hence so is the plain mean that float64 rows are compared with."""
    for count, dim in itertools.product([1, 3, 64], [1, 7, 32, 33, 128, 384]):
        ours = plain = 0.0
        for seed in range(max(1, 2048 // (count * dim))):  # of few numbers the largest error is luck
            padded = torch.randn(count, length, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)
            batch = PackedBatch(torch.ones(count, length, dtype=torch.bool))
            batch.unpad(padded)
            exact = padded.mean(1, dtype=torch.float64)
            in_torch = (padded.float() if dtype == torch.float64 else padded).mean(1)
            ours = max(ours, (batch.pool("mean") - exact).abs().max().item())
            plain = max(plain, (in_torch - exact).abs().max().item())
        assert ours <= 2 * plain, f"{count} rows of dim {dim}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mean_on_any_device_is_the_mean(dtype):
    rows = random_rows([1, 2, 16, 7], dim=33, dtype=dtype)
    expected = torch.stack([row.double().mean(0) for row in rows]).float()
    torch.testing.assert_close(pack(rows).pool("mean"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_a_row_has_the_same_bits_alone_and_among_others(feature, dtype):
    rows = random_rows([40, 1, 512, 3, 77], dim=130, dtype=dtype)
    together = pack(rows, tokens=600).pool(feature)
    for row, pooled in zip(rows, together, strict=True):
        assert_same(pack([row]).pool(feature)[0], pooled)


# Compaction


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "kept",
    [[], [0, 1, 2, 3, 4, 5], [0, 2, 4], [1, 3, 5], [0], [5], [0, 1], [4, 5]],
    ids=["none", "all", "even", "odd", "first", "last", "head", "tail"],
)
def test_compact_keeps_the_kept_rows_in_their_order(dtype, kept):
    rows = random_rows([3, 1, 4, 1, 5, 9], dtype=dtype)
    batch = pack(rows)
    batch.compact(keep(*(r in kept for r in range(6))))
    assert_holds(batch, [rows[r] for r in kept], kept)


@settings(deadline=None)
@given(
    data=st.data(),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    dim=st.sampled_from([1, 5, 32]),
    dtype=st.sampled_from(DTYPES),
)
def test_compaction_after_compaction_is_a_list_of_rows(data, lengths, dim, dtype):
    rows = random_rows(lengths, dim, dtype)
    row_ids = list(range(len(rows)))
    batch = pack(rows)
    for _ in range(data.draw(st.integers(1, 4))):
        kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        batch.compact(torch.tensor(kept, dtype=torch.bool))
        rows = [row for row, stays in zip(rows, kept, strict=True) if stays]
        row_ids = [row_id for row_id, stays in zip(row_ids, kept, strict=True) if stays]
        assert_holds(batch, rows, row_ids)


def best_of(row, scores, count, pooled):
    """The tokens of a row that stay, by sorting them all."""
    order = sorted(range(len(row)), key=lambda t: (t != pooled, -scores[t], t))
    return row[sorted(order[:count])]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    shares=st.lists(st.sampled_from([1.0, 0.9, 0.55, 0.35, 0.05]), min_size=1, max_size=3),
    pooled=st.sampled_from(["first", "last"]),
    seed=st.integers(0, 5),
)
def test_a_share_of_the_tokens_that_a_row_began_with_stays(lengths, shares, pooled, seed):
    rows = random_rows(lengths)
    batch = PackedBatch(mask_of(lengths), pooled=pooled)
    batch.unpad(padded_with_nan(rows))
    for share in sorted(shares, reverse=True):
        generator = torch.Generator().manual_seed(seed)
        scores = [torch.randint(0, 6, (len(row),), generator=generator).float() for row in rows]  # many are equal
        batch.keep_tokens(torch.cat(scores), share)
        counts = [min(len(row), math.ceil(share * length)) for row, length in zip(rows, lengths, strict=True)]
        rows = [
            best_of(row, own.tolist(), count, 0 if pooled == "first" else len(row) - 1)
            for row, own, count in zip(rows, scores, counts, strict=True)
        ]
        assert torch.equal(batch.hidden, torch.cat(rows))
        assert batch.cu_seqlens.diff().tolist() == [len(row) for row in rows]


def test_tokens_go_after_rows_and_rows_after_tokens():
    rows = random_rows([4, 6, 2])
    batch = pack(rows)
    batch.compact(keep(False, True, True))
    batch.keep_tokens(torch.tensor([0.0, 1, 5, 2, 4, 3, 0, 1]), 0.5)
    assert_holds(batch, [rows[1][[0, 2, 4]], rows[2][:1]], [1, 2])
    batch.compact(keep(True, False))
    batch.keep_tokens(torch.tensor([0.0, 1, 2]), 0.3)  # of the 6 that it began with
    assert_holds(batch, [rows[1][[0, 4]]], [1])


@pytest.mark.parametrize("types", [False, True])
def test_ids_go_with_the_tokens_that_stay(types):
    lengths = [4, 2, 6]
    batch = pack(random_rows(lengths))
    ids = torch.arange(12)
    batch.take_ids(ids, ids % 2 if types else None)
    scores = torch.tensor([0.0, 3, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5])
    batch.keep_tokens(scores, 0.5)
    assert batch.ids.tolist() == [0, 1, 4, 6, 10, 11]


def test_the_pooled_token_stays_beside_infinite_scores():
    batch = PackedBatch.of_lengths(torch.tensor([4]), pooled="last")
    batch.unpad(torch.arange(4.0).reshape(1, 4, 1))
    batch.keep_tokens(torch.tensor([float("inf"), 0.0, float("inf"), 0.0]), 0.25)
    assert batch.hidden.flatten().tolist() == [3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ids_that_are_no_integers_are_refused(dtype):
    batch = PackedBatch(TWO_ROWS)
    with pytest.raises(TypeError, match="take_ids: input_ids must be integer"):
        batch.take_ids(torch.ones(2, 3, dtype=dtype), None)
    with pytest.raises(TypeError, match="take_ids: token_type_ids must be integer"):
        batch.take_ids(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=dtype))


def test_scores_that_are_no_numbers_are_the_lowest():
    rows = random_rows([4])
    batch = pack(rows)
    batch.keep_tokens(torch.tensor([float("nan"), float("nan"), -1.0, float("nan")]), 0.5)
    assert_holds(batch, [rows[0][[0, 2]]], [0])


@pytest.mark.parametrize(
    ("scores", "share", "words"),
    [
        (torch.ones(4), 0.5, "keep_tokens"),
        (torch.ones(5, dtype=torch.float64), 0.5, "keep_tokens"),
        (torch.ones(5), 0.0, "keep_tokens: share must be above 0 and at most 1 (got 0)"),
        (torch.ones(5), 1.5, "keep_tokens: share must be above 0 and at most 1 (got 1.5)"),
    ],
)
def test_tokens_are_kept_by_a_score_each_and_a_share(scores, share, words):
    batch = pack(random_rows([2, 3]))
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        batch.keep_tokens(scores, share)


def test_compact_moves_tokens_in_place_on_the_cpu():
    batch = pack(random_rows([2, 3]))
    before = batch.hidden
    batch.compact(keep(False, True))
    assert batch.hidden.data_ptr() == before.data_ptr()


def test_compact_before_unpad_chooses_the_rows_to_come():
    rows = random_rows([2, 3])
    batch = PackedBatch(TWO_ROWS)
    batch.compact(keep(False, True))
    batch.unpad(padded_with_nan(rows[1:]))
    assert_holds(batch, rows[1:], [1])


def test_unpad_after_compaction_takes_the_survivors_into_the_same_buffer():
    rows = random_rows([4, 1, 3])
    batch = pack(rows)
    before = batch.hidden  # held, so that its memory cannot be given out again
    batch.compact(keep(True, False, True))
    layer = [10 * row for row in (rows[0], rows[2])]
    batch.unpad(padded_with_nan(layer))
    assert_holds(batch, layer, [0, 2])
    assert batch.hidden.data_ptr() == before.data_ptr()


@pytest.mark.parametrize(("dim", "dtype"), [(4, torch.float32), (6, torch.float32), (5, torch.bfloat16)], ids=str)
def test_unpad_of_another_size_or_dtype_takes_a_new_buffer(dim, dtype):
    batch = pack(random_rows([4, 1]))
    before = batch.hidden
    copy = before.clone()
    rows = random_rows([4, 1], dim, dtype, seed=1)
    batch.unpad(padded_with_nan(rows))
    assert_holds(batch, rows, [0, 1])
    assert_same(before, copy)


# The mean that was kept


def kept_then(rows, later, tokens=None):
    """A batch that kept the mean of rows and now holds later."""
    batch = pack(rows, tokens)
    batch.keep_mean()
    batch.unpad(padded_with_nan(later))
    return batch


def cls_and_mean(now, then):
    """What `cls+mean` must be: first tokens of now beside the means of then."""
    return torch.cat([torch.stack([row[0].float() for row in now]), pack(then).pool("mean")], 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cls_and_mean_are_the_first_token_of_now_beside_the_mean_that_was_kept(dtype):
    rows = random_rows([3, 1, 5], dim=33, dtype=dtype)
    later = random_rows([3, 1, 5], dim=33, dtype=dtype, seed=1)
    pooled = kept_then(rows, later).pool("cls+mean")
    assert (pooled.dtype, pooled.shape) == (torch.float32, (3, 66))
    assert_same(pooled, cls_and_mean(later, rows))


def test_the_mean_of_a_worked_batch_is_kept():
    batch = PackedBatch(torch.tensor([[1, 1], [1, 0]]))
    batch.unpad(torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 7.0], [100.0, 100.0]]]))
    batch.keep_mean()
    assert batch.pool("cls+mean").tolist() == [[1, 2, 2, 4], [5, 7, 5, 7]]
    batch.unpad(torch.zeros(2, 2, 2))
    assert batch.pool("cls+mean").tolist() == [[0, 0, 2, 4], [0, 0, 5, 7]]


def test_the_mean_that_is_kept_is_the_last_one():
    rows, later = random_rows([3, 1]), random_rows([3, 1], seed=1)
    batch = kept_then(rows, later)
    batch.keep_mean()
    assert_same(batch.pool("cls+mean"), cls_and_mean(later, later))


@pytest.mark.parametrize("kept", [[], [0, 1, 2, 3], [0, 2], [3], [1, 2]], ids=str)
def test_the_kept_mean_follows_its_rows_through_compaction(kept):
    rows, later = random_rows([3, 1, 4, 2]), random_rows([3, 1, 4, 2], seed=1)
    batch = kept_then(rows, later)
    batch.compact(keep(*(r in kept for r in range(4))))
    if not kept:
        assert batch.pool("cls+mean").shape == (0, 10)
        return
    assert_same(batch.pool("cls+mean"), cls_and_mean([later[r] for r in kept], [rows[r] for r in kept]))


def test_the_kept_mean_goes_along_with_the_first_tokens():
    rows, later = random_rows([3, 1, 4]), random_rows([3, 1, 4], seed=1)
    batch = kept_then(rows, later)
    first = batch.cls()
    assert_same(first.pool("cls+mean"), batch.pool("cls+mean"))
    # What becomes of the one is nothing to the other ...
    first.compact(keep(True, False, True))
    assert_same(first.pool("cls+mean"), cls_and_mean([later[0], later[2]], [rows[0], rows[2]]))
    assert_same(batch.pool("cls+mean"), cls_and_mean(later, rows))
    # ... until it is told.
    batch.keep_rows_of(first)
    assert_same(batch.pool("cls+mean"), first.pool("cls+mean"))


def test_the_kept_mean_does_not_change_the_other_features():
    rows, later = random_rows([3, 1]), random_rows([3, 1], seed=1)
    assert_holds(kept_then(rows, later), later, [0, 1])
    assert_same(kept_then(rows, later).pool("mean"), pack(later).pool("mean"))


def test_cls_and_mean_are_refused_before_a_mean_was_kept(one_line_error):
    batch = pack(random_rows([2, 3]))
    for each in (batch, batch.cls()):
        with one_line_error(ValueError, "pool: cls+mean needs the mean of an earlier keep_mean (got none)"):
            each.pool("cls+mean")


def test_no_mean_is_kept_before_there_are_hidden_states(one_line_error):
    with one_line_error(ValueError, "hidden states must be given by unpad first"):
        PackedBatch(TWO_ROWS).keep_mean()


# What is refused


@pytest.mark.parametrize(
    ("mask", "kind", "words"),
    [
        (
            torch.ones(0, 3, dtype=torch.int64),
            ValueError,
            "must have shape (rows, tokens) with at least one of each (got [0, 3])",
        ),
        (
            torch.ones(2, 0, dtype=torch.int64),
            ValueError,
            "must have shape (rows, tokens) with at least one of each (got [2, 0])",
        ),
        (
            torch.ones(3, dtype=torch.int64),
            ValueError,
            "must have shape (rows, tokens) with at least one of each (got [3])",
        ),
        (torch.tensor([[1, 0], [0, 0]]), ValueError, "must have a real token in every row (row 1 has none)"),
        (torch.tensor([[1, 1], [1, 2]]), ValueError, "must hold only 0 and 1 (got 2 in row 1)"),
        (torch.tensor([[-1, 0]]), ValueError, "must hold only 0 and 1 (got -1 in row 0)"),
        (
            torch.tensor([[1, 1], [0, 1]]),
            ValueError,
            "must be right-padded, ones before zeros (row 1 is not; set tokenizer.padding_side",
        ),
        (torch.tensor([[1, 0, 1]]), ValueError, "must be right-padded, ones before zeros (row 0 is not"),
        (torch.ones(1, 2), TypeError, "must be integer or bool (got torch.float32)"),
    ],
    ids=["no rows", "no tokens", "one dim", "empty row", "two", "negative", "left-padded", "a hole", "float"],
)
def test_a_bad_mask_is_refused(one_line_error, mask, kind, words):
    with one_line_error(kind, f"attention_mask {words}"):
        PackedBatch(mask)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), dtype=st.sampled_from([torch.int32, torch.int64]))
def test_a_batch_of_lengths_is_that_of_their_mask(lengths, dtype):
    by_mask, by_length = PackedBatch(mask_of(lengths)), PackedBatch.of_lengths(torch.tensor(lengths, dtype=dtype))
    assert_same(by_length.cu_seqlens, by_mask.cu_seqlens)
    assert_same(by_length.row_ids, by_mask.row_ids)


@pytest.mark.parametrize(
    ("lengths", "kind", "words"),
    [
        (torch.tensor([], dtype=torch.int64), ValueError, "must have shape (rows) with at least one row (got [0])"),
        (torch.ones(2, 2, dtype=torch.int64), ValueError, "must have shape (rows) with at least one row (got [2, 2])"),
        (torch.tensor([3, 0]), ValueError, "must be at least 1 in every row (got 0 in row 1)"),
        (torch.tensor([-1]), ValueError, "must be at least 1 in every row (got -1 in row 0)"),
        (torch.tensor([2**31 - 2, 2]), ValueError, "must add up to at most 2**31 - 1 tokens (got more by row 1)"),
        (torch.ones(2), TypeError, "must be integer (got torch.float32)"),
        (torch.ones(2, dtype=torch.bool), TypeError, "must be integer (got torch.bool)"),
    ],
    ids=["no rows", "two dims", "empty row", "negative", "too many", "float", "bool"],
)
def test_bad_lengths_are_refused(one_line_error, lengths, kind, words):
    with one_line_error(kind, f"lengths {words}"):
        PackedBatch.of_lengths(lengths)


@pytest.mark.parametrize(
    ("padded", "kind", "words"),
    [
        (torch.ones(3, 3, 4), ValueError, "must have shape (2, at least 3, at least 1) (got [3, 3, 4])"),
        (torch.ones(2, 2, 4), ValueError, "must have shape (2, at least 3, at least 1) (got [2, 2, 4])"),
        (torch.ones(2, 3), ValueError, "must have shape (2, at least 3, at least 1) (got [2, 3])"),
        (torch.ones(2, 3, 4, dtype=torch.int64), TypeError, "must be floating point (got torch.int64)"),
        (torch.ones(2, 3, 0), ValueError, "must have shape (2, at least 3, at least 1) (got [2, 3, 0])"),
    ],
    ids=["rows", "tokens", "dim", "integer", "no hidden size"],
)
def test_bad_hidden_states_are_refused_and_change_nothing(one_line_error, padded, kind, words):
    rows = random_rows([2, 3])
    batch = pack(rows)
    with one_line_error(kind, f"unpad: padded {words}"):
        batch.unpad(padded)
    assert_holds(batch, rows, [0, 1])


@pytest.mark.parametrize(
    "read",
    [lambda b: b.hidden, lambda b: b.pad(), lambda b: b.pool("mean")],
    ids=["hidden", "pad", "pool"],
)
def test_hidden_states_are_asked_for_before_they_are_read(one_line_error, read):
    with one_line_error(ValueError, "hidden states must be given by unpad first"):
        read(PackedBatch(TWO_ROWS))


def test_an_unknown_feature_is_refused(one_line_error):
    with one_line_error(ValueError, "feature must be one of cls, mean, flat, cls+mean (got max)"):
        pack(random_rows([2, 3])).pool("max")


def test_a_flat_feature_of_few_tokens_holds_the_first_of_each_row():
    rows = random_rows([2, 3], dim=4)
    expected = torch.stack([row[:2].flatten() for row in rows])
    assert_same(pack(rows).pool("flat", tokens=2), expected)


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_flat_feature_of_no_tokens_is_refused(one_line_error, tokens):
    with one_line_error(ValueError, f"pool: tokens must be at least 1 (got {tokens})"):
        pack(random_rows([2, 3])).pool("flat", tokens=tokens)


@pytest.mark.parametrize(
    ("kept", "kind", "words"),
    [
        (torch.ones(2), TypeError, "must be torch.bool (got torch.float32)"),
        (torch.ones(2, dtype=torch.int64), TypeError, "must be torch.bool (got torch.int64)"),
        (torch.ones(2, 1, dtype=torch.bool), ValueError, "must have shape (rows) (got [2, 1])"),
        (torch.ones(3, dtype=torch.bool), ValueError, "must have one value for each of the 2 rows (got 3)"),
        (torch.ones(0, dtype=torch.bool), ValueError, "must have one value for each of the 2 rows (got 0)"),
    ],
    ids=["float", "integer", "two dims", "too many", "too few"],
)
def test_a_bad_keep_is_refused_and_changes_nothing(one_line_error, kept, kind, words):
    rows = random_rows([2, 3])
    batch = pack(rows)
    with one_line_error(kind, f"compact: keep {words}"):
        batch.compact(kept)
    assert_holds(batch, rows, [0, 1])


# Token ids


IDS = torch.tensor([[5, 6, 7], [8, 9, 0], [4, 0, 0]])
TYPES = torch.tensor([[0, 0, 1], [0, 1, 9], [0, 9, 9]])
ID_MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("end_to_end", [False, True], ids=["padded", "end to end"])
def test_ids_are_kept_without_padding_and_compacted_with_their_rows(dtype, end_to_end):
    batch = PackedBatch(ID_MASK)
    given = [(each[ID_MASK.bool()] if end_to_end else each).to(dtype) for each in (IDS, TYPES)]
    before = [each.clone() for each in given]
    batch.take_ids(*given)
    assert batch.ids.tolist() == [5, 6, 7, 8, 9, 4]
    batch.compact(torch.tensor([False, True, True]))
    assert batch.ids.tolist() == [8, 9, 4]
    batch.compact(torch.tensor([False, True]))
    assert batch.ids.tolist() == [4]
    batch.compact(torch.tensor([False]))
    assert batch.ids.tolist() == []
    assert all(map(torch.equal, given, before))


def test_a_batch_that_took_no_ids_has_none(one_line_error):
    with one_line_error(ValueError, "PackedBatch: ids must be given by take_ids first (got none)"):
        _ = PackedBatch(ID_MASK).ids
