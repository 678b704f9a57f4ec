"""Off-ramps through both loops: who leaves where with which class, and what of a row they look at."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import assert_rows_keep_their_bits, make_inputs
from scipy.special import log_softmax

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import PackedBatch
from moco_rt.architectures import architecture_of
from moco_rt.architectures.sites import all_sites
from moco_rt.policies.conditions import LinearCondition, OffRamp
from moco_rt.runtime.exit_points import compile_off_ramp

LAYERS = 3
SITES = all_sites(LAYERS)[:-1]  # where exits may stand
LENGTHS = [9, 1, 17, 33, 4, 64, 2, 15, 16, 40, *range(5, 19)]
FEATURES = ("cls", "mean", "cls+mean")
BOUNDS = [0.01, 0.1, 0.3]


@torch.no_grad()
def hidden_states(model, inputs):
    """Hugging Face's own, by site: (rows, S, D)."""
    found = {}
    hooks = [
        layer.attention.register_forward_hook(
            lambda _, __, output, i=i: found.__setitem__(f"encoder.{i}.attention", output[0])
        )
        for i, layer in enumerate(model.bert.encoder.layer)
    ]
    states = model(**inputs, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    found["embeddings"] = states[0]
    return found | {f"encoder.{i}.output": state for i, state in enumerate(states[1:])}


def features(model, inputs, site, feature):
    """What an exit at a site must look at, all of it from Hugging Face's hidden states: (rows, size) float32."""
    states = hidden_states(model, inputs)
    mask = inputs["attention_mask"][:, :, None]

    def mean(name):
        return (states[name].float() * mask).sum(1) / mask.sum(1)

    # The mean is of the tokens that enter the site's layer.
    layer = int(site.split(".")[1]) if site != "embeddings" else 0
    entering = f"encoder.{layer - 1}.output" if layer > 0 else "embeddings"
    cls = states[site][:, 0].float()
    return {"cls": cls, "mean": mean(site), "cls+mean": torch.cat([cls, mean(entering)], 1)}[feature]


def widest_gap(scores, share):
    """A number that about this share of the scores exceeds, well away from all of them."""
    scores = scores.sort().values
    if len(scores) < 2:
        return -math.inf
    around = (round(len(scores) * (1 - share)) + torch.arange(-2, 2)).clamp(0, len(scores) - 2)
    widest = around[(scores[around + 1] - scores[around]).argmax()]
    return float(scores[widest : widest + 2].mean())


def make_off_ramp(model, inputs, site, feature="cls+mean", *, seed=0, share=0.4, hidden=0, **options):
    """A random off-ramp by which about this share of the rows of each class it predicts leave."""
    x = features(model, inputs, site, feature)
    rng = np.random.default_rng(seed)
    mean, scale = x.mean(0).numpy(), x.std(0).numpy() + 1e-3
    sizes = [x.shape[1], *([hidden] if hidden else []), 3]
    layers = [[rng.normal(size=(o, i)) / i**0.5, rng.normal(size=o) * 0.1] for i, o in zip(sizes, sizes[1:])]  # noqa: B905, RUF007
    layers[0] = [layers[0][0] / scale, layers[0][1] - layers[0][0] @ (mean / scale)]
    made = OffRamp(tuple(map(tuple, layers)), [0.0] * 3, BOUNDS, feature=feature, **options)
    score, predicted = compile_off_ramp(made).score(x)
    return replace(made, thresholds=np.array([widest_gap(score[predicted == c], share) for c in range(3)], np.float32))


def logits_of(off_ramp, x):
    """What an off-ramp's layers make of a feature (rows, size): (rows, C)."""
    for place, (weight, bias) in enumerate(off_ramp.layers):
        x = (np.maximum(x, 0) if place else x) @ weight.T + bias
    return x


def make_condition(model, inputs, site, feature, *, seed=0, share=0.2):
    """A random condition that fires on about this share of the rows."""
    x = features(model, inputs, site, feature)
    weight = np.random.default_rng(seed).normal(size=x.shape[1])
    condition = LinearCondition(weight, 0.0, 0.0, 0.01, feature, site)
    return replace(condition, threshold=widest_gap(condition.score(x), share))


def make_fast(model, exits, backend):
    """A model with these exits: (site, off-ramp or condition)."""
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    for site, condition in exits:
        if isinstance(condition, OffRamp):
            fast.add_off_ramp(condition, site)
        else:
            fast.add_rule(condition, 1, site)
    return fast


def check(model, inputs, exits):
    """Both backends must let the same rows leave at the same sites, by the same exits, with the same classes."""
    packed, reference = (make_fast(model, exits, backend)(**inputs) for backend in ("packed", "reference"))
    assert packed.exit_site.tolist() == reference.exit_site.tolist()
    assert packed.exit_rule.tolist() == reference.exit_rule.tolist()
    torch.testing.assert_close(packed.logits, reference.logits, atol=1e-4, rtol=0)
    return packed


@pytest.mark.parametrize("hidden", [0, 16], ids=["one layer", "two layers"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("feature", FEATURES)
def test_rows_leave_by_what_hugging_faces_hidden_states_say(model, inputs, feature, site, hidden):
    off_ramp = make_off_ramp(model, inputs, site, feature, hidden=hidden, temperature=1.3)
    output = check(model, inputs, [(site, off_ramp)])
    x = features(model, inputs, site, feature)
    score, predicted = compile_off_ramp(off_ramp).score(x)
    predicted = predicted.long()
    leaves = score > torch.from_numpy(off_ramp.thresholds)[predicted]
    assert 0 < leaves.sum() < len(LENGTHS)
    assert output.exit_site.tolist() == [SITES.index(site) if left else -1 for left in leaves]
    own = log_softmax(logits_of(off_ramp, x.double().numpy()) / 1.3, axis=1)[leaves]
    np.testing.assert_allclose(output.logits[leaves], own, rtol=0, atol=2e-4)
    assert len(output.logits[leaves].unique(dim=0)) == len(x[leaves].unique(dim=0)) > 1
    assert torch.equal(output.logits[leaves].argmax(1), predicted[leaves])
    with torch.no_grad():
        full = model(**inputs).logits
    torch.testing.assert_close(output.logits[~leaves], full[~leaves], atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_rows_leave_by_off_ramps_at_every_site(model, inputs, seed):
    exits = [
        (site, make_off_ramp(model, inputs, site, FEATURES[(place + seed) % 3], seed=10 * seed + place, share=0.2))
        for place, site in enumerate(SITES)
    ]
    sites = set(check(model, inputs, exits).exit_site.tolist())
    assert len(sites) >= 4
    assert -1 in sites


@pytest.mark.parametrize("seed", range(6))
def test_the_same_rows_leave_by_off_ramps_and_linear_rules_at_sites_in_turn(model, inputs, seed):
    exits = []
    for place, site in enumerate(SITES):
        feature = FEATURES[(place + seed // 2) % 3]
        make = make_off_ramp if (place + seed) % 2 else make_condition
        exits.append((site, make(model, inputs, site, feature, seed=10 * seed + place, share=0.2)))
    output = check(model, inputs, exits)
    assert len(set(output.exit_site.tolist())) >= 4
    kinds = {type(exits[rule][1]) for rule in output.exit_rule.tolist() if rule >= 0}
    assert kinds == {OffRamp, LinearCondition}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("first", FEATURES)
@pytest.mark.parametrize("second", ["cls", "mean", "cls+mean"])
def test_exits_of_one_site_and_of_its_layer_may_look_at_different_things(model, inputs, site, first, second):
    exits = [
        (site, make_off_ramp(model, inputs, site, first, seed=1, share=0.3)),
        (site, make_condition(model, inputs, site, second, seed=2, share=0.3)),
    ]
    if site.endswith("attention") and site != SITES[-1]:
        output = site.replace("attention", "output")
        exits.append((output, make_off_ramp(model, inputs, output, "cls+mean", seed=3, share=0.3)))
    left = set(check(model, inputs, exits).exit_rule.tolist())
    assert left >= {-1, 0, 1}


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_same_rows_leave_by_off_ramps_with_patience(model, inputs, patience):
    exits = [
        (site, make_off_ramp(model, inputs, site, seed=place, share=0.9, patience=patience))
        for place, site in enumerate(SITES)
    ]
    sites = check(model, inputs, exits).exit_site.tolist()
    assert any(site >= 0 for site in sites)
    assert min(site for site in sites if site >= 0) >= patience - 1


def test_an_off_ramp_with_patience_counts_those_without(model, inputs):
    exits = [
        (site, make_off_ramp(model, inputs, site, seed=place, share=0.1, patience=1))
        for place, site in enumerate(SITES)
    ]
    exits[3] = (SITES[3], make_off_ramp(model, inputs, SITES[3], seed=3, share=0.9, patience=3))
    assert 3 in check(model, inputs, exits).exit_site.tolist()


@pytest.mark.parametrize("score", ["max_prob", "entropy"])
def test_the_same_rows_leave_whatever_the_score(model, inputs, score):
    exits = [
        (site, make_off_ramp(model, inputs, site, seed=place, share=0.3, score=score, temperature=2.0))
        for place, site in enumerate(SITES)
    ]
    assert len(set(check(model, inputs, exits).exit_site.tolist())) >= 3


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("site", SITES)
def test_all_rows_may_leave_at_once_and_classes_with_infinite_thresholds_never(model, inputs, site, feature):
    off_ramp = make_off_ramp(model, inputs, site, feature)
    _, predicted = compile_off_ramp(off_ramp).score(features(model, inputs, site, feature))
    always = replace(off_ramp, thresholds=np.full(3, -np.inf, np.float32))
    assert check(model, inputs, [(site, always)]).exit_site.tolist() == [SITES.index(site)] * len(LENGTHS)
    some = replace(off_ramp, thresholds=np.array([-np.inf, np.inf, -np.inf], np.float32))
    expected = [-1 if c == 1 else SITES.index(site) for c in predicted.tolist()]
    assert check(model, inputs, [(site, some)]).exit_site.tolist() == expected


@pytest.mark.parametrize("feature", FEATURES)
def test_a_row_has_the_same_bits_and_exits_alone_and_in_any_batch(tiny_bert, packed_dtype, feature):
    model = tiny_bert(LAYERS, labels=3, dtype=packed_dtype)
    inputs = make_inputs(LENGTHS, pairs=True)
    exits = [
        (site, make_off_ramp(model, inputs, site, feature, seed=place, share=0.25, hidden=16 * (place % 2)))
        for place, site in enumerate(SITES)
    ]
    fast = make_fast(model, exits, "packed")
    assert_rows_keep_their_bits(fast, inputs, LENGTHS)


@pytest.mark.parametrize("backend", ["packed", "reference"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("place", [0, 6], ids=["first token", "another token"])
def test_a_row_with_nan_never_leaves_and_its_batch_mates_do_not_notice(tiny_bert, backend, site, feature, place):
    model = tiny_bert(LAYERS, labels=3)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[3] = math.nan  # make_inputs gives no token below 5
    inputs = make_inputs(LENGTHS)
    off_ramp = make_off_ramp(model, inputs, site, feature, hidden=16)
    always = replace(off_ramp, thresholds=np.full(3, -np.inf, np.float32))
    damaged = {**inputs, "input_ids": inputs["input_ids"].clone()}
    damaged["input_ids"][3, place] = 3
    output = make_fast(model, [(site, always)], backend)(**damaged)
    others = [row for row in range(len(LENGTHS)) if row != 3]
    assert output.exit_site[3] == -1
    assert output.logits[3].isnan().all()
    assert output.exit_site[others].tolist() == [SITES.index(site)] * len(others)


def test_the_features_of_both_backends_are_hugging_faces(model, inputs):
    """`cls+mean` by itself, without an off-ramp: what the loops hand to whoever stands at a site."""

    class Seer:
        can_peek = needs_mean = True

        def apply(self, batch, results):  # noqa: ARG002
            self.seen = batch.pool("cls+mean")
            return 0

    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        seers = {site: Seer() for site in all_sites(LAYERS)}
        fast.run(seers, **inputs)
        for site, seer in seers.items():
            expected = features(model, inputs, site, "cls+mean")
            torch.testing.assert_close(seer.seen, expected, atol=1e-4, rtol=0)


def test_the_specification_itself_names_the_same_sites(model, inputs):
    """The hooks of this file, and the steps of the reference: one hidden state for each site."""
    architecture = architecture_of(model)
    states = hidden_states(model, inputs)
    hidden = architecture.embed(inputs["input_ids"], inputs["token_type_ids"])
    mask = architecture.context(inputs["attention_mask"], hidden)
    with torch.no_grad():
        for site, run in architecture.steps():
            hidden = run(hidden, mask)
            batch = PackedBatch(inputs["attention_mask"])
            batch.unpad(hidden)
            other = PackedBatch(inputs["attention_mask"])
            other.unpad(states[site])
            torch.testing.assert_close(batch.hidden, other.hidden, atol=1e-5, rtol=0)
