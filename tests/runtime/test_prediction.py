"""`model.predict`: texts in, labels out, in the order of the texts and as `forward` gives them one by one."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.inputs import batching, prefetch
from moco_rt.inputs.tokenizer_identity import tokenizer_fingerprint
from moco_rt.runtime.outputs import Prediction, RowNames, concatenate, select
from moco_rt.runtime.prediction import predict_parts

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
backends = pytest.mark.parametrize("backend", ["packed", "reference"])


def make_texts(count, seed=0):
    """Random texts of 0 to 30 words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, 31))) for _ in range(count)]


@pytest.fixture
def make_fast(tiny_bert):
    """A model of three labels on either backend; rows leave it at two sites, unless it takes no rules."""

    def make(backend, exits=True, **config):
        model = tiny_bert(layers=3, **{"labels": 3, **config})
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
        if exits:
            fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
            fast.add_rule(LinearCondition(-weight, 0.0, 13.0, 0.01, "mean"), 2, "encoder.1.output")
        return fast

    return make


def assert_as_forward(fast, tokenizer, texts, found, **options):
    """What predict found must be what forward says of each text alone."""
    classes = fast.config.num_labels
    assert (found.labels.shape, found.probs.shape) == ((len(texts),), (len(texts), classes))
    assert found.labels.dtype == found.exit_site.dtype == found.exit_rule.dtype == torch.int64
    assert found.probs.dtype == torch.float32
    for place, text in enumerate(texts):
        pair = (text,) if isinstance(text, str) else text
        output = fast(**tokenizer(*pair, return_tensors="pt", **options))
        torch.testing.assert_close(found.probs[place], output.logits[0].float().softmax(0), atol=1e-5, rtol=0)
        assert found.labels[place] == output.logits.argmax()
        assert found.exit_site[place] == output.exit_site
        assert found.exit_rule[place] == output.exit_rule


@backends
@pytest.mark.parametrize(("exits", "sites"), [(False, 1), (True, 3)], ids=["no rule", "rules"])
def test_every_text_gets_what_forward_gives_it_alone_in_the_order_of_the_texts(
    make_fast, word_tokenizer, backend, exits, sites
):
    fast = make_fast(backend, exits)
    texts = make_texts(60)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    assert len(set(found.exit_site.tolist())) == sites
    assert_as_forward(fast, word_tokenizer, texts, found)


@backends
@pytest.mark.parametrize("texts", [["good film"], [""], ("bad", "good")], ids=str)
def test_texts_may_be_few_and_empty(make_fast, word_tokenizer, backend, texts):
    fast = make_fast(backend)
    assert_as_forward(fast, word_tokenizer, list(texts), fast.predict(texts, tokenizer=word_tokenizer))


@backends
@pytest.mark.parametrize(("texts", "tokens"), [(1, 1), (7, 50), (8, 10**6), (50, 40), (51, 33), (1000, 100)])
def test_chunks_and_batches_do_not_show(make_fast, word_tokenizer, monkeypatch, backend, texts, tokens):
    fast = make_fast(backend)
    rows = make_texts(50)
    expected = fast.predict(rows, tokenizer=word_tokenizer)
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", texts)
    monkeypatch.setattr(batching, "BATCH_TOKENS", tokens)
    found = fast.predict(rows, tokenizer=word_tokenizer)
    torch.testing.assert_close(found.probs, expected.probs, atol=1e-5, rtol=0)
    for name in ("labels", "exit_site", "exit_rule"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_packed_answers_have_the_same_bits_in_chunks_of_any_size(make_fast, word_tokenizer, monkeypatch):
    fast = make_fast("packed")
    rows = make_texts(50)
    expected = fast.predict(rows, tokenizer=word_tokenizer).probs
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 11)
    monkeypatch.setattr(batching, "BATCH_TOKENS", 64)
    assert torch.equal(fast.predict(rows, tokenizer=word_tokenizer).probs, expected)


