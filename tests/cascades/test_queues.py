"""TierQueues: when a tier is run, on which rows, and what becomes of those it does not settle."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import pytest
import torch

from moco_rt.cascades.queues import QueuedText, TierError, TierQueues, gather, unanswered
from moco_rt.cascades.tier import TierOutput
from moco_rt.runtime.outputs import Prediction


class Stub:
    """A tier that settles the texts it knows, and writes down what it is asked."""

    def __init__(self, knows=(), tokenizer="words", batch=100, breaks=()):
        self.knows, self.tokenizer, self.batch, self.breaks = knows, tokenizer, batch, breaks
        self.encoded, self.answered = [], []

    def tokenises_like(self, other):
        return self.tokenizer == other.tokenizer

    def encode(self, texts):
        if "encode" in self.breaks:
            raise KeyError("encode")
        self.encoded.append(list(texts))
        return [(self.tokenizer, text) for text in texts]

    def batches(self, rows):
        return [list(range(i, min(i + self.batch, len(rows)))) for i in range(0, len(rows), self.batch)]

    def answer(self, rows):
        assert all(tokenizer == self.tokenizer for tokenizer, _ in rows)
        texts = [text for _, text in rows]
        self.answered.append(texts)
        if set(texts) & set(self.breaks):
            raise ValueError("no answer")
        settled = torch.tensor([self.knows is all or text in self.knows for text in texts])
        logits = torch.tensor([[float(len(text)), 2.0] for text in texts])
        rule = torch.arange(len(texts))
        return TierOutput(logits, rule + 10, rule, settled)


def wait(texts, deadline=math.inf, first=0):
    return [QueuedText(place, text, None, deadline) for place, text in enumerate(texts, first)]


def who(found):
    """Tier by place."""
    return {place: tier for places, part in found for place, tier in zip(places, part.tier.tolist(), strict=True)}


def make(*tiers, full_at=1, on_error="raise"):
    return TierQueues(tiers, [full_at] * len(tiers), 2, on_error)


# When a tier runs


def test_a_pool_runs_when_it_is_full():
    tier = Stub(all)
    pools = make(tier, full_at=3)
    pools.add(wait("ab"))
    assert list(pools.run_due()) == []
    pools.add(wait("c", first=2))
    assert who(pools.run_due()) == {0: 0, 1: 0, 2: 0}
    assert tier.answered == [["a", "b", "c"]]
    assert list(pools.run_due()) == list(pools.flush()) == []


def test_what_one_tier_does_not_know_waits_for_the_next_to_be_full():
    small, large = Stub("a"), Stub(all)
    pools = make(small, large, full_at=4)
    pools.add(wait("abac"))
    assert who(pools.run_due()) == {0: 0, 2: 0}
    assert large.answered == []
    pools.add(wait("bcba", first=4))
    assert who(pools.run_due()) == {7: 0, 1: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    assert large.answered == [["b", "c", "b", "c", "b"]]


def test_of_two_tiers_that_are_due_the_last_runs_first():
    small, large = Stub("a"), Stub(all)
    pools = TierQueues([small, large], [1, 100], 2, "raise")
    pools.add(wait("b", 5.0))
    assert list(pools.run_due(0.0)) == []
    pools.add(wait("ab", 5.0, first=1))
    assert list(who(pools.run_due(5.0)).items()) == [(0, 1), (1, 0), (2, 1)]
    assert large.answered == [["b"], ["b"]]


def test_a_pool_runs_when_the_deadline_of_one_row_has_come():
    small, large = Stub("a"), Stub(all)
    pools = make(small, large, full_at=100)
    assert pools.deadline() == math.inf
    pools.add([*wait("ab", 7.0), *wait("ca", 5.0, 2)])
    assert pools.deadline() == 5.0
    assert list(pools.run_due(4.9)) == []
    assert who(pools.run_due(5.0)) == {0: 0, 3: 0, 2: 1, 1: 1}  # row 1 was in the pool that row 2 had run
    assert pools.deadline() == math.inf


def test_rows_that_go_on_keep_their_deadline():
    small, large = Stub("a"), Stub(all)
    pools = TierQueues([small, large], [2, 100], 2, "raise")
    pools.add([*wait("a", 1.0), *wait("b", 3.0, 1)])
    assert who(pools.run_due(0.0)) == {0: 0}
    assert pools.deadline() == 3.0
    assert list(pools.run_due(2.9)) == []
    assert who(pools.run_due(3.0)) == {1: 1}


def test_flushing_runs_all_from_the_first_to_the_last():
    tiers = [Stub("a"), Stub("b"), Stub(all)]
    pools = make(*tiers, full_at=100)
    pools.add(wait("cbabc"))
    assert list(who(pools.flush()).items()) == [(2, 0), (1, 1), (3, 1), (0, 2), (4, 2)]
    assert [tier.answered for tier in tiers] == [[["c", "b", "a", "b", "c"]], [["c", "b", "b", "c"]], [["c", "c"]]]
    assert list(pools.flush()) == []


def test_nobody_runs_a_tier_without_rows():
    small, large = Stub(all), Stub(all)
    pools = make(small, large, full_at=100)
    pools.add(wait("ab"))
    list(pools.flush())
    assert (large.encoded, large.answered) == ([], [])


def test_a_pool_is_run_in_the_tiers_batches():
    tier = Stub("abc", batch=2)
    pools = make(tier, Stub(all), full_at=5)
    pools.add(wait("aabzc"))
    found = list(pools.run_due())
    assert tier.answered == [["a", "a"], ["b", "z"], ["c"]]
    assert [places for places, _ in found] == [[0, 1], [2], [4]]


def test_answers_belong_to_their_rows():
    pools = make(Stub(["x", "xxx"]), Stub(all), full_at=4)
    pools.add(wait(["x", "xx", "xxx", "xxxx"], first=5))
    (places, part), _ = [*pools.run_due(), *pools.flush()]
    assert places == [5, 7]
    assert torch.equal(part.probs, torch.tensor([[1.0, 2.0], [3.0, 2.0]]).softmax(1))
    assert (part.labels.tolist(), part.tier.tolist()) == ([1, 0], [0, 0])
    assert (part.exit_site.tolist(), part.exit_rule.tolist()) == ([10, 12], [0, 2])


# Who tokenises


@pytest.mark.parametrize("tokenizers", ["ppp", "ppq", "pqq", "pqp"])
@pytest.mark.parametrize("ahead", [False, True], ids=["texts", "encoded"])
def test_rows_are_encoded_anew_only_where_the_tokenizer_changes(tokenizers, ahead):
    tiers = [Stub("a", tokenizers[0]), Stub("b", tokenizers[1]), Stub(all, tokenizers[2])]
    pools = make(*tiers)
    rows = tiers[0].encode("abc") if ahead else [None] * 3
    pools.add([QueuedText(place, text, row) for place, (text, row) in enumerate(zip("abc", rows, strict=True))])
    assert who(pools.run_due()) == {0: 0, 1: 1, 2: 2}
    rest = [["b", "c"], ["c"]]
    assert tiers[0].encoded == [["a", "b", "c"]]
    for (tier, after), texts in zip(pairwise(tiers), rest, strict=True):
        assert after.encoded == ([] if after.tokenizer == tier.tokenizer else [texts])


# What becomes of errors


@pytest.mark.parametrize("how", ["", "Raise", None], ids=repr)
def test_an_unknown_way_with_errors_is_refused(how, one_line_error):
    with one_line_error(ValueError, f"on_error must be raise or skip (got {how!r})"):
        make(Stub(all), on_error=how)


@pytest.mark.parametrize(("breaks", "said"), [("c", "ValueError: no answer"), (["encode"], "KeyError: 'encode'")])
@pytest.mark.parametrize("flush", [True, False])
def test_an_error_names_its_tier_after_what_was_done_before(breaks, said, flush):
    pools = make(Stub("a"), Stub(all, "other", batch=1, breaks=breaks))
    pools.add(wait("abcb"))
    found = []
    with pytest.raises(TierError) as caught:
        found.extend(pools.flush() if flush else pools.run_due())
    assert str(caught.value) == f"tier 1 failed: {said}"
    assert (caught.value.tier, caught.value.prediction) == (1, None)
    assert type(caught.value.__cause__) in (ValueError, KeyError)


def test_what_was_done_before_an_error_has_been_given_away():
    pools = make(Stub("a"), Stub(all, batch=1, breaks="c"))
    pools.add(wait("abcb"))
    found = pools.flush()
    assert who([next(found), next(found)]) == {0: 0, 1: 1}
    with pytest.raises(TierError):
        next(found)


def test_the_rows_of_a_batch_that_fails_can_be_skipped(caplog):
    pools = make(Stub("a"), Stub(all, batch=2, breaks="c"), on_error="skip")
    pools.add(wait("abcbbcbab"))
    with caplog.at_level(logging.WARNING):
        found = list(pools.flush())
    assert who(found) == {0: 0, 7: 0, 1: -1, 2: -1, 3: 1, 4: 1, 5: -1, 6: -1, 8: 1}
    assert caplog.messages == ["tier 1 failed on 2 texts, which are left out: no answer"] * 2


def test_beside_a_text_that_cannot_be_encoded_the_others_stay_together(monkeypatch):
    tier = Stub(all)
    encode = tier.encode
    monkeypatch.setattr(tier, "encode", lambda texts: encode(texts) if "x" not in texts else 1 / 0)
    pools = make(tier, on_error="skip")
    pools.add(wait("abcdexghijklmnop"))
    assert who(pools.flush()) == {place: -1 if place == 5 else 0 for place in range(16)}
    assert ["".join(texts) for texts in tier.answered] == ["abcd", "e", "gh", "ijklmnop"]


def test_all_rows_are_skipped_where_they_cannot_be_encoded(caplog):
    pools = make(Stub("a"), Stub(all, "other", breaks=["encode"]), on_error="skip")
    pools.add(wait("abc"))
    assert who(pools.flush()) == {0: 0, 1: -1, 2: -1}
    assert caplog.text.count("tier 1 failed on 1 texts, which are left out") == 2


# All of it, by text


def part(tier, rows, label=1):
    column = torch.arange(rows)
    return Prediction(torch.full((rows,), label), torch.rand(rows, 3), column, column + 5, torch.full((rows,), tier))


def test_what_was_found_is_gathered_by_text():
    first, second = part(0, 2, label=0), part(1, 1)
    whole = gather([([4, 0], first), ([1], unanswered(1, 3)), ([2], second)], 6, 3)
    assert whole.labels.tolist() == [0, -1, 1, -1, 0, -1]
    assert whole.tier.tolist() == [0, -1, 1, -1, 0, -1]
    assert whole.exit_site.tolist() == [1, -1, 0, -1, 0, -1]
    assert whole.exit_rule.tolist() == [6, -1, 5, -1, 5, -1]
    assert torch.equal(whole.probs[[4, 0, 2]], torch.cat([first.probs, second.probs]))
    assert whole.probs[[1, 3, 5]].isnan().all()
    assert whole.probs.shape == (6, 3)


def test_of_nothing_nothing_is_gathered():
    whole = gather([], 2, 3)
    assert (whole.labels.tolist(), whole.tier.tolist()) == ([-1, -1], [-1, -1])
    assert (whole.exit_site.tolist(), whole.exit_rule.tolist()) == ([-1, -1], [-1, -1])
    assert whole.probs.isnan().all()
