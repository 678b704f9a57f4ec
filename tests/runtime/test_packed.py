"""The loop over the packed encoder against the specification: who leaves where, by which rule, with which logits."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from parity import assert_rows_keep_their_bits, make_inputs

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt._C import PackedBatch, can_multiply
from moco_rt.architectures import architecture_of, load_classifier
from moco_rt.architectures.sites import all_sites
from moco_rt.inputs.batching import length_sorted_batches
from moco_rt.runtime import packed as packed_loop
from moco_rt.runtime.exit_points import compile_exits

LAYERS = 3
SITES = all_sites(LAYERS)[:-1]  # where rules may stand
LENGTHS = [9, 1, 17, 33, 4, 64, 2, 15, 16, 40, *range(5, 19)]
FEATURES = ("cls", "mean", "flat")


@torch.no_grad()
def features(model, inputs, site, feature):
    """What a rule reads at a site, without exits: (rows, size)."""
    architecture = architecture_of(model)
    batch = PackedBatch(inputs["attention_mask"])
    hidden = architecture.embed(inputs["input_ids"], inputs.get("token_type_ids"))
    mask = architecture.context(inputs["attention_mask"], hidden)
    for name, run in architecture.steps():
        hidden = run(hidden, mask)
        if name == site:
            batch.unpad(hidden)
            return batch.pool(feature)
    raise AssertionError(site)


def make_condition(model, inputs, site, feature, seed=0, share=0.3):
    """A random condition that fires on about this share of the rows, its threshold well away from any row's score."""
    x = features(model, inputs, site, feature)
    weight = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(seed)).numpy()
    condition = LinearCondition(weight, 0.0, 0.0, 0.01, feature, site)
    scores = condition.score(x).sort().values
    around = round(len(scores) * (1 - share)) + torch.arange(-2, 2)
    widest = around[(scores[around + 1] - scores[around]).argmax()]
    return replace(condition, threshold=float(scores[widest : widest + 2].mean()))


def always(feature="cls"):
    """A condition on D = 32 that fires on every row."""
    return LinearCondition(torch.ones(32).numpy(), 0.0, -1e30, 0.01, feature)


def never(feature="cls"):
    return replace(always(feature), threshold=1e30)


def outcome(model, inputs, rules, backend):
    """What a model with these rules [(condition, class, site, further arguments of add_rule)] says."""
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    for condition, predicted_class, site, options in rules:
        fast.add_rule(condition, predicted_class, site, **options)
    return fast(**inputs)


def check(model, inputs, rules):
    """Both backends must let the same rows leave at the same sites by the same rules; returns where."""
    packed, reference = (outcome(model, inputs, rules, backend) for backend in ("packed", "reference"))
    assert packed.exit_site.tolist() == reference.exit_site.tolist()
    assert packed.exit_rule.tolist() == reference.exit_rule.tolist()
    torch.testing.assert_close(packed.logits, reference.logits, atol=1e-4, rtol=0)  # what README promises
    return packed.exit_site.tolist(), packed.exit_rule.tolist()


# The same rows leave at the same sites


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("feature", "plain"),
    [("cls", False), ("mean", False), ("flat", False), ("cls", True), ("mean", True)],  # flat is not for callables
)
def test_the_same_rows_leave_by_one_rule(model, inputs, site, feature, plain):
    condition = make_condition(model, inputs, site, feature)
    rule = (condition, 1, site, {})
    if plain:
        rule = (lambda x: condition(x), 1, site, {"feature": feature, "bound": 0.2})
    sites, _ = check(model, inputs, [rule])
    assert set(sites) == {-1, SITES.index(site)}


@pytest.mark.parametrize("seed", range(6))
def test_the_same_rows_leave_by_rules_at_every_site(model, inputs, seed):
    rules = []
    for place, site in enumerate(SITES):
        feature = FEATURES[(place + seed) % 3]
        condition = make_condition(model, inputs, site, feature, seed=10 * seed + place, share=0.2)
        rules.append((condition, place % 3, site, {}))
    sites, _ = check(model, inputs, rules)
    assert len(set(sites)) >= 4
    assert -1 in sites