@backends
@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_of_texts_are_labelled(make_fast, word_tokenizer, monkeypatch, backend, kind):
    monkeypatch.setattr(word_tokenizer, "model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
    fast = make_fast(backend)
    pairs = [kind(pair) for pair in zip(make_texts(20, seed=1), make_texts(20, seed=2), strict=True)]
    found = fast.predict(pairs, tokenizer=word_tokenizer)
    assert_as_forward(fast, word_tokenizer, pairs, found)
    swapped = fast.predict([kind(reversed(pair)) for pair in pairs], tokenizer=word_tokenizer)
    assert not torch.allclose(swapped.probs, found.probs)


@backends
def test_texts_are_truncated_to_max_length(make_fast, word_tokenizer, backend):
    fast = make_fast(backend)
    texts = make_texts(30)
    found = fast.predict(texts, tokenizer=word_tokenizer, max_length=8)
    assert_as_forward(fast, word_tokenizer, texts, found, max_length=8, truncation=True)


def test_threads_may_cut_texts_at_different_lengths_at_once(make_fast, word_tokenizer):
    fast, texts, limits = make_fast("packed"), make_texts(200), [3, 5, 9, 16]

    def probs(limit):
        return fast.predict(texts, tokenizer=word_tokenizer, max_length=limit).probs

    alone = [probs(limit) for limit in limits]
    with ThreadPoolExecutor(len(limits)) as threads:
        for found, expected in zip(threads.map(probs, limits * 10), alone * 10, strict=True):
            assert torch.equal(found, expected)


@backends
def test_texts_are_truncated_to_what_the_model_has_positions_for(make_fast, word_tokenizer, backend):
    fast = make_fast(backend, max_position_embeddings=16)
    texts = make_texts(30)
    for max_length in (None, 500):
        found = fast.predict(texts, tokenizer=word_tokenizer, max_length=max_length)
        assert_as_forward(fast, word_tokenizer, texts, found, max_length=16, truncation=True)


@backends
def test_labels_that_may_hold_at_once_have_probabilities_of_their_own(make_fast, word_tokenizer, backend):
    fast = make_fast(backend, exits=False, labels=4, problem_type="multi_label_classification")
    texts = make_texts(12)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    assert found.scores is None
    for place, text in enumerate(texts):
        logits = fast(**word_tokenizer(text, return_tensors="pt")).logits[0]
        torch.testing.assert_close(found.probs[place], logits.sigmoid(), atol=1e-5, rtol=0)
        assert found.labels[place] == logits.argmax()


@backends
@pytest.mark.parametrize(("problem_type", "outputs"), [(None, 1), ("regression", 1), ("regression", 3)])
def test_what_does_not_choose_a_label_answers_with_scores(make_fast, word_tokenizer, backend, problem_type, outputs):
    fast = make_fast(backend, exits=False, labels=outputs, problem_type=problem_type)
    texts = make_texts(12)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    assert found.labels is None
    assert found.scores.shape == ((12,) if outputs == 1 else (12, 3))
    for place, text in enumerate(texts):
        logits = fast(**word_tokenizer(text, return_tensors="pt")).logits[0]
        torch.testing.assert_close(found.scores[place], logits.squeeze(), atol=1e-5, rtol=0)
    if problem_type is None:
        assert torch.equal(found.probs, found.scores.sigmoid()[:, None])
    else:
        assert found.probs is None
    assert list(found) == [{"score": score, "exit": None} for score in found.scores.tolist()]


def test_probabilities_are_float32_whatever_the_model_computes_in(make_fast, word_tokenizer, packed_dtype):
    found = make_fast("packed", dtype=packed_dtype).predict(make_texts(5), tokenizer=word_tokenizer)
    assert found.probs.dtype == torch.float32
    torch.testing.assert_close(found.probs.sum(1), torch.ones(5))


def test_one_str_is_not_taken_for_many_texts(make_fast, word_tokenizer, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        make_fast("packed").predict("a good film", tokenizer=word_tokenizer)


@pytest.mark.parametrize("none", [[], ()], ids=str)
def test_no_texts_are_refused(make_fast, word_tokenizer, one_line_error, none):
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        make_fast("packed").predict(none, tokenizer=word_tokenizer)


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_max_length_without_room_for_a_text_is_refused(make_fast, word_tokenizer, one_line_error, max_length):
    with one_line_error(ValueError, f"max_length must be more than the 2 special tokens (got {max_length})"):
        make_fast("packed").predict(["good"], tokenizer=word_tokenizer, max_length=max_length)


@pytest.mark.parametrize("max_length", ["7", 2.5, True], ids=str)
def test_a_max_length_that_is_no_whole_number_is_refused(make_fast, word_tokenizer, one_line_error, max_length):
    fast = make_fast("packed")
    with one_line_error(TypeError, f"max_length must be a whole number (got {max_length!r})"):
        fast.predict(["good"], tokenizer=word_tokenizer, max_length=max_length)
    assert len(fast.predict(["good"], tokenizer=word_tokenizer, max_length=np.int64(7)).labels) == 1


def test_a_tokenizer_that_leaves_no_room_for_a_text_is_refused(make_fast, word_tokenizer, one_line_error):
    narrow = copy.deepcopy(word_tokenizer)
    narrow.model_max_length = 1
    with one_line_error(ValueError, "tokenizer.model_max_length must be more than the 2 special tokens (got 1)"):
        make_fast("packed").predict(["good"], tokenizer=narrow)


def test_what_is_no_tokenizer_is_refused(make_fast, word_tokenizer, one_line_error):
    for other, kind in (
        ("bert-base-uncased", "str"),
        (str.split, "method_descriptor"),
        (word_tokenizer.backend_tokenizer, "tokenizers.Tokenizer"),
    ):
        with one_line_error(TypeError, f"tokenizer must be one of Hugging Face's transformers (got {kind})"):
            make_fast("packed").predict(["good"], tokenizer=other)
        with one_line_error(TypeError, f"tokenizer must be one of Hugging Face's transformers (got {kind})"):
            tokenizer_fingerprint(other)


def test_short_work_says_nothing(make_fast, word_tokenizer, capfd):
    make_fast("packed").predict(make_texts(20), tokenizer=word_tokenizer)
    assert capfd.readouterr() == ("", "")


# What is finished is not lost


def test_a_bad_text_in_a_list_is_refused_before_anything_is_computed(make_fast, word_tokenizer, monkeypatch):
    fast = make_fast("packed")
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)
    monkeypatch.setattr(fast, "forward_packed", None)
    for bad in (None, "\ud83d"):
        with pytest.raises((TypeError, ValueError), match=r"^texts must .* place 3\)$"):
            fast.predict(["good", "bad", "film", bad], tokenizer=word_tokenizer)


def test_an_error_while_an_iterator_is_read_brings_what_was_before_it(make_fast, word_tokenizer, monkeypatch):
    fast = make_fast("packed")
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 4)
    texts = make_texts(10)

    def read():
        yield from texts
        raise OSError("the line is dead")

    with pytest.raises(OSError, match="the line is dead") as caught:
        fast.predict(read(), tokenizer=word_tokenizer)
    expected = fast.predict(texts, tokenizer=word_tokenizer)
    assert torch.equal(caught.value.prediction.probs, expected.probs)
    with pytest.raises(TypeError, match="got NoneType at place 10") as caught:
        fast.predict(iter([*texts, None, "good"]), tokenizer=word_tokenizer)
    assert torch.equal(caught.value.prediction.labels, expected.labels)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_computing_brings_what_was_before_it(make_fast, word_tokenizer, monkeypatch, kind):
    fast = make_fast("packed")
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 4)
    expected, forward, left = fast.predict(make_texts(8), tokenizer=word_tokenizer), fast.forward_packed, [0] * 2

    def breaks(rows):
        if not left:
            raise kind
        left.pop()
        return forward(rows)

    monkeypatch.setattr(fast, "forward_packed", breaks)
    with pytest.raises(kind) as caught:
        fast.predict(make_texts(12), tokenizer=word_tokenizer)
    assert torch.equal(caught.value.prediction.probs, expected.probs)


