"""How many tokens a tier is given at a time: the fewest that are about as fast as any, by the texts that come to it."""

from __future__ import annotations

import pytest
from tier_samples import count_words, make_texts

from moco_rt import Cascade
from moco_rt.tuning import batch_tokens
from moco_rt.tuning.batch_tokens import tune_batch_tokens

INF = float("inf")
SMALL, MIDDLE, LARGE = batch_tokens._CANDIDATES


@pytest.fixture
def tiers(tiny_bert, word_tokenizer):
    pairs = [(tiny_bert(2, seed=seed), word_tokenizer) for seed in (1, 3)]
    return Cascade(pairs, thresholds=[0.8]).tiers


@pytest.fixture
def timed(monkeypatch):
    """`timed(seconds by pack)`: what a clock says; returns what was timed."""

    def fake(seconds):
        seen = []

        def say(tier, rows, pack):
            seen.append((tier, [len(row["input_ids"]) for row in rows], pack))
            return seconds(tier, pack) if callable(seconds) else seconds[pack]

        monkeypatch.setattr(batch_tokens, "_seconds", say)
        return seen

    return fake


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ((1.0, 1.0, 1.0), SMALL),
        ((1.02, 1.0, 1.01), SMALL),
        ((1.05, 1.0, 0.99), MIDDLE),
        ((1.05, 1.05, 1.0), LARGE),
        ((1.0, 2.0, 3.0), SMALL),
    ],
    ids=str,
)
def test_the_smallest_of_those_about_as_fast_as_any_is_taken(tiers, timed, seconds, best):
    timed(dict(zip(batch_tokens._CANDIDATES, seconds, strict=True)))
    tuned = tune_batch_tokens(tiers, make_texts(50))
    assert [tier.batch_tokens for tier in tuned] == [best, best]


def test_the_fastest_of_several_runs_counts(tiers, timed):
    slow_at_first = iter([9.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0])
    timed(lambda tier, _: next(slow_at_first) if tier is tiers[0] else 1.0)
    tuned = tune_batch_tokens(tiers, make_texts(50))
    assert tuned[0].batch_tokens == SMALL


def test_every_tier_has_its_own(tiers, timed):
    best = dict(zip(tiers, (MIDDLE, LARGE), strict=True))
    timed(lambda tier, pack: 1.0 if pack == best[tier] else 2.0)
    tuned = tune_batch_tokens(tiers, make_texts(50))
    assert [tier.batch_tokens for tier in tuned] == [MIDDLE, LARGE]


def test_a_tier_is_timed_by_the_texts_that_come_to_it(tiers, timed):
    seen, texts = timed(dict.fromkeys(batch_tokens._CANDIDATES, 1.0)), make_texts(100)
    who = Cascade.of(tiers, None).predict(texts).tier
    tune_batch_tokens(tiers, texts)
    lengths = [len(row["input_ids"]) for row in tiers[0].encode(texts)]
    expected = [lengths, [length for length, tier in zip(lengths, who.tolist(), strict=True) if tier == 1]]
    assert 0 < len(expected[1]) < 100
    for tier, of_these in zip(tiers, expected, strict=True):
        runs = [(sorted(rows), pack) for timed_tier, rows, pack in seen if timed_tier is tier]
        assert all(rows == sorted(of_these) for rows, _ in runs)
        assert {pack for _, pack in runs} == set(batch_tokens._CANDIDATES)


def test_of_many_texts_some_are_timed(tiers, timed, monkeypatch):
    monkeypatch.setattr(batch_tokens, "_TOKENS", 40)
    seen = timed(dict.fromkeys(batch_tokens._CANDIDATES, 1.0))
    tune_batch_tokens(tiers, ["a good film"] * 50)  # 5 tokens each
    assert {len(rows) for _, rows, _ in seen} == {8}


def test_one_text_of_too_many_tokens_is_timed(tiers, timed, monkeypatch):
    monkeypatch.setattr(batch_tokens, "_TOKENS", 3)
    seen = timed(dict.fromkeys(batch_tokens._CANDIDATES, 1.0))
    tune_batch_tokens(tiers, ["a good film"])
    assert {len(rows) for _, rows, _ in seen} == {1}


def test_a_function_has_none_and_hands_on_what_it_does_not_settle(tiers, timed):
    seen, texts = timed(dict.fromkeys(batch_tokens._CANDIDATES, 1.0)), make_texts(60)
    cascade = Cascade([count_words, (tiers[1].model, tiers[1].tokenizer)], thresholds=[0.7])
    tuned = tune_batch_tokens(cascade.tiers, texts)
    assert [tier.batch_tokens for tier in tuned] == [None, SMALL]
    left = int((cascade.predict(texts).tier == 1).sum())
    assert 0 < left < 60
    assert {len(rows) for _, rows, _ in seen} == {left}


def test_it_is_timed_on_this_machine(tiers):
    tuned = tune_batch_tokens(tiers, make_texts(50))
    assert all(tier.batch_tokens in batch_tokens._CANDIDATES for tier in tuned)


@pytest.mark.parametrize("first", ["model", "function"])
@pytest.mark.parametrize("second", ["model", "function"])
def test_a_tier_to_which_no_text_comes_is_not_asked(tiny_bert, word_tokenizer, first, second):
    def never(texts):
        assert texts, "asked for nothing"
        return count_words(texts)

    pair = (tiny_bert(2), word_tokenizer)
    kinds = {"model": pair, "function": never}
    cascade = Cascade([kinds[first], kinds[second], pair], thresholds=[-INF, -INF])
    tuned = tune_batch_tokens(cascade.tiers, make_texts(20))
    assert tuned[2].batch_tokens is None
