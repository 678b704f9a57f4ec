"""The specification itself, against Hugging Face's forward and a hand-written loop over its hidden states."""

from __future__ import annotations

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.architectures.sites import all_sites

NEVER = 1e30


def make_inputs(rows=6, tokens=12, *, pairs=False, seed=0, device="cpu"):
    """Rows of different lengths, the first as long as the batch, the last of one token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (rows,), generator=generator)
    lengths[0], lengths[-1] = tokens, 1 if rows > 1 else tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    inputs = {
        "input_ids": torch.randint(5, 100, (rows, tokens), generator=generator) * mask,
        "attention_mask": mask,
    }
    if pairs:
        inputs["token_type_ids"] = (torch.arange(tokens) > lengths[:, None] // 2).long() * mask
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def random_condition(seed, *, hidden=32, feature="cls", threshold=0.0, bound=0.01, site=None):
    weight = torch.randn(hidden, generator=torch.Generator().manual_seed(seed)).numpy()
    return LinearCondition(weight, 0.0, threshold, bound, feature, site)


@torch.no_grad()
def site_states(model, inputs):
    """Site -> hidden states (rows, S, D) of Hugging Face's own forward."""
    states, handles = {}, []
    for i, layer in enumerate(model.bert.encoder.layer):
        for name, module in ((f"encoder.{i}.attention", layer.attention), (f"encoder.{i}.output", layer)):

            def keep(_module, _inputs, output, name=name):
                states[name] = (output[0] if isinstance(output, tuple) else output).clone()

            handles.append(module.register_forward_hook(keep))
    states["embeddings"] = model.bert.embeddings(inputs["input_ids"], inputs.get("token_type_ids"))
    model(**inputs)
    for handle in handles:
        handle.remove()
    return states


def pooled(states, mask, feature):
    if feature == "cls":
        return states[:, 0]
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("rows", "tokens", "heads", "labels"), [(6, 12, 2, 2), (1, 1, 1, 2), (1, 64, 4, 7), (5, 33, 1, 7)]
)
def test_without_rules_logits_are_hugging_faces_to_the_bit(
    tiny_bert, device, rows, tokens, heads, labels, dtype, pairs
):
    model = tiny_bert(heads=heads, labels=labels, dtype=dtype).to(device)
    inputs = make_inputs(rows, tokens, pairs=pairs, device=device)
    output = EarlyExitTextClassificationModel(model, backend="reference")(**inputs)
    with torch.no_grad():
        assert torch.equal(output.logits, model(**inputs).logits)
    assert output.exit_site.tolist() == output.exit_rule.tolist() == [-1] * rows


def test_512_tokens_and_padding_beyond_the_longest_row(tiny_bert, device):
    model = tiny_bert(max_position_embeddings=512).to(device)
    inputs = make_inputs(2, 512, device=device)
    inputs["attention_mask"][:, 500:] = 0
    with torch.no_grad():
        assert torch.equal(
            EarlyExitTextClassificationModel(model, backend="reference")(**inputs).logits, model(**inputs).logits
        )


def test_token_type_ids_are_honoured(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="reference")
    inputs = make_inputs(pairs=True)
    single = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
    assert (fast(**inputs).logits - fast(**single).logits).abs().max() > 1e-3


@pytest.mark.parametrize("feature", ["cls", "mean"])
@pytest.mark.parametrize(
    "sites",
    [
        ["embeddings"],
        ["encoder.0.attention"],
        ["encoder.0.output"],
        ["encoder.0.attention", "encoder.0.attention"],
        ["embeddings", "encoder.0.attention", "encoder.0.output", "encoder.1.attention", "encoder.1.output"],
    ],
    ids=len,
)
def test_rows_leave_where_the_rules_say_and_the_rest_is_untouched(tiny_bert, device, sites, feature):
    model = tiny_bert(layers=3, labels=3).to(device)
    inputs = make_inputs(24, 17, pairs=True, device=device)
    states = site_states(model, inputs)
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    expected_site, expected_rule = torch.full((24,), -1), torch.full((24,), -1)
    for rule_id, site in enumerate(sites):
        x = pooled(states[site], inputs["attention_mask"], feature).cpu()
        condition = random_condition(rule_id, feature=feature)
        scores = condition.score(x)
        threshold = scores.quantile(0.7).item()  # between two rows, well away from both
        condition = random_condition(rule_id, feature=feature, threshold=threshold)
        fast.add_rule(condition, rule_id % 3, site)
        fires = condition(x) & (expected_site == -1)
        expected_site[fires], expected_rule[fires] = fast.sites.index(site), rule_id

    output = fast(**inputs)
    assert output.exit_site.tolist() == expected_site.tolist()
    assert output.exit_rule.tolist() == expected_rule.tolist()
    ran = expected_site == -1
    assert 0 < ran.sum() < 24
    with torch.no_grad():
        full = model(**inputs).logits.cpu()
    torch.testing.assert_close(output.logits.cpu()[ran], full[ran], atol=1e-5, rtol=0)
    left = output.logits.cpu()[~ran]
    assert left.argmax(1).tolist() == [rule % 3 for rule in expected_rule[~ran].tolist()]
    torch.testing.assert_close(left.softmax(1).max(1).values, torch.full((len(left),), 0.99))


