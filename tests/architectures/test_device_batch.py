"""A batch whose hidden states lie on a device answers as one on the CPU; the CPU stands in for the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt._C import PackedBatch, Results
from moco_rt.architectures import device_batch
from moco_rt.architectures.device_batch import DeviceBatch, batch_of, on_cpu
from moco_rt.runtime.exit_points import compile_exits

DIM = 5
FEATURES = ["cls", "mean", "flat", "cls+mean"]


def both(lengths, pooled="first", width=None, seed=0):
    """The same rows as a batch on the CPU and as one on a device; padding holds NaN."""
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    hidden = torch.randn(*mask.shape, DIM, generator=torch.Generator().manual_seed(seed))
    hidden[mask == 0] = torch.nan
    batches = PackedBatch(mask, pooled=pooled), DeviceBatch(mask, pooled=pooled)
    for batch in batches:
        batch.unpad(hidden)
        batch.keep_mean()
        batch.unpad(hidden.roll(1, dims=2))
    return batches


def assert_alike(packed, device):
    assert (device.rows, device.max_seqlen) == (packed.rows, packed.max_seqlen)
    for name in ("row_ids", "cu_seqlens", "hidden"):
        assert torch.equal(getattr(device, name), getattr(packed, name)), name
    assert torch.equal(device.pad(), packed.pad())
    assert torch.equal(device.attention_mask(), packed.attention_mask())
    for feature in FEATURES:
        torch.testing.assert_close(device.pool(feature), packed.pool(feature), atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    pooled=st.sampled_from(["first", "last"]),
    more=st.integers(0, 3),
    data=st.data(),
)
def test_rows_leave_and_tokens_are_left_out_as_on_the_cpu(lengths, pooled, more, data):
    packed, device = both(lengths, pooled, max(lengths) + more)
    assert_alike(packed, device)
    keep = data.draw(st.lists(st.booleans(), min_size=packed.rows, max_size=packed.rows).filter(any))
    packed.compact(torch.tensor(keep))
    device.on_cpu.compact(torch.tensor(keep))
    assert_alike(packed, device)
    scores = torch.rand(len(packed.hidden), generator=torch.Generator().manual_seed(1))
    share = data.draw(st.floats(0.1, 1.0))
    packed.keep_tokens(scores, share)
    device.keep_tokens(scores, share)
    assert_alike(packed, device)


def test_features_come_together_and_with_the_mean():
    packed, device = both([3, 1, 4])
    wanted = [("cls", DIM), ("flat", 2 * DIM), ("cls+mean", 2 * DIM), ("flat", 6 * DIM)]
    found = device.features(wanted)
    assert [name for name, _ in found] == ["mean", "cls", "flat", "cls+mean", "flat"]
    expected = [packed.pool("mean"), *(packed.pool(name, tokens=size // DIM) for name, size in wanted)]
    for (_, feature), values in zip(found, expected, strict=True):
        torch.testing.assert_close(feature, values, atol=1e-6, rtol=1e-5)


def test_rows_leave_before_they_are_embedded():
    device = DeviceBatch(torch.ones(2, 2, dtype=torch.long))
    device.take_ids(torch.tensor([[1, 2], [3, 4]]), None)
    assert device.features([]) == []
    assert device.ids.tolist() == [1, 2, 3, 4]
    device.on_cpu.compact(torch.tensor([False, True]))
    assert (device.ids.tolist(), device.row_ids.tolist()) == ([3, 4], [1])


def test_a_feature_without_what_it_needs_is_refused(one_line_error):
    device = DeviceBatch(torch.ones(1, 2, dtype=torch.long))
    with one_line_error(ValueError, "hidden states must be given by unpad first"):
        device.pool("mean")
    device.unpad(torch.ones(1, 2, DIM))
    with one_line_error(ValueError, "cls+mean needs the mean of an earlier keep_mean"):
        device.pool("cls+mean")


def test_a_batch_lies_where_its_mask_lies():
    mask = torch.ones(1, 2, dtype=torch.long)
    batch = batch_of(mask)
    assert type(batch) is PackedBatch
    assert on_cpu(batch) is batch
    device = DeviceBatch(mask)
    assert on_cpu(device) is device.on_cpu


@pytest.mark.parametrize("feature", FEATURES)
def test_rules_fire_on_the_same_rows(tiny_bert, feature):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="reference")
    size = {"cls+mean": 64, "flat": 3 * 32}.get(feature, 32)
    weight = np.random.default_rng(0).normal(size=size).astype(np.float32)
    fast.add_rule(LinearCondition(weight, 0.0, 0.0, 0.1, feature=feature), 1, "encoder", 0, "attention")
    fast.add_rule(lambda x: x[:, 0] > 0.5, 0, "encoder", 0, "attention", feature="mean", bound=0.1)
    exits = compile_exits(fast.policy)["encoder.0.attention"]
    lengths = torch.arange(1, 13)
    mask = (torch.arange(12) < lengths[:, None]).long()
    hidden = torch.randn(12, 12, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for make in (PackedBatch, DeviceBatch):
        batch, results = make(mask), Results(12, 2, dtype=torch.float32)
        batch.unpad(hidden)
        batch.keep_mean()
        assert exits.apply(batch, results) == 12 - batch.rows
        found.append((results.logits, results.exit_rule, batch.pad()))
    assert 0 < len(found[0][2]) < 12
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_the_reference_loop_answers_alike_on_a_device(tiny_bert, monkeypatch):
    fast = EarlyExitTextClassificationModel(tiny_bert(layers=3), backend="reference")
    for seed, site in enumerate(["encoder.0.attention", "encoder.0.output", "encoder.1.output"]):
        weight = np.random.default_rng(seed).normal(size=64).astype(np.float32)
        fast.add_rule(LinearCondition(weight, 0.0, 1.0, 0.1, feature="cls+mean"), seed % 2, site)
    lengths = torch.arange(1, 25)
    mask = (torch.arange(24) < lengths[:, None]).long()
    ids = torch.randint(5, 50, mask.shape, generator=torch.Generator().manual_seed(0))
    expected = fast(ids, mask)
    assert len(expected.exit_site.unique()) > 2
    monkeypatch.setattr("moco_rt.runtime.reference.batch_of", DeviceBatch)
    found = fast(ids, mask)
    assert torch.equal(found.exit_site, expected.exit_site)
    torch.testing.assert_close(found.logits, expected.logits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_features_wait_for_the_gpu_once():
    batch = DeviceBatch(torch.ones(16, 20, dtype=torch.long, device="cuda"))
    batch.unpad(torch.randn(16, 20, DIM, device="cuda"))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="called a synchronizing CUDA operation") as waits:
            batch.features([("cls", DIM), ("flat", 2 * DIM)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1
    assert device_batch.batch_of(torch.ones(1, 1, device="cuda").long()).rows == 1
