"""One tier: what it may be, whose order of classes it answers in, and which of its answers stand."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from tier_samples import count_words, make_texts
from tokenizers import normalizers

from moco_rt import Cascade, EarlyExitTextClassificationModel
from moco_rt.cascades.tier import Tier, align_classes, top_class
from moco_rt.runtime.outputs import EarlyExitOutput

NAMES = {0: "sad", 1: "so so", 2: "glad"}


@pytest.fixture
def make_tier(tiny_bert, word_tokenizer):
    """`make_tier(names, thresholds=None, ...)`: of a random model with these names of classes; aligned with itself."""

    def make(names=NAMES, thresholds=None, **config):
        (tier,) = align_classes(
            [Tier.of((tiny_bert(labels=len(names), id2label=dict(names), **config), word_tokenizer))]
        )
        return replace(tier, thresholds=None if thresholds is None else torch.tensor(thresholds))

    return make


def output(logits, rule=None):
    rule = torch.full((len(logits),), -1) if rule is None else torch.tensor(rule)
    return EarlyExitOutput(torch.tensor(logits), rule.clone(), rule)


# What a tier may be


def test_a_pair_is_a_model_and_its_tokenizer(tiny_bert, word_tokenizer):
    model = tiny_bert(labels=3, id2label=NAMES)
    for pair in ((model, word_tokenizer), [model, word_tokenizer]):
        tier = Tier.of(pair)
        assert isinstance(tier.model, EarlyExitTextClassificationModel)
        assert (tier.model.model, tier.tokenizer) == (model, word_tokenizer)
        assert tier.class_names == ("sad", "so so", "glad")
        assert (tier.max_length, tier.temperature, tier.thresholds) == (64, 1.0, None)


def test_a_model_with_exits_is_taken_as_it_is(tiny_bert, word_tokenizer):
    fast = EarlyExitTextClassificationModel(tiny_bert())
    assert Tier.of((fast, word_tokenizer)).model is fast


def test_texts_are_as_long_as_the_policy_was_made_for_or_as_is_asked_for(tiny_bert, word_tokenizer):
    fast = EarlyExitTextClassificationModel(tiny_bert(max_position_embeddings=40))
    assert Tier.of((fast, word_tokenizer)).max_length == 40
    fast.policy.made_for["max_length"] = 20
    assert Tier.of((fast, word_tokenizer)).max_length == 20
    assert Tier.of((fast, word_tokenizer), 10).max_length == 10
    assert max(len(row["input_ids"]) for row in Tier.of((fast, word_tokenizer), 10).encode(make_texts(50))) == 10


def test_a_function_is_given_the_texts(word_tokenizer, tiny_bert):
    given = []
    tier = Tier.of(lambda texts: given.append(texts) or count_words(texts))
    assert (tier.tokenizer, tier.class_names) == (None, None)
    tier, _ = align_classes([tier, Tier.of((tiny_bert(), word_tokenizer))])
    texts = ["good", ("bad", "bad film"), ""]
    rows = tier.encode(texts)
    assert list(tier.batches(rows)) == [[0, 1, 2]]
    found = tier.answer(rows)
    assert given == [texts]
    np.testing.assert_array_equal(found.logits, count_words(texts).astype(np.float32))
    assert found.settled.all()
    assert found.exit_rule.tolist() == found.exit_site.tolist() == [-1] * 3


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.ndarray.tolist,
        torch.tensor,
        pytest.param(lambda x: torch.tensor(x).bfloat16(), id="bfloat16"),
        pytest.param(lambda x: torch.tensor(x).requires_grad_(), id="with a gradient"),
    ],
)
def test_a_functions_logits_may_be_any_array_or_tensor(word_tokenizer, tiny_bert, convert):
    tier = Tier.of(lambda _: convert(np.array([[0.5, 1.0], [2.0, -4.0]])))
    tier, _ = align_classes([tier, Tier.of((tiny_bert(), word_tokenizer))])
    found = tier.answer(["good", "bad"])
    assert found.logits.dtype == torch.float32
    assert found.logits.tolist() == [[0.5, 1.0], [2.0, -4.0]]


@pytest.mark.parametrize("what", [None, "tiny-sst2", 3, (1, 2, 3), [], ()], ids=repr)
def test_what_is_neither_is_refused(what, one_line_error):
    words = "tiers must be a list, and a tier (model, tokenizer) or a function from texts to logits "
    words += f"(got {type(what).__name__})"
    with one_line_error(TypeError, words):
        Tier.of(what)


def test_a_model_without_its_tokenizer_is_refused(tiny_bert, one_line_error):
    for model in (tiny_bert(), EarlyExitTextClassificationModel(tiny_bert())):
        for given in (model, (model, None)):
            with one_line_error(TypeError, f"or a function from texts to logits (got {type(model).__name__})"):
                Tier.of(given)


def test_a_pair_without_a_classifier_is_refused(tiny_bert, word_tokenizer, one_line_error):
    with one_line_error(TypeError, "model must be a Hugging Face ...ForSequenceClassification (got BertModel)"):
        Tier.of((tiny_bert().bert, word_tokenizer))
    with one_line_error(ValueError, "(got num_labels=1, problem_type=None)"):
        Tier.of((tiny_bert(labels=1), word_tokenizer))


def test_logits_of_another_shape_are_refused(tiny_bert, word_tokenizer, one_line_error):
    for logits in (np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(2), np.zeros((2, 2, 1))):
        tier = Tier.of(lambda _, logits=logits: logits)
        tier, _ = align_classes([tier, Tier.of((tiny_bert(), word_tokenizer))])
        words = f"a tier must answer texts with logits of shape (2, 2) (got {logits.shape})"
        with one_line_error(ValueError, words):
            tier.answer(["good", "bad"])


def test_a_tier_is_built_once(make_tier):
    with pytest.raises(FrozenInstanceError):
        make_tier().temperature = 2.0


# Whose classes count


def test_the_last_must_be_a_pair(make_tier, one_line_error):
    for tiers in ([], [Tier.of(count_words)], [make_tier(), Tier.of(count_words)]):
        with one_line_error(ValueError, "tiers must end with a pair (model, tokenizer), whose labels count"):
            align_classes(tiers)


@pytest.mark.parametrize("names", [{0: "sad", 1: "glad"}, {**NAMES, 2: "Glad"}, {**NAMES, 3: "furious"}], ids=str)
def test_other_classes_are_refused(make_tier, names, one_line_error):
    words = "tier 1 must have the last tier's classes, sad, so so, glad, by its config.id2label "
    words += f"(got {', '.join(names.values())})"
    with one_line_error(ValueError, words):
        align_classes([Tier.of(count_words), make_tier(names), make_tier()])


def test_two_classes_of_one_name_are_refused(make_tier):
    with pytest.raises(ValueError, match="class"):
        make_tier({0: "sad", 1: "sad", 2: "glad"})


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 0, 1], [1, 2, 0]], ids=str)
def test_a_model_with_its_classes_in_another_order_says_the_same(tiny_bert, word_tokenizer, order):
    model = tiny_bert(labels=3, id2label=NAMES)
    permuted = copy.deepcopy(model)
    permuted.config.id2label = {place: NAMES[c] for place, c in enumerate(order)}
    with torch.no_grad():
        permuted.classifier.weight.copy_(model.classifier.weight[order])
        permuted.classifier.bias.copy_(model.classifier.bias[order])
    tiers = [Tier.of((permuted, word_tokenizer)), Tier.of((model, word_tokenizer))]
    levels = torch.tensor([0.4, 0.6, 0.8])
    tiers = [replace(tier, thresholds=levels) for tier in align_classes(tiers)]
    rows = tiers[0].encode(make_texts(40))
    one, other = (tier.answer(rows) for tier in tiers)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.settled, other.settled)
    assert 0 < int(one.settled.sum()) < 40


def test_labels_of_an_exit_are_the_last_tiers_too(tiny_bert, word_tokenizer):
    own = EarlyExitTextClassificationModel(tiny_bert(labels=3, id2label={0: "glad", 1: "sad", 2: "so so"}))
    own.add_rule(lambda x: x[:, 0] > -1e9, 1, "encoder", 0, "attention", bound=0.1)
    cascade = Cascade(
        [(own, word_tokenizer), (tiny_bert(labels=3, id2label=NAMES), word_tokenizer)], thresholds=[float("inf")]
    )
    found = cascade.predict(make_texts(5))
    assert found.labels.tolist() == [0] * 5  # sad
    assert found.tier.tolist() == [0] * 5


# Which answers stand


def test_the_highest_probability_must_exceed_the_threshold(make_tier):
    logits = [[0.0, 0.0, 3.0], [0.0, 3.0, 0.0], [1.0, 0.9, 0.8]]
    score, predicted = top_class(torch.tensor(logits))
    assert predicted.tolist() == [2, 1, 0]
    for level in (0.0, 0.3, 0.4, float(score[0]), np.nextafter(score[0].numpy(), np.float32(0)), 1.0):
        found = make_tier(thresholds=[level] * 3).decide(output(logits))
        assert found.settled.tolist() == (score > level).tolist()
        assert torch.equal(found.logits, torch.tensor(logits))


def test_without_thresholds_all_stands(make_tier):
    assert make_tier().decide(output([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])).settled.all()


def test_every_class_has_its_threshold(make_tier):
    logits = [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]  # 0.787 each
    found = make_tier(thresholds=[0.7, 0.8, float("inf")]).decide(output(logits))
    assert found.settled.tolist() == [True, False, False]
    assert make_tier(thresholds=[-float("inf")] * 3).decide(output(logits)).settled.all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_logits_are_divided_by_the_temperature_before_they_are_judged(make_tier, temperature):
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.9, 0.0]])
    tier = replace(make_tier(thresholds=[0.7] * 3), temperature=temperature)
    found = tier.decide(output(logits.tolist()))
    assert torch.equal(found.logits, logits / temperature)
    assert torch.equal(found.settled, (logits / temperature).softmax(1).max(1).values > 0.7)


def test_what_left_early_stands_as_it_is(make_tier):
    tier = replace(make_tier(thresholds=[float("inf")] * 3), temperature=10.0)
    logits = torch.tensor([[1.0, 0.9, 0.8], [5.0, 0.0, 0.0]])
    found = tier.decide(output(logits.tolist(), rule=[3, -1]))
    assert found.settled.tolist() == [True, False]
    assert torch.equal(found.logits[0], logits[0])
    assert torch.equal(found.logits[1], logits[1] / 10)
    assert found.exit_rule.tolist() == found.exit_site.tolist() == [3, -1]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")], ids=str)
def test_only_the_last_tier_settles_what_is_not_finite(make_tier, broken):
    logits = [[broken, 0.0, 0.0], [broken] * 3]
    for level in (-float("inf"), 0.0, 0.9):
        assert not make_tier(thresholds=[level] * 3).decide(output(logits)).settled.any()
    assert make_tier().decide(output(logits)).settled.all()


# Which tokenizers do just the same


def tier_of(tiny_bert, tokenizer, max_length=None):
    return Tier.of((tiny_bert(), tokenizer), max_length)


def alike(one, other):
    both = one.tokenises_like(other)
    assert other.tokenises_like(one) == both
    return both


def test_a_tokenizer_loaded_twice_does_the_same(tiny_bert, word_tokenizer, tmp_path):
    word_tokenizer.save_pretrained(tmp_path)
    tiers = [tier_of(tiny_bert, type(word_tokenizer).from_pretrained(tmp_path)) for _ in range(2)]
    assert tiers[0].tokenizer is not tiers[1].tokenizer
    tiers[0].tokenizer(["good film"] * 2, padding=True, truncation=True, max_length=3)  # leaves its mark inside
    assert alike(*tiers)
    assert alike(tiers[0], tier_of(tiny_bert, tiers[0].tokenizer))


def lower(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def add_a_word(tokenizer):
    tokenizer.add_tokens(["plot"])


def with_segments(tokenizer):
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def cut_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"


@pytest.mark.parametrize("change", [lower, add_a_word, with_segments, cut_on_the_left])
def test_a_tokenizer_that_differs_in_anything_does_not(tiny_bert, word_tokenizer, change):
    other = copy.deepcopy(word_tokenizer)
    assert alike(tier_of(tiny_bert, word_tokenizer, 8), tier_of(tiny_bert, other, 8))
    change(other)
    assert not alike(tier_of(tiny_bert, word_tokenizer, 8), tier_of(tiny_bert, other, 8))


def test_another_max_length_is_another_tokenizer(tiny_bert, word_tokenizer):
    assert not alike(tier_of(tiny_bert, word_tokenizer, 10), tier_of(tiny_bert, word_tokenizer, 11))
    assert alike(tier_of(tiny_bert, word_tokenizer, 64), tier_of(tiny_bert, word_tokenizer, 500))


def test_functions_take_the_same_texts(tiny_bert, word_tokenizer):
    assert alike(Tier.of(count_words), Tier.of(len))
    assert not alike(Tier.of(count_words), tier_of(tiny_bert, word_tokenizer))
