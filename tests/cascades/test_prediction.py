"""A cascade over many texts: parts in the order of the texts, and what an error leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from thread_counts import assert_no_threads_of_torch
from tier_samples import assert_same_bits, count_words, make_texts

from moco_rt import Cascade, TierError
from moco_rt.cascades.prediction import InOrder, predict_parts
from moco_rt.inputs import prefetch
from moco_rt.runtime.outputs import Prediction, concatenate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pair(tiny_bert, word_tokenizer):
    return tiny_bert(2, seed=3), word_tokenizer


@pytest.fixture
def cascade(pair):
    return Cascade([count_words, pair], thresholds=[0.7])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 10)
    monkeypatch.setattr("moco_rt.cascades.prediction.CHUNK_TEXTS", 10)


def part(places):
    """Of each place the label 10 * place."""
    column = torch.tensor(places, dtype=torch.int64)
    return Prediction(10 * column, torch.rand(len(places), 2), column, column, torch.zeros_like(column))


# In order


def test_rows_are_given_away_when_all_before_them_are_finished():
    in_order = InOrder(2)
    assert in_order.complete() is None
    in_order.add(([2, 0], part([2, 0])))
    assert in_order.complete().labels.tolist() == [0]
    assert in_order.complete() is None
    in_order.add(([5, 4], part([5, 4])))
    assert in_order.complete() is None
    in_order.add(([1], part([1])))
    assert in_order.complete().labels.tolist() == [10, 20]
    assert in_order.rest(7).labels.tolist() == [-1, 40, 50, -1]
    assert in_order.rest(7) is None


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_first_all_rows_are_given_away_once(seed):
    rng = np.random.default_rng(seed)
    in_order, found = InOrder(2), []
    for places in np.array_split(rng.permutation(60), 13):
        in_order.add((places.tolist(), part(places.tolist())))
        found.append(in_order.complete())
    assert concatenate([some for some in found if some is not None]).labels.tolist() == [10 * i for i in range(60)]


@pytest.mark.usefixtures("small_chunks")
def test_parts_are_what_predict_says_and_come_before_all_is_read(cascade):
    texts, read = make_texts(100), []
    parts = predict_parts(cascade, (read.append(text) or text for text in texts))
    first = next(parts)
    assert 0 < len(first) <= len(read) < 100
    assert_same_bits(concatenate([first, *parts]), cascade.predict(texts))


# Rows


def test_rows_name_class_site_and_tier(cascade):
    texts = make_texts(50)
    found = cascade.predict(texts)
    rows = list(found)
    assert [row["tier"] for row in rows] == found.tier.tolist()
    assert [row["label"] for row in rows] == [f"LABEL_{label}" for label in found.labels.tolist()]
    assert set(rows[0]) == {"label", "prob", "exit", "tier"}
    places, part = next(cascade.stream(texts))
    assert list(part) == [rows[place] for place in places]


def test_columns_name_the_texts(cascade):
    texts = make_texts(30)
    rows = [{"review": text} for text in texts]
    assert_same_bits(cascade.predict(rows, columns="review"), cascade.predict(texts))
    found = dict(
        pair for places, part in cascade.stream(rows, columns="review") for pair in zip(places, part, strict=True)
    )
    assert [found[place] for place in range(30)] == list(cascade.predict(texts))


# What an error leaves


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [0, 3, 25])
def test_texts_before_one_that_cannot_be_read_are_answered(cascade, count):
    texts = make_texts(count)
    with pytest.raises(TypeError, match=f"got NoneType at place {count}") as caught:
        cascade.predict(iter([*texts, None]))
    if count == 0:
        assert getattr(caught.value, "prediction", None) is None
    else:
        assert_same_bits(caught.value.prediction, cascade.predict(texts))


@pytest.mark.usefixtures("small_chunks")
def test_a_tier_that_fails_late_leaves_what_was_finished(pair):
    def fails(texts):
        if "the end" in texts:
            raise ValueError("no answer")
        return count_words(texts)

    texts = make_texts(45)
    expected = Cascade([count_words, pair], thresholds=[0.7]).predict(texts)
    with pytest.raises(TierError) as caught:
        Cascade([fails, pair], thresholds=[0.7]).predict([*texts, "the end"])
    found = caught.value.prediction
    done = found.labels >= 0
    assert done[:40].sum() > 30
    assert len(found) == 46
    assert torch.equal(found.probs[done], expected.probs[done[:45]])


SURROGATE = "good \ud83d"


def test_what_is_not_unicode_is_refused_in_a_list(cascade, one_line_error):
    with one_line_error(ValueError, "(got a lone surrogate U+D83D as character 5 of the text at place 1)"):
        cascade.predict(["good", SURROGATE])


def test_what_is_not_unicode_is_skipped_alone(pair, caplog):
    small = Cascade([pair, pair], thresholds=[0.7])
    texts = make_texts(9)
    found = small.predict([*texts[:4], SURROGATE, *texts[4:]], on_error="skip")
    assert found.labels[4] == -1
    rest = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert torch.equal(found.probs[rest], small.predict(texts).probs)
    assert "texts must be valid Unicode (got a lone surrogate U+D83D as character 5 of a text)" in caplog.text
    streamed = dict(
        pair
        for places, part in small.stream([SURROGATE, "good"], on_error="skip")
        for pair in zip(places, part, strict=True)
    )
    assert (streamed[0]["label"], streamed[1]["tier"]) == (None, int(small.predict(["good"]).tier))


# Threads


def test_few_texts_are_answered_without_torchs_own_threads(cascade):
    texts = make_texts(8)
    assert set(cascade.predict(texts).tier.tolist()) == {0, 1}
    assert_no_threads_of_torch(lambda: cascade.predict(texts))