def test_an_error_before_anything_is_finished_brings_nothing(make_fast, word_tokenizer):
    with pytest.raises(TypeError) as caught:
        make_fast("packed").predict(iter([None]), tokenizer=word_tokenizer)
    assert not hasattr(caught.value, "prediction")


def test_parts_come_in_order_and_are_read_one_ahead(make_fast, word_tokenizer, monkeypatch):
    fast, texts, read = make_fast("packed"), make_texts(10), []
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 4)
    parts = predict_parts(fast, (read.append(text) or text for text in texts), word_tokenizer)
    assert read == []
    found = [next(parts)]
    assert len(read) == 8
    found += parts
    assert [len(part) for part in found] == [4, 4, 2]
    expected = fast.predict(texts, tokenizer=word_tokenizer)
    assert torch.equal(concatenate(found).probs, expected.probs)


# The tokenizer that a model carries


def test_a_model_uses_the_tokenizer_that_it_carries(make_fast, word_tokenizer):
    fast, texts = make_fast("packed"), make_texts(20)
    expected = fast.predict(texts, tokenizer=word_tokenizer)
    fast.tokenizer = word_tokenizer
    assert torch.equal(fast.predict(texts).probs, expected.probs)


def test_without_a_tokenizer_nothing_is_predicted(make_fast, one_line_error):
    with one_line_error(ValueError, "tokenizer must be given where the model carries none (got None)"):
        make_fast("packed").predict(["good"])


