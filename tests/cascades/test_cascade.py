"""A cascade's labels: those of the first tier that is sure enough of a text, whatever else is predicted with it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import make_inputs
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tier_samples import assert_same_bits, count_words, make_texts, oracle
from transformers import LlamaForSequenceClassification, pipeline
from transformers.utils import logging as transformers_logging

from moco_rt import _C, Cascade, EarlyExitTextClassificationModel, LinearCondition, TierError
from moco_rt.architectures import load_classifier
from moco_rt.cascades.tier import Tier, align_classes
from moco_rt.certification.certificate import Certificate
from moco_rt.inputs import prefetch
from moco_rt.policies.fingerprints import run_identity

INF = float("inf")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tiny_bert):
    return [tiny_bert(2, seed=1), tiny_bert(2, seed=2), tiny_bert(3, seed=3)]


@pytest.fixture(scope="module")
def with_exits(tiny_bert):
    """Rows leave it at two sites."""
    fast = EarlyExitTextClassificationModel(tiny_bert(3, seed=4))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    fast.add_rule(LinearCondition(-weight, 0.0, 13.0, 0.01, "mean"), 0, "encoder.1.output")
    return fast


@pytest.fixture(scope="module")
def sklearn_tier():
    """What scikit-learn has learnt of which of two words is there more often."""
    texts = make_texts(300, seed=9)
    made = make_pipeline(CountVectorizer(), LogisticRegression())
    return made.fit(texts, [text.count("good") > text.count("bad") for text in texts]).predict_log_proba


@pytest.fixture
def tiers_of(models, with_exits, sklearn_tier, word_tokenizer):
    """`tiers_of("small large")`: tiers by their names."""
    known = dict(zip(("small", "middle", "large"), ((model, word_tokenizer) for model in models), strict=True))
    known |= {"exits": (with_exits, word_tokenizer), "words": count_words, "sklearn": sklearn_tier}
    return lambda names: [known[name] for name in names.split()]


@pytest.fixture
def cascade_of(tiers_of):
    """`cascade_of("small large", [0.9])`."""
    return lambda names, thresholds: Cascade(tiers_of(names), thresholds=thresholds)


class Broken:
    """A function that fails on texts with a word; it settles those with another."""

    def __init__(self, word="bad", error=ValueError):
        self.word, self.error, self.sizes = word, error, []

    def __call__(self, texts):
        self.sizes.append(len(texts))
        if any(self.word in text for text in texts):
            raise self.error(f"a text has {self.word}")
        return count_words(texts)


# Who answers


def test_the_given_model_cuts_texts_where_the_last_tier_does(tiers_of):
    texts, tiers = make_texts(50), tiers_of("small large")
    cascade = Cascade(tiers, thresholds=[2.0], max_length=7)
    expected = cascade.predict(texts).probs
    given = cascade.given
    assert torch.equal(given.predict(texts, tokenizer=tiers[-1][1]).probs, expected)
    assert not torch.equal(Cascade(tiers, thresholds=[2.0]).predict(texts).probs, expected)
    assert torch.equal(given.given.predict(texts, tokenizer=tiers[-1][1]).probs, expected)


@pytest.mark.parametrize(
    ("names", "thresholds"),
    [
        ("large", []),
        ("small large", [0.9]),
        ("small large", [[0.95, 0.7]]),
        ("small large", [[INF, 0.0]]),
        ("small middle large", [0.95, 0.85]),
        ("small middle large", [[0.9, 0.99], [INF, 0.8]]),
        ("exits large", [0.8]),
        ("exits large", [INF]),
        ("small exits", [0.9]),
        ("small exits large", [0.95, 0.8]),
        ("words large", [0.7]),
        ("words small large", [0.75, 0.9]),
        ("sklearn large", [0.9]),
        ("small sklearn large", [0.95, 0.9]),
        ("words sklearn exits", [0.8, 0.9]),
    ],
    ids=str,
)
def test_a_text_is_answered_by_the_first_tier_that_is_sure(tiers_of, names, thresholds):
    tiers, texts = tiers_of(names), make_texts(300)
    expected = oracle(tiers, thresholds, texts)
    found = Cascade(tiers, thresholds=thresholds).predict(texts)
    assert_same_bits(found, expected)
    used = {t for t, level in enumerate([*thresholds, 0]) if level != INF or names.split()[t] == "exits"}
    assert set(found.tier.tolist()) == used
    assert (found.exit_rule >= 0).any() == ("exits" in names)


@pytest.mark.parametrize(("threshold", "who"), [(INF, 1), (1.0, 1), (-INF, 0), (0.0, 0)])
def test_thresholds_may_keep_everybody_or_nobody(cascade_of, threshold, who):
    assert set(cascade_of("small large", [threshold]).predict(make_texts(50)).tier.tolist()) == {who}


def test_texts_whose_logits_are_nan_are_answered_by_the_last(tiers_of):
    def some(texts):
        return [[np.nan, 0.0] if "bad" in text else [0.0, 9.0] for text in texts]

    texts = make_texts(60)
    found = Cascade([some, *tiers_of("large")], thresholds=[-INF]).predict(texts)
    assert found.tier.tolist() == ["bad" in text for text in texts]
    assert found.probs.isfinite().all()


def test_classes_are_told_by_their_names(tiny_bert, word_tokenizer):
    names = {0: "sad", 1: "so so", 2: "glad"}
    large = (tiny_bert(3, labels=3, seed=1, id2label=names), word_tokenizer)
    small = tiny_bert(2, labels=3, seed=2, id2label={0: "glad", 1: "sad", 2: "so so"})
    found = Cascade([(small, word_tokenizer), large], thresholds=[[0.5, 0.6, 0.7]]).predict(make_texts(200))
    # The same again, by a function that has been told.
    fast = EarlyExitTextClassificationModel(small)

    def told(texts):
        return fast.predict(texts, tokenizer=word_tokenizer).probs.log()[:, [1, 2, 0]]

    again = Cascade([told, large], thresholds=[[0.5, 0.6, 0.7]]).predict(make_texts(200))
    assert torch.equal(found.labels, again.labels)
    assert torch.equal(found.tier, again.tier)
    torch.testing.assert_close(found.probs, again.probs)
    assert set(found.tier.tolist()) == {0, 1}


def test_a_temperature_makes_a_tier_less_sure(cascade_of):
    cascade, texts = cascade_of("small large", [0.8]), make_texts(200)
    before = cascade.predict(texts)
    cascade = Cascade.of([replace(cascade.tiers[0], temperature=2.0), *cascade.tiers[1:]], None)
    after = cascade.predict(texts)
    assert 0 < (after.tier == 0).sum() < (before.tier == 0).sum()
    logits = before.probs[after.tier == 0].log()
    torch.testing.assert_close(after.probs[after.tier == 0], (logits / 2).softmax(1))


# Which texts


def test_many_texts_of_mixed_lengths_are_answered_in_their_order(tiers_of):
    tiers, texts = tiers_of("words exits large"), make_texts(10_000, longest=50)
    assert_same_bits(Cascade(tiers, thresholds=[0.9, 0.9]).predict(texts), oracle(tiers, [0.9, 0.9], texts))


def test_one_text_has_one_answer(cascade_of):
    texts = [*make_texts(100), *make_texts(100), *reversed(make_texts(100))]
    found = cascade_of("words small exits", [0.8, 0.9]).predict(texts)
    for name in ("labels", "probs", "exit_site", "exit_rule", "tier"):
        column = getattr(found, name)
        assert torch.equal(column[:100], column[100:200])
        assert torch.equal(column[:100], column[200:].flip(0))


@pytest.mark.parametrize("texts", [[""], ["", "", "good"], ("bad",), ["good"] * 3], ids=str)
def test_texts_may_be_few_and_empty(tiers_of, texts):
    tiers = tiers_of("small large")
    assert_same_bits(Cascade(tiers, thresholds=[0.9]).predict(texts), oracle(tiers, [0.9], list(texts)))


@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_of_texts_are_answered(tiers_of, kind):
    tiers = tiers_of("words small large")
    pairs = [kind(pair) for pair in zip(make_texts(80, seed=1), make_texts(80, seed=2), strict=True)]
    found = Cascade(tiers, thresholds=[0.75, 0.9]).predict(pairs)
    assert_same_bits(found, oracle(tiers, [0.75, 0.9], pairs))
    assert set(found.tier.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("chunk", [1, 7, 40, 4096])
def test_texts_may_come_from_a_generator_and_chunks_do_not_show(cascade_of, monkeypatch, chunk):
    cascade, texts = cascade_of("small middle large", [0.9, 0.8]), make_texts(50)
    expected = cascade.predict(texts)
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", chunk)
    monkeypatch.setattr("moco_rt.cascades.prediction.CHUNK_TEXTS", chunk)
    assert_same_bits(cascade.predict(text for text in texts), expected)


def test_texts_are_read_no_further_ahead_than_they_are_tokenised(cascade_of, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 10)
    monkeypatch.setattr("moco_rt.cascades.prediction.CHUNK_TEXTS", 10)
    read, seen = [], []

    def texts():
        for text in make_texts(50):
            read.append(text)
            yield text

    cascade = cascade_of("words large", [-INF])
    watched = replace(cascade.tiers[0], model=lambda given: seen.append(len(read)) or count_words(given))
    Cascade.of([watched, cascade.tiers[1]], None).predict(texts())
    assert seen == [20, 30, 40, 50, 50]


def test_one_str_is_not_taken_for_many_texts(cascade_of, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        cascade_of("small large", [0.9]).predict("a good film")


@pytest.mark.parametrize("none", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_texts_are_refused(cascade_of, none, one_line_error):
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        cascade_of("small large", [0.9]).predict(none)


@pytest.mark.parametrize("what", [None, 3, b"good", ("a", "b", "c"), pytest.param({"a", "b"}, id="a set")], ids=repr)
@pytest.mark.parametrize("place", [0, 5, 4100])
def test_what_is_not_a_text_is_refused_by_its_place(cascade_of, what, place, one_line_error):
    texts = ["good"] * 4200
    texts[place] = what
    words = f"texts must hold texts or pairs of texts (got {type(what).__name__} at place {place})"
    with one_line_error(TypeError, words):
        cascade_of("words large", [-INF]).predict(texts)


# What becomes of errors


def test_a_tier_that_fails_is_named_and_what_was_done_is_kept(tiers_of):
    tiers, texts = tiers_of("small large"), make_texts(100)
    with pytest.raises(TierError) as caught:
        Cascade([tiers[0], Broken(), tiers[1]], thresholds=[0.9, 0.9]).predict(texts)
    assert caught.value.tier == 1
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value) == "tier 1 failed: ValueError: a text has bad"
    found, expected = caught.value.prediction, oracle(tiers, [0.9], texts)
    done = expected.tier == 0
    assert 0 < done.sum() < 100
    assert torch.equal(found.labels, torch.where(done, expected.labels, -1))
    assert torch.equal(found.tier, torch.where(done, 0, -1))
    assert torch.equal(found.probs[done], expected.probs[done])
    assert found.probs[~done].isnan().all()


def test_batches_that_fail_can_be_skipped(tiers_of, caplog):
    tiers, texts = tiers_of("small large"), make_texts(100)
    found = Cascade([tiers[0], Broken(), tiers[1]], thresholds=[0.9, 0.9]).predict(texts, on_error="skip")
    first = oracle(tiers, [0.9], texts)
    assert torch.equal(found.tier, torch.where(first.tier == 0, 0, -1))
    assert torch.equal(found.labels, torch.where(first.tier == 0, first.labels, -1))
    assert found.probs[found.tier < 0].isnan().all()
    assert "tier 1 failed on" in caplog.text


def test_other_chunks_go_on_where_one_fails(tiers_of, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 10)
    monkeypatch.setattr("moco_rt.cascades.prediction.CHUNK_TEXTS", 10)
    tiers = [Broken("but"), *tiers_of("large")]
    texts = [text.replace("but", "was") for text in make_texts(50)]
    texts[13] += " but"
    found = Cascade(tiers, thresholds=[0.7]).predict(texts, on_error="skip")
    assert found.tier[10:20].tolist() == [-1] * 10
    whole = oracle([count_words, tiers[1]], [0.7], texts)
    rows = torch.tensor([*range(10), *range(20, 50)])
    assert torch.equal(found.probs[rows], whole.probs[rows])


def test_an_error_in_a_tokenizer_is_its_tiers(tiers_of, monkeypatch):
    cascade = Cascade(tiers_of("small large"), thresholds=[0.9])

    def breaks(tier, texts):
        if tier is cascade.tiers[0]:
            raise KeyError(len(texts))
        return encode(tier, texts)

    encode = Tier.encode
    monkeypatch.setattr(Tier, "encode", breaks)
    with pytest.raises(TierError) as caught:
        cascade.predict(["good", "bad"])
    assert caught.value.tier == 0


def test_an_unknown_way_with_errors_is_refused(cascade_of, one_line_error):
    cascade = cascade_of("small large", [0.9])
    for run in (cascade.predict, cascade.stream):
        with one_line_error(ValueError, "on_error must be raise or skip (got 'ignore')"):
            run(["good"], on_error="ignore")


# What a cascade may be made of


@pytest.mark.parametrize(("names", "thresholds"), [("large", [0.9]), ("small large", []), ("small large", [0.9, 0.9])])
def test_thresholds_of_another_number_are_refused(tiers_of, names, thresholds, one_line_error):
    words = f"one for each tier but the last, {len(names.split()) - 1} (got {len(thresholds)})"
    with one_line_error(ValueError, words):
        Cascade(tiers_of(names), thresholds=thresholds)


def test_thresholds_that_are_no_list_are_refused(tiers_of, one_line_error):
    with one_line_error(ValueError, "thresholds must be a list, one for each tier but the last (got 0.9)"):
        Cascade(tiers_of("small large"), thresholds=0.9)


@pytest.mark.parametrize(
    "threshold", [float("nan"), [0.9, float("nan")], [0.9] * 3, [], [[0.9, 0.8]], None, "high", [0.9, "high"]], ids=str
)
def test_thresholds_that_are_not_by_class_are_refused(tiers_of, threshold, one_line_error):
    words = f"a threshold must be a number, or one for each of 2 classes (got {threshold!r})"
    with one_line_error(ValueError, words):
        Cascade(tiers_of("small large"), thresholds=[threshold])


def test_a_threshold_may_be_an_array(tiers_of):
    tiers = tiers_of("small large")
    for level in (np.array([0.9, 0.8]), torch.tensor([0.9, 0.8]), (0.9, 0.8)):
        assert Cascade(tiers, thresholds=[level]).tiers[0].thresholds.tolist() == pytest.approx([0.9, 0.8])
    assert Cascade(tiers, thresholds=np.array([0.9])).tiers[0].thresholds.tolist() == pytest.approx([0.9, 0.9])


def test_without_a_tier_or_with_a_function_at_the_end_there_is_none(tiers_of, one_line_error):
    for tiers, thresholds in (([], []), ([*tiers_of("small"), count_words], [0.9])):
        with one_line_error(ValueError, "tiers must end with a pair (model, tokenizer), whose labels count"):
            Cascade(tiers, thresholds=thresholds)


def test_it_is_a_module_that_stays_in_evaluation_mode(cascade_of, models):
    cascade = cascade_of("words small large", [0.9, 0.9])
    assert not cascade.train().training
    assert not models[0].training
    assert len(list(cascade.parameters())) == len([*models[0].parameters(), *models[2].parameters()])
    assert (cascade.device, cascade.config) == (torch.device("cpu"), models[2].config)


def test_moved_to_another_dtype_all_tiers_compute_in_it(tiny_bert, word_tokenizer):
    pairs = [(tiny_bert(2, seed=seed), word_tokenizer) for seed in (1, 2)]
    cascade = Cascade(pairs, thresholds=[0.8]).to(torch.bfloat16)
    assert [tier.model.dtype for tier in cascade.tiers] == [torch.bfloat16] * 2
    found = cascade.predict(make_texts(20))
    assert found.probs.dtype == torch.float32
    assert_same_bits(found, oracle(pairs, [0.8], make_texts(20)))


def test_where_a_later_tier_refuses_a_dtype_all_stay_as_they_were(tiny_bert, word_tokenizer, one_line_error):
    last = EarlyExitTextClassificationModel(tiny_bert(2, seed=2))
    last.policy.made_for = run_identity(last.model, word_tokenizer, 16)
    last.add_rule(LinearCondition(np.ones(32, np.float32), 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    cascade = Cascade([(tiny_bert(2, seed=1), word_tokenizer), (last, word_tokenizer)], thresholds=[0.8])
    before = cascade.predict(make_texts(20))
    with one_line_error(ValueError, "the policy was made for a model with another dtype: float32 (got bfloat16)"):
        cascade.to(torch.bfloat16)
    assert [(tier.model.dtype, tier.model.model.dtype) for tier in cascade.tiers] == [(torch.float32,) * 2] * 2
    assert_same_bits(cascade.predict(make_texts(20)), before)


def test_loaded_weights_are_those_of_all_tiers(tiny_bert, word_tokenizer):
    def make(seed):
        models = [tiny_bert(2, seed=seed), tiny_bert(3, seed=seed + 1)]
        return Cascade([(model, word_tokenizer) for model in models], thresholds=[0.6])

    one, other = make(1), make(5)
    one.load_state_dict(other.state_dict())
    assert_same_bits(one.predict(make_texts(50)), other.predict(make_texts(50)))


def test_by_hand_nothing_is_promised(cascade_of):
    assert cascade_of("small large", [0.9]).report() == "no certificate"


@pytest.mark.skipif(not _C.can_multiply(torch.int8), reason="the processor does not multiply bytes")
def test_a_report_says_which_layers_are_in_int8(models, word_tokenizer):
    int8 = EarlyExitTextClassificationModel(models[2], dtype="int8")
    cascade = Cascade([count_words, (models[0], word_tokenizer), (int8, word_tokenizer)], thresholds=[0.9, 0.9])
    assert cascade.report() == "tier 2, int8: 18 of 18 layers\nno certificate"


# Padded batches, and pipelines


@pytest.mark.parametrize("names", ["large", "small large", "small exits large", "exits small"])
def test_forward_says_what_predict_says(cascade_of, word_tokenizer, names):
    cascade, texts = cascade_of(names, [0.9, 0.8][: len(names.split()) - 1]), make_texts(64)
    inputs = word_tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    output, expected = cascade(**inputs), cascade.predict(texts)
    assert torch.equal(output.logits.double().softmax(1).float(), expected.probs)
    for name in ("exit_site", "exit_rule", "tier"):
        assert torch.equal(getattr(output, name), getattr(expected, name))
    assert output.logits.dtype == torch.float32
    assert not output.logits.requires_grad


def test_forward_takes_ids_alone_and_segments(cascade_of):
    cascade = cascade_of("small large", [0.9])
    ids = torch.randint(4, 12, (20, 15), generator=torch.Generator().manual_seed(0))
    output = cascade(ids)
    assert set(output.tier.tolist()) == {0, 1}
    assert torch.equal(cascade(ids, torch.ones_like(ids), torch.zeros_like(ids)).logits, output.logits)
    segments = (torch.arange(15) > 7).long().expand(20, 15)
    whole = cascade(ids, None, segments)
    assert not torch.equal(whole.logits, output.logits)
    for row in range(20):
        assert torch.equal(cascade(ids[row : row + 1], None, segments[row : row + 1]).logits[0], whole.logits[row])


@pytest.mark.parametrize("backend", ["packed", "whole"])
def test_forward_takes_rows_that_decoders_pad_on_the_left(tiny_classifier, word_tokenizer, backend):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    models = [tiny_classifier(LlamaForSequenceClassification, seed, pad_token_id=0, **sizes) for seed in range(2)]
    tiers = [(EarlyExitTextClassificationModel(model, backend=backend), word_tokenizer) for model in models]
    cascade, tight = Cascade(tiers, thresholds=[0.6]), make_inputs([3, 12, 5, 7, 12, 4])
    right = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in tight.items()}
    lengths = right["attention_mask"].sum(dim=1).tolist()
    left = {
        name: torch.stack([row.roll(16 - length) for row, length in zip(tensor, lengths, strict=True)])
        for name, tensor in right.items()
    }
    assert left["attention_mask"][0].tolist() == [0] * 13 + [1] * 3
    expected, found = cascade(**right), cascade(**left)
    assert set(expected.tier.tolist()) == {0, 1}
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=0)
    assert torch.equal(found.tier, expected.tier)


def test_forward_needs_tokens_that_all_tiers_take(tiers_of, tiny_bert, word_tokenizer, one_line_error):
    shorter = EarlyExitTextClassificationModel(tiny_bert())
    shorter.policy.made_for["max_length"] = 8
    large = tiers_of("large")[0]
    for first in (count_words, (shorter, word_tokenizer)):
        with one_line_error(ValueError, "tiers must share one tokenizer to be given its tokens"):
            Cascade([first, large], thresholds=[0.9])(torch.tensor([[2, 5, 3]]))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (((9, 70),), "input_ids must have at most 64 tokens (got 70)"),
        (((9,),), "input_ids must have shape (rows, tokens) with at least one of each (got (9,))"),
        (((4, 10), (4, 9)), "attention_mask must have shape (4, 10) like input_ids (got (4, 9))"),
        (((4, 10), (8, 10)), "attention_mask must have shape (4, 10) like input_ids (got (8, 10))"),
        (((4, 10), (4, 10), (4, 12)), "token_type_ids must have shape (4, 10) like input_ids (got (4, 12))"),
    ],
)
def test_forward_refuses_what_does_not_fit(cascade_of, one_line_error, inputs, words):
    with one_line_error(ValueError, words):
        cascade_of("small large", [0.9])(*(torch.ones(shape, dtype=torch.int64) for shape in inputs))


def test_works_inside_a_pipeline_without_a_word(cascade_of, word_tokenizer, caplog):
    cascade, texts = cascade_of("small exits large", [0.9, 0.8]), make_texts(20)
    expected = cascade.predict(texts)
    assert len(set(expected.tier.tolist())) > 1
    transformers_logging.get_logger("transformers").addHandler(caplog.handler)
    classify = pipeline("text-classification", model=cascade, tokenizer=word_tokenizer)
    assert "Cascade" in repr(classify)
    for size in (1, 8):
        answers = classify(texts, batch_size=size)
        assert [answer["label"] for answer in answers] == [f"LABEL_{label}" for label in expected.labels]
        scores = [answer["score"] for answer in answers]
        assert scores == pytest.approx(expected.probs.max(1).values.tolist(), abs=1e-6)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert "not supported" not in caplog.text


# Real models


@pytest.mark.shared
def test_real_models_answer_as_each_would_alone(shared_dir):
    tiers = [load_classifier(str(shared_dir / "models" / name)) for name in ("tiny-sst2", "minilm-sst2")]
    with (shared_dir / "data" / "sst2" / "dev.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) == 872
    found = Cascade(tiers, thresholds=[0.9]).predict(texts)
    assert_same_bits(found, oracle(tiers, [0.9], texts))
    assert 0.2 < (found.tier == 0).float().mean() < 0.95


# What a certificate binds


@pytest.fixture
def certified(models, word_tokenizer):
    """Two tiers, used for their ends alone, as `accelerate` leaves them."""
    tiers = align_classes([Tier.of((copy.deepcopy(model), word_tokenizer)) for model in models[:2]])
    tiers[0] = replace(tiers[0], thresholds=torch.tensor([0.9, 0.9]))
    for tier in tiers:
        made_for = run_identity(tier.model.model, word_tokenizer, tier.max_length)
        tier.model.policy = tier.model.policy.without_exits(made_for)
    return Cascade.of(tiers, Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ()))


def test_tiers_of_a_certified_cascade_keep_their_dtype(certified, one_line_error):
    with one_line_error(ValueError, "the policy was made for a model with another dtype: float32 (got float64)"):
        certified.to(torch.float64)
    assert {tier.model.model.dtype for tier in certified.tiers} == {torch.float32}


def test_a_certified_cascade_refuses_a_tokenizer_that_was_changed(certified, tmp_path):
    certified.save_pretrained(tmp_path)
    for cascade in (certified, Cascade.from_pretrained(tmp_path)):
        tier = cascade.tiers[0]
        cascade.tiers[0] = replace(tier, tokenizer=copy.deepcopy(tier.tokenizer))
        for number in (1, 0):
            cascade.tiers[number].tokenizer.truncation_side = "left"
            with pytest.raises(
                TierError, match=f"tier {number} failed: .*tokenizer must be the one that the policy was"
            ):
                cascade.predict(make_texts(50))
        cascade.tiers[1].tokenizer.truncation_side = "right"


def test_a_certified_cascade_with_other_weights_is_not_saved(certified, tmp_path, one_line_error):
    certified.save_pretrained(tmp_path)
    with torch.no_grad():
        certified.tiers[1].model.model.classifier.bias += 1
    with one_line_error(ValueError, "the policy was made for a model with another weights"):
        certified.save_pretrained(tmp_path)
    assert Cascade.from_pretrained(tmp_path).certificate == certified.certificate


@pytest.mark.parametrize("backend", ["packed", "reference", "whole"])
@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_promised_of_a_cascade_of_which_a_tier_was_changed(certified, number, backend):
    made_for = [tier.model.policy.made_for for tier in certified.tiers]
    tiers = []
    for tier, made in zip(certified.tiers, made_for, strict=True):
        model = EarlyExitTextClassificationModel(tier.model.model, backend=backend)
        model.policy = model.policy.without_exits(made)
        tiers.append(replace(tier, model=model))
    cascade = Cascade.of(tiers, certified.certificate)
    texts = make_texts(50)
    cascade.predict(texts)
    assert cascade.is_certified
    for sign in (-1, 1):
        with torch.no_grad():
            cascade.tiers[number].model.model.classifier.weight.neg_()
        cascade.predict(texts)
        assert cascade.is_certified == (sign == 1)
        said = "the model was changed since it was certified: nothing is promised of it, but of what it was:"
        assert (said in cascade.promised()) != cascade.is_certified