@pytest.mark.parametrize("feature", ["cls", "mean"])
@pytest.mark.parametrize("site", SITES)
def test_all_rows_may_leave_at_once(model, inputs, site, feature):
    assert check(model, inputs, [(always(feature), 2, site, {})]) == ([SITES.index(site)] * 24, [0] * 24)


@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_rules_that_never_fire_change_nothing(model, inputs, feature):
    rules = [(never(feature), 1, site, {}) for site in SITES]
    assert check(model, inputs, rules) == ([-1] * 24, [-1] * 24)
    with_rules, without = (outcome(model, inputs, each, "packed").logits for each in (rules, []))
    # Which path of attention leads to the first token differs with the feature, hence the last bits.
    torch.testing.assert_close(with_rules, without, atol=1e-5, rtol=0)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("order", [("cls", "mean", "flat"), ("mean", "cls", "cls"), ("flat", "mean", "cls")], ids=str)
def test_the_first_added_of_the_rules_that_fire_wins_whatever_they_read(model, inputs, site, order):
    conditions = [
        make_condition(model, inputs, site, feature, seed=seed, share=0.4) for seed, feature in enumerate(order)
    ]
    fires = torch.stack([c(features(model, inputs, site, c.feature)) for c in conditions])
    expected = [rules.index(True) if True in rules else -1 for rules in fires.T.tolist()]
    assert (fires.sum(0) > 1).any()
    assert len(set(expected)) == 4
    _, rules = check(model, inputs, [(condition, k, site, {}) for k, condition in enumerate(conditions)])
    assert rules == expected


