"""`cascade.stream`: what `predict` says, as texts come; nobody waits without end, and nothing is left behind."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from tier_samples import count_words, make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition, TierError
from moco_rt.cascades import streaming
from moco_rt.cascades.queues import gather

INF = float("inf")
#: Longer than any of these tests takes, in milliseconds; and what is waited for what must come, in seconds.
FOREVER, PATIENCE = 1e9, 60

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pairs(tiny_bert, word_tokenizer):
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    with_exits = EarlyExitTextClassificationModel(tiny_bert(3, seed=4))
    with_exits.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
    return [(with_exits, word_tokenizer), (tiny_bert(3, seed=3), word_tokenizer)]


@pytest.fixture
def made(pairs):
    """`made(tier, ...)`: before two models; they are sure above 0.8."""
    return lambda *first: Cascade([*first, *pairs], thresholds=[0.8] * (len(first) + 1))


class Counting:
    """A function that settles half of the texts, and writes down how many it is given at a time."""

    def __init__(self):
        self.sizes = []

    def __call__(self, texts):
        self.sizes.append(len(texts))
        return [[0.0, 9.0 if len(text) % 2 else 0.1] for text in texts]


def places_of(found):
    return [place for places, _ in found for place in places]


def until_it_fails(stream):
    """What came, and with which error it ended."""
    found = []
    try:
        found.extend(iter(lambda: next(stream), None))
    except Exception as error:
        return found, error
    raise AssertionError("it did not fail")


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name == "moco_rt stream"]


def assert_reading_ends():
    for thread in reading_threads():
        thread.join(PATIENCE)
    assert not reading_threads()


# What is answered


@pytest.mark.parametrize("max_wait_ms", [0, 0.1, 5.0, FOREVER, INF])
@pytest.mark.parametrize("count", [1, 63, 64, 300])
def test_answers_are_those_of_predict_and_every_text_has_one(made, max_wait_ms, count):
    cascade, texts = made(count_words), make_texts(count)
    found = list(cascade.stream((text for text in texts), max_wait_ms=max_wait_ms))
    assert sorted(places_of(found)) == list(range(count))
    whole, expected = gather(found, count, 2), cascade.predict(texts)
    for name in ("labels", "probs", "exit_site", "exit_rule", "tier"):
        assert torch.equal(getattr(whole, name), getattr(expected, name))
    assert_reading_ends()


def test_pairs_of_texts_are_answered(made):
    pairs = list(zip(make_texts(100, seed=1), make_texts(100, seed=2), strict=True))
    cascade = made(count_words)
    assert torch.equal(gather(list(cascade.stream(pairs)), 100, 2).probs, cascade.predict(pairs).probs)


def test_without_texts_there_are_no_answers(made):
    assert list(made().stream(iter([]))) == []


# When


@pytest.mark.parametrize("max_wait_ms", [0, 20])
def test_an_answer_comes_before_the_next_text_does(made, max_wait_ms):
    cascade, texts = made(Counting()), make_texts(6)
    answered = [threading.Event() for _ in texts]

    def one_by_one():
        for place, text in enumerate(texts):
            yield text
            assert answered[place].wait(PATIENCE)

    for places, _ in cascade.stream(one_by_one(), max_wait_ms=max_wait_ms):
        for place in places:
            answered[place].set()
    assert all(event.is_set() for event in answered)


def test_who_may_wait_runs_in_full_batches(made, monkeypatch):
    monkeypatch.setattr(streaming, "_AHEAD", 10)  # so that no more are there at once
    first, second = Counting(), Counting()
    list(made(first, second).stream(make_texts(1000), max_wait_ms=FOREVER))
    assert sum(first.sizes) == 1000
    for sizes in (first.sizes, second.sizes):
        assert len(sizes) > 1
        assert min(sizes[:-1]) >= 64
        assert max(sizes) < 200


@pytest.mark.parametrize("max_wait_ms", [FOREVER, 1e15, INF])
def test_who_may_wait_waits_for_texts_that_take_their_time(made, max_wait_ms):
    def texts():
        yield "good"
        time.sleep(0.2)
        yield "bad"

    first = Counting()
    list(made(first).stream(texts(), max_wait_ms=max_wait_ms))
    assert first.sizes == [2]


def test_a_full_batch_runs_though_all_may_wait(made):
    answered, early = threading.Event(), []

    def texts():
        yield from ["good"] * 63
        time.sleep(0.2)
        early.append(answered.is_set())
        yield "good"
        assert answered.wait(PATIENCE)
        yield "good"

    sure = made(lambda texts: [[0.0, 9.0]] * len(texts))
    for _ in sure.stream(texts(), max_wait_ms=FOREVER):
        answered.set()
    assert early == [False]


def test_texts_are_read_no_further_ahead_than_some(made, monkeypatch):
    monkeypatch.setattr(streaming, "_AHEAD", 10)
    read = []

    def texts():
        for text in make_texts(500):
            read.append(text)
            yield text

    stream = made().stream(texts(), max_wait_ms=0)
    next(stream)
    time.sleep(0.2)
    # One batch at most is with the first tier, as many wait, and one has just been read.
    assert len(read) < 100
    stream.close()
    assert_reading_ends()


# What becomes of errors, and of who goes away


def test_what_reading_raises_comes_after_the_answers(made):
    def texts():
        yield from make_texts(70)
        raise OSError("the line is dead")

    stream = made().stream(texts(), max_wait_ms=FOREVER)
    found, error = until_it_fails(stream)
    assert (type(error), str(error)) == (OSError, "the line is dead")
    assert sorted(places_of(found)) == list(range(70))
    assert_reading_ends()


def test_what_is_not_a_text_is_refused_by_its_place_after_the_answers(made):
    found, error = until_it_fails(made().stream(["good", "bad", None, "film"]))
    assert type(error) is TypeError
    assert str(error) == "texts must hold texts or pairs of texts (got NoneType at place 2)"
    assert sorted(places_of(found)) == [0, 1]


def test_a_tier_that_fails_is_named_and_reading_ends(made):
    def fails(_):
        raise ValueError("no answer")

    stream = made(fails).stream(iter(lambda: "good", None))
    with pytest.raises(TierError, match="tier 0 failed: ValueError: no answer") as caught:
        next(stream)
    assert (caught.value.tier, caught.value.prediction) == (0, None)
    assert_reading_ends()


def test_texts_that_fail_can_be_skipped(made, caplog):
    def fails(texts):
        if any("but" in text for text in texts):
            raise ValueError("no answer")
        return count_words(texts)

    def texts():
        yield "but"
        assert answered.wait(PATIENCE)
        yield from ["good good good good", "bad"]

    answered = threading.Event()
    found = []
    for places, part in made(fails).stream(texts(), max_wait_ms=0, on_error="skip"):
        found.append((places, part))
        answered.set()
    assert sorted(places_of(found)) == [0, 1, 2]
    places, part = found[0]
    assert places == [0]
    assert (part.labels.tolist(), part.tier.tolist()) == ([-1], [-1])
    assert (part.exit_site.tolist(), part.exit_rule.tolist()) == ([-1], [-1])
    assert "tier 0 failed on 1 texts" in caplog.text
    assert part.probs.shape == (1, 2)
    assert part.probs.isnan().all()


def test_who_leaves_early_ends_the_reading(made, monkeypatch):
    monkeypatch.setattr(streaming, "_AHEAD", 10)  # the reader waits for room
    stream = made().stream(iter(lambda: "good film", None))
    next(stream)
    assert reading_threads()
    stream.close()
    assert_reading_ends()


def test_nothing_is_read_before_an_answer_is_asked_for(made):
    read = []
    made().stream(map(read.append, "abc"))
    assert (read, reading_threads()) == ([], [])


@pytest.mark.parametrize("max_wait_ms", [-1, -0.1, -INF, float("nan")])
def test_a_negative_wait_is_refused_at_once(made, max_wait_ms, one_line_error):
    with one_line_error(ValueError, f"max_wait_ms must not be negative (got {max_wait_ms})"):
        made().stream(["good"], max_wait_ms=max_wait_ms)


def test_one_str_is_refused_at_once(made, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        made().stream("a good film")