def test_columns_name_the_texts(make_fast, word_tokenizer):
    fast, texts = make_fast("packed"), make_texts(20)
    rows = [{"review": text, "text": "good"} for text in texts]
    found = fast.predict(rows, tokenizer=word_tokenizer, columns="review")
    assert torch.equal(found.probs, fast.predict(texts, tokenizer=word_tokenizer).probs)


# A prediction as rows


def prediction(**changes):
    columns = {
        "labels": torch.tensor([1, 0, -1]),
        "probs": torch.tensor([[0.25, 0.75], [0.5, 0.5], [torch.nan, torch.nan]]),
        "exit_site": torch.tensor([2, -1, -1]),
        "exit_rule": torch.tensor([0, -1, -1]),
        "tier": torch.tensor([0, 1, -1]),
    }
    return Prediction(**{**columns, **changes})


def test_rows_have_the_names_of_classes_sites_and_tiers():
    names = RowNames({0: "no", 1: "yes"}, [["a", "b", "c"], []], tiers=True)
    assert list(prediction(names=names)) == [
        {"label": "yes", "prob": 0.75, "exit": "c", "tier": 0},
        {"label": "no", "prob": 0.5, "exit": None, "tier": 1},
        {"label": None, "prob": None, "exit": None, "tier": None},
    ]


def test_without_names_rows_have_numbers():
    assert next(iter(prediction())) == {"label": 1, "prob": 0.75, "exit": 2}


def test_several_labels_that_hold_at_once_are_listed():
    names = RowNames({0: "no", 1: "yes"}, [["a", "b", "c"], []], several=True)
    rows = list(replace(prediction(names=names), probs=torch.tensor([[0.75, 0.5], [0.1, 0.4], [0.9, torch.nan]])))
    assert [(row["label"], row["prob"]) for row in rows] == [(["no", "yes"], [0.75, 0.5]), ([], []), (None, None)]


def test_a_probability_that_is_not_a_number_settles_no_label():
    assert next(iter(replace(prediction(), probs=torch.full((3, 2), torch.nan))))["label"] is None


def test_a_prediction_has_a_length_and_makes_a_frame(make_fast, word_tokenizer):
    fast, texts = make_fast("packed"), make_texts(40)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    assert len(found) == 40
    frame = pd.DataFrame(found)
    assert list(frame.columns) == ["label", "prob", "exit"]
    assert frame["label"].tolist() == [f"LABEL_{label}" for label in found.labels.tolist()]
    assert frame["prob"].tolist() == found.probs.max(1).values.tolist()
    sites = [None if site < 0 else fast.sites[site] for site in found.exit_site.tolist()]
    assert [row["exit"] for row in found] == sites
    assert len(set(sites)) == 3


def test_rows_can_be_selected_and_joined_again():
    whole = prediction()
    assert concatenate(
        [select(whole, torch.tensor([0])), select(whole, torch.tensor([False, True, True]))]
    ).labels.tolist() == [1, 0, -1]
    assert next(iter(select(whole, torch.tensor([1])))) == {"label": 0, "prob": 0.5, "exit": None}
