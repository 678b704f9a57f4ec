"""Rows that leave by their token ids, before anything is embedded, through both loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_tests import padded_on_the_left
from image_samples import make_image_classifier
from parity import assert_rows_keep_their_bits, make_inputs
from scipy.special import log_softmax
from transformers import (
    DistilBertForSequenceClassification,
    LlamaForSequenceClassification,
    RobertaForSequenceClassification,
    ViTForImageClassification,
    pipeline,
)

from moco_rt import (
    BagOfTokens,
    EarlyExitImageClassificationModel,
    EarlyExitTextClassificationModel,
    LinearCondition,
    OffRamp,
)
from moco_rt._C import PackedBatch, start_profile, stop_profile
from moco_rt.architectures import sites
from moco_rt.certification.policy_path import PolicyPath
from moco_rt.encoding import EncodedTexts
from moco_rt.policies import bag_of_tokens
from moco_rt.policies.policy import CertifiedPath
from moco_rt.runtime.exit_points import compile_bag

LENGTHS = [9, 1, 17, 33, 4, 60, 2, 15, 16, 40, *range(5, 19)]
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 3}
backends = pytest.mark.parametrize("backend", ["packed", "reference"])


def families(tiny_bert, tiny_classifier):
    """Positions that count from 2 and skip padding, no token types, positions of decoders."""
    return {
        "bert": tiny_bert(3, labels=3),
        "roberta": tiny_classifier(RobertaForSequenceClassification, pad_token_id=1, type_vocab_size=2, **SMALL),
        "distilbert": tiny_classifier(
            DistilBertForSequenceClassification, dim=32, hidden_dim=48, n_heads=2, n_layers=3, num_labels=3
        ),
        "llama": tiny_classifier(LlamaForSequenceClassification, num_key_value_heads=1, pad_token_id=0, **SMALL),
    }


def rows_of(inputs):
    mask = inputs["attention_mask"].bool()
    types = inputs.get("token_type_ids")
    types = None if types is None else types[mask].int().numpy()
    return EncodedTexts(inputs["input_ids"][mask].int().numpy(), mask.sum(1).numpy(), types)


def scores_of(bag, rows):
    batch = PackedBatch.of_lengths(torch.from_numpy(rows.lengths))
    batch.take_ids(torch.from_numpy(rows.ids), None)
    score, predicted = compile_bag(bag).score(batch)
    return score, predicted.long()


def make_bag(rows, share=0.5, seed=0, classes=3):
    """A random bag of tokens by which about this share of the rows leaves."""
    rng = np.random.default_rng(seed)
    bounds = np.full(classes, 0.01)
    bag = BagOfTokens(rng.normal(0, 2, (256, classes)), rng.normal(size=classes), bounds, bounds, temperature=1.3)
    middle = float(scores_of(bag, rows)[0].quantile(1 - share))
    threshold = {0.0: np.inf, 1.0: -np.inf}.get(share, middle)
    return replace(bag, thresholds=np.full(classes, threshold))


def with_bag(model, backend, bag, **options):
    fast = EarlyExitTextClassificationModel(model, backend=backend, **options)
    fast.add_off_ramp(bag, "tokens")
    return fast


# Who leaves, and what becomes of the others


@backends
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("family", ["bert", "bert pairs", "roberta", "distilbert", "llama"])
def test_sure_rows_leave_and_the_others_answer_as_without_exits(tiny_bert, tiny_classifier, family, share, backend):
    model = families(tiny_bert, tiny_classifier)[family.split()[0]]
    inputs = make_inputs(LENGTHS, pairs=family == "bert pairs")
    bag = make_bag(rows_of(inputs), share)
    fast = with_bag(model, backend, bag)
    output = fast(**inputs)
    score, predicted = scores_of(bag, rows_of(inputs))
    leaves = score > torch.from_numpy(bag.thresholds)[predicted]
    assert leaves.float().mean() == pytest.approx(share, abs=0.1)
    place = fast.sites.index("tokens")
    assert output.exit_site.tolist() == [place if left else -1 for left in leaves]
    assert output.exit_rule.tolist() == [0 if left else -1 for left in leaves]
    assert torch.equal(output.logits[leaves].argmax(1), predicted[leaves])
    torch.testing.assert_close(output.logits[leaves].exp().max(1).values, score[leaves])
    with torch.no_grad():
        full = model(**inputs).logits
    torch.testing.assert_close(output.logits[~leaves], full[~leaves], atol=1e-4, rtol=0)


def test_log_probabilities_are_those_of_the_sum_over_ngrams():
    rows = EncodedTexts(np.array([7], np.int32), np.array([1]))
    bag = make_bag(rows, 1.0)
    score, predicted = scores_of(bag, rows)
    places = [bucket for bucket in range(256) if same_score(bag, bucket, float(score[0]), int(predicted[0]))]
    assert len(places) == 1  # one token has one n-gram: one row of the table explains it


def same_score(bag, bucket, score, predicted):
    log_probs = log_softmax((bag.bias + bag.table[bucket]) / bag.temperature)
    return log_probs.argmax() == predicted and abs(np.exp(log_probs.max()) - score) < 1e-6


@backends
def test_inputs_may_lie_end_to_end(model, inputs, backend):
    fast = with_bag(model, backend, make_bag(rows_of(inputs)))
    padded, packed = fast(**inputs), fast.forward_packed(rows_of(inputs))
    assert set(padded.exit_site.tolist()) == {-1, fast.sites.index("tokens")}
    for name in ("logits", "exit_site", "exit_rule"):
        assert torch.equal(packed[name], padded[name])


@backends
def test_rows_may_be_padded_on_the_left(tiny_bert, tiny_classifier, backend):
    model, inputs = families(tiny_bert, tiny_classifier)["llama"], make_inputs(LENGTHS)
    fast = with_bag(model, backend, make_bag(rows_of(inputs)))
    right, left = fast(**inputs), fast(**padded_on_the_left(inputs))
    assert torch.equal(left.exit_site, right.exit_site)
    torch.testing.assert_close(left.logits, right.logits, atol=1e-5, rtol=0)


def test_both_loops_agree_where_rows_leave_at_other_sites_too(model, inputs):
    rng = np.random.default_rng(0)
    exits = [
        ("encoder.1.output", LinearCondition(rng.normal(size=32).astype(np.float32), 0.0, 1.0, 0.01)),
        ("tokens", make_bag(rows_of(inputs), 0.3)),
        ("embeddings", OffRamp(((rng.normal(size=(3, 64)), np.zeros(3)),), [0.9] * 3, [0.01] * 3, patience=2)),
        ("encoder.0.attention", OffRamp(((rng.normal(size=(3, 64)), np.zeros(3)),), [0.9] * 3, [0.01] * 3)),
    ]
    outputs = []
    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        for site, condition in exits:
            fast.add_rule(condition, 1, site) if isinstance(condition, LinearCondition) else fast.add_off_ramp(
                condition, site
            )
        outputs.append(fast(**inputs))
    packed, reference = outputs
    assert packed.exit_rule.tolist() == reference.exit_rule.tolist()
    assert {1, -1} < set(packed.exit_rule.tolist())
    torch.testing.assert_close(packed.logits, reference.logits, atol=1e-4, rtol=0)


def test_a_row_has_the_same_bits_alone_and_in_any_batch(model, inputs, packed_dtype):
    fast = with_bag(model, "packed", make_bag(rows_of(inputs)), dtype=packed_dtype)
    weight = np.random.default_rng(0).normal(size=32).astype(np.float32)
    fast.add_rule(LinearCondition(weight, 0.0, 0.0, 0.01), 1, "encoder.0.attention")
    assert_rows_keep_their_bits(fast, inputs, inputs["attention_mask"].sum(1).tolist())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_rows_that_left_are_not_embedded(model, inputs, share):
    bag, embedded = make_bag(rows_of(inputs), share), []
    hook = model.bert.embeddings.register_forward_hook(lambda _, args, out: embedded.append(len(out)))  # noqa: ARG005
    left = (with_bag(model, "reference", bag)(**inputs).exit_site >= 0).sum()
    hook.remove()
    assert embedded == ([] if share == 1.0 else [len(inputs["input_ids"]) - left])
    fast = with_bag(model, "packed", bag)
    start_profile()
    fast(**inputs)
    assert (stop_profile()["embed"] == 0) == (share == 1.0)


def test_ids_that_the_model_does_not_have_are_refused_whoever_leaves(model, one_line_error):
    inputs = make_inputs([3, 5])
    fast = with_bag(model, "packed", make_bag(rows_of(inputs), 1.0))
    with one_line_error(IndexError, "input_ids must be from 0 to 99 (got 100)"):
        fast(torch.full((1, 3), 100))


# The site


def test_numbers_of_other_sites_are_what_they_were_and_images_have_no_tokens(model, tiny_classifier):
    assert EarlyExitTextClassificationModel(model).sites == (*sites.all_sites(3), "tokens")
    images = EarlyExitImageClassificationModel(make_image_classifier(tiny_classifier, ViTForImageClassification))
    assert images.sites == sites.all_sites(3)
    assert sites.TOKENS == bag_of_tokens.TOKENS == "tokens"


def test_what_cannot_stand_there_is_refused(model, inputs, one_line_error):
    bag, fast = make_bag(rows_of(inputs)), EarlyExitTextClassificationModel(model)
    must = "a BagOfTokens, and nothing else, must stand at tokens"
    with one_line_error(ValueError, f"{must} (got BagOfTokens at embeddings)"):
        fast.add_off_ramp(bag, "embeddings")
    with one_line_error(ValueError, f"{must} (got LinearCondition at tokens)"):
        fast.add_rule(LinearCondition(np.ones(32), 0.0, 0.0, 0.01), 1, "tokens")
    with one_line_error(ValueError, "off-ramp must have the model's 3 classes (got 2)"):
        fast.add_off_ramp(make_bag(rows_of(inputs), classes=2), "tokens")
    with one_line_error(ValueError, "site must have a layer left to save (got 'encoder.2.output', the last)"):
        fast.add_rule(LinearCondition(np.ones(32), 0.0, 0.0, 0.01), 1, "encoder.2.output")
    assert not fast.policy.exits


# What users do with it

TEXTS = ["a good film", "the film was not bad but not good", "bad", "a bad film", "good good good", "the film"]


@backends
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_predict_and_a_saved_model_answer_alike(model, word_tokenizer, tmp_path, backend, pairs):
    texts = list(zip(TEXTS, reversed(TEXTS), strict=True)) if pairs else TEXTS
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    fast.tokenizer = word_tokenizer
    bag = make_bag(EncodedTexts.of([word_tokenizer(*([text] if not pairs else text)) for text in texts]))
    fast.add_off_ramp(bag, "tokens")
    found = fast.predict(texts)
    assert {row["exit"] for row in found} == {None, "tokens"}
    fast.save_pretrained(tmp_path)
    again = EarlyExitTextClassificationModel.from_pretrained(tmp_path, backend=backend).predict(texts)
    for name in ("labels", "probs", "exit_site", "exit_rule"):
        assert torch.equal(getattr(again, name), getattr(found, name))


def test_it_answers_in_a_pipeline(model, word_tokenizer):
    rows = EncodedTexts.of([word_tokenizer(text) for text in TEXTS])
    fast = with_bag(model, "packed", make_bag(rows))
    answers = pipeline("text-classification", model=fast, tokenizer=word_tokenizer)(TEXTS, batch_size=3)
    found = fast.predict(TEXTS, tokenizer=word_tokenizer)
    assert [answer["label"] for answer in answers] == [row["label"] for row in found]
    assert [answer["score"] for answer in answers] == pytest.approx([row["prob"] for row in found], abs=1e-6)


def test_a_monitor_closes_a_bag_that_errs(model, inputs):
    fast = with_bag(model, "packed", make_bag(rows_of(inputs), 1.0, seed=3))
    fast.monitor(rate=1.0)
    for _ in range(20):
        fast(**inputs)
    assert fast.policy.closed == {0}
    assert (fast(**inputs).exit_site == -1).all()


@backends
def test_a_monitor_steps_back_to_a_policy_without_the_bag(model, inputs, backend):
    bag, alarms = make_bag(rows_of(inputs), 1.0, seed=3), []
    thresholds = np.full((2, 1, 3), np.inf, np.float32)
    thresholds[1] = -np.inf  # all rows leave
    path = PolicyPath(("as given",), np.zeros(2, int), thresholds, np.array([0, 5]), np.array([2.0, 1.0]), 1000, 1, 1)
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    fast.policy.path = CertifiedPath([BagOfTokens.closed(bag.table, bag.bias, bag.temperature)], path)
    fast.policy.take_step(1)
    fast.monitor(rate=1.0, on_alarm=alarms.append)
    for _ in range(20):
        fast(**inputs)
    assert [(alarm.site, alarm.step) for alarm in alarms] == [("tokens", 0)]
    assert (fast.policy.step, fast.policy.exits) == (0, ())
    assert (fast(**inputs).exit_site == -1).all()