def test_survivors_keep_their_logits_whatever_they_were_batched_with(tiny_bert, device):
    model = tiny_bert(layers=3).to(device)
    inputs = make_inputs(12, 20, device=device)
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    fast.add_rule(random_condition(1, threshold=1.0), 1, "encoder", 0, "attention")
    fast.add_rule(random_condition(2, threshold=1.0), 0, "encoder", 1, "output")
    together = fast(**inputs)
    assert 0 < (together.exit_site >= 0).sum() < 12
    for row in range(12):
        length = int(inputs["attention_mask"][row].sum())
        alone = fast(**{name: tensor[row : row + 1, :length] for name, tensor in inputs.items()})
        assert alone.exit_site.item() == together.exit_site[row].item()
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("site", ["embeddings", "encoder.0.attention", "encoder.0.output", "encoder.1.attention"])
def test_all_rows_may_leave(tiny_bert, device, site):
    fast = EarlyExitTextClassificationModel(tiny_bert().to(device), backend="reference")
    fast.add_rule(random_condition(0, threshold=-NEVER), 1, site)
    output = fast(**make_inputs(device=device))
    assert output.exit_site.tolist() == [fast.sites.index(site)] * 6
    assert output.logits.argmax(1).tolist() == [1] * 6


def test_a_rule_that_never_fires_changes_nothing(tiny_bert, device):
    model = tiny_bert().to(device)
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    for site in all_sites(2)[:-1]:
        fast.add_rule(random_condition(0, threshold=NEVER), 1, site)
    inputs = make_inputs(device=device)
    with torch.no_grad():
        assert torch.equal(fast(**inputs).logits, model(**inputs).logits)


def test_a_row_with_nan_runs_to_the_end_and_its_batch_mates_do_not_notice(tiny_bert, device):
    model = tiny_bert().to(device)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] = float("nan")
    inputs = make_inputs(4, 9, device=device)
    inputs["input_ids"][1, 0] = 7
    others = [0, 2, 3]
    for feature in ("cls", "mean"):  # it stands first in its row, and elsewhere: see test_exits
        fast = EarlyExitTextClassificationModel(model, backend="reference")
        fast.add_rule(random_condition(0, feature=feature, threshold=-NEVER), 1, "embeddings")
        output = fast(**inputs)
        assert output.exit_site[1].item() == -1
        assert output.logits[1].isnan().all()
        assert output.exit_site[others].tolist() == [0, 0, 0]


def test_flat_reads_the_whole_row_with_zeros_behind_it(tiny_bert):
    model = tiny_bert()
    inputs = make_inputs(8, 10)
    states = site_states(model, inputs)["encoder.0.attention"] * inputs["attention_mask"][..., None]
    condition = random_condition(3, hidden=10 * 32, feature="flat")
    fires = condition(states.reshape(8, -1))
    assert 0 < fires.sum() < 8
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    fast.add_rule(condition, 0, "encoder", 0, "attention")
    assert (fast(**inputs).exit_site >= 0).tolist() == fires.tolist()


@pytest.mark.parametrize("kind", ["tensor", "array", "list"])
def test_a_rule_may_be_any_callable(tiny_bert, kind):
    seen = []

    def every_other_row(x):
        seen.append(x)
        mask = torch.arange(len(x)) % 2 == 0
        return {"tensor": mask, "array": mask.numpy(), "list": mask.tolist()}[kind]

    model = tiny_bert()
    inputs = make_inputs()
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    fast.add_rule(every_other_row, 1, "encoder", 0, "attention", feature="mean", bound=0.2)
    output = fast(**inputs)
    assert output.exit_site.tolist() == [1, -1] * 3
    torch.testing.assert_close(output.logits[0].softmax(0), torch.tensor([0.2, 0.8]))
    expected = pooled(site_states(model, inputs)["encoder.0.attention"], inputs["attention_mask"], "mean")
    torch.testing.assert_close(seen[0], expected)


def test_callables_and_linear_rules_share_a_site_in_the_order_they_were_added(tiny_bert):
    fast = EarlyExitTextClassificationModel(tiny_bert(labels=3), backend="reference")
    fast.add_rule(lambda x: torch.arange(len(x)) < 2, 2, "embeddings")
    fast.add_rule(random_condition(0, threshold=-NEVER), 0, "embeddings")
    fast.add_rule(lambda x: torch.ones(len(x), dtype=torch.bool), 1, "embeddings")
    assert fast(**make_inputs()).exit_rule.tolist() == [0, 0, 1, 1, 1, 1]
