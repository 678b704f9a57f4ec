"""What tests of the packed encoder share: batches, and how far from plain torch a result may be."""

from __future__ import annotations

import torch


def make_inputs(lengths, *, pairs=False, seed=0, vocabulary=100):
    """Random rows of these lengths, padded on the right."""
    lengths = torch.tensor(lengths)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "input_ids": torch.randint(5, vocabulary, mask.shape, generator=generator) * mask,
        "attention_mask": mask,
    }
    if pairs:
        inputs["token_type_ids"] = (torch.arange(mask.shape[1]) > lengths[:, None] // 2).long() * mask
    return inputs


def assert_within_twice_the_error(ours, plain, exact):
    """`ours` errs at most twice as much as `plain` torch in the same dtype, both against float64.

    The largest error over the whole output counts. On an output of few numbers plain torch may be luckier than its
    dtype allows to hope for: two ulp of the largest number always count as its error.
    """
    assert ours.dtype == plain.dtype
    assert ours.shape == plain.shape == exact.shape
    two_ulp = 2 * torch.finfo(plain.dtype).eps * exact.abs().max()
    allowed = 2 * torch.maximum((plain.double() - exact).abs().max(), two_ulp)
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"
