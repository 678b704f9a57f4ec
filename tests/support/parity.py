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


def assert_rows_keep_their_bits(fast, inputs, lengths):
    """A row's answer has the same bits alone, in a batch of a few and in the whole batch, in which rows leave."""
    together = fast(**inputs)
    assert len(set(together.exit_site.tolist())) >= 3
    for rows in ([5, 3, 0], [1], *([row] for row in range(len(lengths)))):
        longest = max(lengths[row] for row in rows)
        some = fast(**{name: tensor[rows, :longest] for name, tensor in inputs.items()})
        for name in ("logits", "exit_site", "exit_rule"):
            assert torch.equal(some[name], together[name][rows])