def test_callables_see_the_rows_that_are_left_in_their_order(model, inputs):
    seen = {"packed": [], "reference": []}
    for backend, features_seen in seen.items():

        def keep_half(x, features_seen=features_seen):
            features_seen.append(x.clone())
            return torch.arange(len(x)) % 2 == 0

        rules = [(keep_half, 1, site, {"feature": feature}) for site in SITES for feature in ("cls", "mean")]
        outcome(model, inputs, rules, backend)
    assert len(seen["packed"]) == len(seen["reference"])
    for packed, reference in zip(*seen.values(), strict=True):
        torch.testing.assert_close(packed, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("feature", ["cls", "mean"])
@pytest.mark.parametrize("place", [0, 6], ids=["first token", "another token"])
def test_a_row_with_nan_never_leaves_and_its_batch_mates_do_not_notice(tiny_bert, site, feature, place):
    model = tiny_bert(LAYERS)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[3] = math.nan  # make_inputs gives no token below 5
    inputs = make_inputs(LENGTHS)
    damaged = {**inputs, "input_ids": inputs["input_ids"].clone()}
    damaged["input_ids"][3, place] = 3
    rules = [(always(feature), 1, site, {}), (lambda x: torch.ones(len(x), dtype=torch.bool), 1, site, {})]
    output = outcome(model, damaged, rules, "packed")
    others = [row for row in range(len(LENGTHS)) if row != 3]
    assert output.exit_site[3] == -1
    assert output.logits[3].isnan().all()
    assert output.exit_site[others].tolist() == [SITES.index(site)] * len(others)
    alone, together = (outcome(model, each, [], "packed").logits[others] for each in (inputs, damaged))
    assert torch.equal(alone, together)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_row_has_the_same_bits_and_exits_alone_and_in_any_batch(tiny_bert, packed_dtype, feature):
    model = tiny_bert(LAYERS, dtype=packed_dtype)
    inputs = make_inputs(LENGTHS, pairs=True)
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    for place, site in enumerate(SITES[::2]):
        fast.add_rule(make_condition(model, inputs, site, feature, seed=place, share=0.25), place % 2, site)
    assert_rows_keep_their_bits(fast, inputs, LENGTHS)


# What is run, and for whom


class Recorder:
    """An encoder that keeps a record of its steps: name, layer, and on how many tokens, if any."""

    def __init__(self, encoder):
        self.encoder, self.steps = encoder, []

    def __getattr__(self, name):
        value = getattr(self.encoder, name)
        if not callable(value) or name == "folds_keys":
            return value

        def step(*arguments):
            layer = arguments[0] if isinstance(arguments[0], int) else None
            batch = next(argument for argument in arguments if isinstance(argument, PackedBatch))
            if batch.total_tokens > 0:
                self.steps.append((name, layer, batch.total_tokens))
            return value(*arguments)

        return step


def steps_of(model, inputs, rules):
    """The steps that a batch takes."""
    fast = EarlyExitTextClassificationModel(model)
    for rule in rules:
        fast.add_rule(*rule)
    recorder = Recorder(architecture_of(model).encoder(model.dtype))
    exits = compile_exits(fast.policy)
    batch = PackedBatch(inputs["attention_mask"])
    packed_loop.forward(recorder, exits, batch, inputs["input_ids"], inputs.get("token_type_ids"))
    return recorder.steps


THREE = make_inputs([7, 2, 3])  # 12 tokens


def second_row(x):
    return torch.arange(len(x)) == 1


def every_row(x):
    return torch.ones(len(x), dtype=torch.bool)


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        pytest.param(
            [],
            [
                *[("attention", 0, 12), ("feed_forward", 0, 12)],
                *[("peek", 1, 12), ("feed_forward", 1, 3), ("classify", None, 3)],
            ],
            id="no rule",
        ),
        pytest.param(
            [(second_row, 1, "embeddings")],
            [
                *[("attention", 0, 10), ("feed_forward", 0, 10)],
                *[("peek", 1, 10), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="before layer 0",
        ),
        pytest.param(
            [(second_row, 1, "encoder.0.attention")],
            [
                *[("peek", 0, 12), ("attention", 0, 10), ("feed_forward", 0, 10)],
                *[("peek", 1, 10), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="after attention",
        ),
        pytest.param(
            [(second_row, 1, "encoder.0.output")],
            [
                *[("peek", 0, 12), ("feed_forward", 0, 3), ("attention", 0, 10), ("feed_forward", 0, 10)],
                *[("peek", 1, 10), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="after a layer",
        ),
        pytest.param(
            [(second_row, 1, "encoder.0.attention"), (second_row, 0, "encoder.0.output")],
            [
                *[("peek", 0, 12), ("feed_forward", 0, 2), ("attention", 0, 7), ("feed_forward", 0, 7)],
                *[("peek", 1, 7), ("feed_forward", 1, 1), ("classify", None, 1)],
            ],
            id="after both",
        ),
        pytest.param(
            [(second_row, 1, "encoder.1.attention")],
            [
                *[("attention", 0, 12), ("feed_forward", 0, 12)],
                *[("peek", 1, 12), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="after the last attention",
        ),
        pytest.param([(every_row, 1, "encoder.0.attention")], [("peek", 0, 12)], id="all after attention"),
        pytest.param(
            [(every_row, 1, "encoder.0.output")], [("peek", 0, 12), ("feed_forward", 0, 3)], id="all after a layer"
        ),
        pytest.param([(every_row, 1, "embeddings")], [], id="all at once"),
        pytest.param(
            [(never("mean"), 1, "encoder.0.attention"), (never("mean"), 1, "encoder.1.attention")],
            [
                *[("attention", 0, 12), ("feed_forward", 0, 12)],
                *[("attention", 1, 12), ("feed_forward", 1, 3), ("classify", None, 3)],
            ],
            id="means after attention",
        ),
        pytest.param(
            [(second_row, 1, "encoder.0.attention"), (never("mean"), 1, "encoder.0.output")],
            [
                *[("peek", 0, 12), ("attention", 0, 10), ("feed_forward", 0, 10)],
                *[("peek", 1, 10), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="a mean after a first token",
        ),
        pytest.param(
            [(never("mean"), 1, "encoder.0.attention"), (second_row, 1, "encoder.0.output")],
            [
                *[("attention", 0, 12), ("feed_forward", 0, 3), ("feed_forward", 0, 10)],
                *[("peek", 1, 10), ("feed_forward", 1, 2), ("classify", None, 2)],
            ],
            id="a first token after a mean",
        ),
    ],
)
def test_a_layer_is_run_for_those_alone_whom_a_peek_at_it_did_not_settle(tiny_bert, rules, steps):
    """Nor is the last layer ever run for tokens that nobody reads."""
    assert steps_of(tiny_bert(), THREE, rules) == [("embed", None, 12), *steps]


# Copies, other dtypes, and threads


@pytest.fixture
def fast(model, inputs):
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    fast.add_rule(make_condition(model, inputs, "encoder.0.attention", "cls"), 1, "encoder.0.attention")
    fast.add_rule(make_condition(model, inputs, "encoder.1.output", "mean"), 2, "encoder.1.output")
    return fast


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_packed_model_can_be_copied(fast, inputs, duplicate):
    other = duplicate(fast)
    assert other.backend == "packed"
    for name, value in fast(**inputs).items():
        assert torch.equal(other(**inputs)[name], value)


def test_a_model_that_changes_its_dtype_is_packed_anew_or_runs_on_its_own_modules(
    tiny_bert, packed_dtype, inputs, caplog
):
    fast = EarlyExitTextClassificationModel(tiny_bert(LAYERS))
    for dtype, backend in ((torch.float64, "reference"), (packed_dtype, "packed"), (torch.float32, "packed")):
        fast.to(dtype)
        assert (fast.backend, fast.dtype) == (backend, dtype)
        fresh = EarlyExitTextClassificationModel(copy.deepcopy(fast.model), backend=backend)
        assert torch.equal(fast(**inputs).logits, fresh(**inputs).logits)
    assert len(caplog.messages) == 1
    assert "float64" in caplog.messages[0]


def test_a_model_that_must_be_packed_refuses_a_dtype_that_cannot_be(tiny_bert, one_line_error):
    fast = EarlyExitTextClassificationModel(tiny_bert(), backend="packed")
    with one_line_error(ValueError, "(got torch.float64)"):
        fast.double()


def test_the_dtype_asked_for_is_the_one_that_is_packed(tiny_bert, packed_dtype, inputs):
    model = tiny_bert(LAYERS)
    asked = EarlyExitTextClassificationModel(model, backend="packed", dtype=packed_dtype)
    to_dtype = EarlyExitTextClassificationModel(copy.deepcopy(model).to(packed_dtype), backend="packed")
    assert (asked.backend, asked.dtype, model.dtype) == ("packed", packed_dtype, torch.float32)
    assert torch.equal(asked(**inputs).logits, to_dtype(**inputs).logits)


def test_small_weights_that_are_written_in_place_count_from_the_next_call_on(tiny_bert, inputs):
    model = tiny_bert(LAYERS)
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    before = fast(**inputs).logits
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    torch.testing.assert_close(fast(**inputs).logits, before + 1.0)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.LayerNorm.weight.mul_(2.0)
    fresh = EarlyExitTextClassificationModel(copy.deepcopy(model), backend="packed")
    assert torch.equal(fast(**inputs).logits, fresh(**inputs).logits)


def test_python_threads_that_share_a_model_get_the_bits_they_would_get_alone(fast):
    batches = [make_inputs(LENGTHS[:rows], seed=rows) for rows in (1, 3, 8, 15, 24)] * 4
    alone = [fast(**batch) for batch in batches]
    for _ in range(3):
        with ThreadPoolExecutor(2) as threads:
            together = list(threads.map(lambda batch: fast(**batch), batches))
        for one, other in zip(alone, together, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_packed_once_though_threads_ask_for_them_at_once(tiny_bert):
    batch = make_inputs(LENGTHS)
    model = tiny_bert(6)
    expected = EarlyExitTextClassificationModel(model, backend="packed")(**batch).logits
    for _ in range(5):
        fresh = EarlyExitTextClassificationModel(model, backend="packed")
        with ThreadPoolExecutor(2) as threads:
            for output in threads.map(lambda batch, fresh=fresh: fresh(**batch), [batch] * 2):
                assert torch.equal(output.logits, expected)


def test_python_goes_on_while_the_encoder_works(tiny_bert):
    """A thread must not be made to wait: the other one hands over the interpreter in its sleep, this one never does."""
    encoder = architecture_of(tiny_bert(1, 256, 4)).encoder(torch.float32)
    batch = PackedBatch(torch.ones(64, 128, dtype=torch.bool))
    batch.unpad(torch.randn(64, 128, 256))
    steps = 0
    done = threading.Event()

    def count():
        nonlocal steps
        while not done.is_set():
            steps += 1
            time.sleep(1e-4)

    def advances_during(work):
        before = steps
        work()
        return steps > before

    interval = sys.getswitchinterval()
    counter = threading.Thread(target=count)
    sys.setswitchinterval(60)
    try:
        counter.start()
        assert any(advances_during(lambda: encoder.attention(0, batch)) for _ in range(50))
        assert any(advances_during(lambda: encoder.feed_forward(0, batch)) for _ in range(50))
        assert any(advances_during(lambda: encoder.peek(0, batch)) for _ in range(50))
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()


# Real models


@torch.no_grad()
def logits_of(model, batches):
    return torch.cat([model(**batch).logits.float() for batch in batches])


@pytest.fixture(
    scope="module",
    params=[("tiny-sst2", 872), ("minilm-sst2", 872), ("tiny-imdb", 2000), ("minilm-imdb", 200)],
    ids=str,
)
def real(request, shared_dir):
    """A model, so many rows of SST-2 dev or IMDB test in batches sorted by length, and their logits in float32."""
    name, rows = request.param
    model, tokenizer = load_classifier(str(shared_dir / "models" / name))
    file, tokens = ("sst2/dev.jsonl", 128) if name.endswith("sst2") else ("imdb/test.jsonl", 256)
    with (shared_dir / "data" / file).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(rows), strict=False)]
    assert len(texts) == rows
    batches, _ = length_sorted_batches(tokenizer, texts, tokens, batch_rows=32)
    return model, batches, logits_of(model, batches)


@pytest.mark.shared
def test_real_models_answer_as_hugging_face_does(real):
    model, batches, exact = real
    packed = logits_of(EarlyExitTextClassificationModel(model, backend="packed"), batches)
    torch.testing.assert_close(packed, exact, atol=1e-4, rtol=0)
    first, second = exact.topk(2, dim=1).values.T
    assert ((packed.argmax(1) == exact.argmax(1)) | (first - second < 1e-4)).all()


@pytest.mark.shared
@pytest.mark.skipif(not can_multiply(torch.bfloat16), reason="the processor does not multiply torch.bfloat16")
def test_real_models_in_bfloat16_err_at_most_twice_as_much_as_hugging_faces_and_keep_their_labels(real):
    model, batches, exact = real
    plain = logits_of(copy.deepcopy(model).bfloat16(), batches)
    packed = logits_of(EarlyExitTextClassificationModel(model, backend="packed", dtype=torch.bfloat16), batches)
    assert (packed - exact).abs().max() <= 2 * (plain - exact).abs().max()
    assert (packed.argmax(1) == exact.argmax(1)).float().mean() >= 0.998
