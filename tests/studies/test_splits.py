"""Which texts do which job: equal ones always the same, and as one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moco_rt.statistics.bounds import fixed_sequence
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.splits import Equals, first_of_equals, split_texts


def tokenise(texts):
    """Lower-cases, and knows words by their numbers: "7 12" -> 7, 12."""
    return [{"input_ids": [int(word) for word in text.lower().split()]} for text in texts]


def keys(rows):
    return [tuple(row["input_ids"]) for row in rows]


def jobs(split):
    return [keys(split.rows[job]) for job in (split.fit, split.ordering, split.calibration)]


@pytest.mark.parametrize("copies", [1, 2, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_rows_never_do_two_jobs_and_stand_once(copies, seed):
    texts = [str(number) for number in range(500)] * copies
    texts = [f" {text}  " if place % 3 else text for place, text in enumerate(texts)]  # other texts, equal tokens
    fit, ordering, calibration = jobs(split_texts(texts, tokenise, seed=seed))
    assert (len(fit), len(ordering), len(calibration)) == (250, 75, 175)
    assert len({*fit, *ordering, *calibration}) == 500


def test_copies_and_labels_are_kept_for_the_rows_that_certify():
    texts = [str(number % 400) for number in range(1000)]
    labels = np.arange(1000) % 7
    split = split_texts(texts, tokenise, labels=labels)
    calibration, in_all = keys(split.rows[split.calibration]), split.calibration_in_all
    mine = [place for place, text in enumerate(texts) if (int(text),) in set(calibration)]
    assert [calibration[place] for place in in_all.distinct] == [(int(texts[place]),) for place in mine]
    np.testing.assert_array_equal(in_all.labels, labels[mine])


def test_a_text_that_also_stands_in_calibration_certifies_only(caplog):
    texts, calibration = [str(number) for number in range(400)], [str(number) for number in [*range(300, 480)] * 2]
    fit, ordering, certifying = jobs(split_texts(texts, tokenise, calibration=calibration, labels=np.zeros(360, int)))
    assert certifying == [(number,) for number in range(300, 480)]
    assert sorted([*fit, *ordering]) == [(number,) for number in range(300)]
    assert caplog.messages == ["100 texts also stand in calibration: they certify, and are left out of the fitting"]


def test_texts_that_share_nothing_say_nothing(caplog):
    split_texts([str(n) for n in range(400)], tokenise, calibration=[str(n) for n in range(400, 480)])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("distinct", "copies", "words"), [(200, 10, "(got 100, 30 and 70)"), (1, 5000, "(got 0, 0 and 1)")]
)
def test_too_few_distinct_rows_are_refused_however_many_copies_there_are(distinct, copies, words, one_line_error):
    with one_line_error(
        ValueError, f"texts must leave at least 50 distinct rows to fit, to search and to certify on {words}"
    ):
        split_texts([str(number) for number in range(distinct)] * copies, tokenise)


def test_too_few_distinct_rows_to_certify_are_refused(one_line_error):
    with one_line_error(ValueError, "(got 240, 60 and 49)"):
        split_texts([str(n) for n in range(300)], tokenise, calibration=[str(n) for n in range(300, 349)] * 9)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"input_ids": [1, 2]}, {"input_ids": [1, 2]}, True),
        ({"input_ids": [1, 2]}, {"input_ids": [2, 1]}, False),
        ({"input_ids": [1, 2]}, {"input_ids": [1, 2, 0]}, False),
        ({"input_ids": [1, 2], "token_type_ids": [0, 0]}, {"token_type_ids": [0, 0], "input_ids": [1, 2]}, True),
        ({"input_ids": [1, 2], "token_type_ids": [0, 0]}, {"input_ids": [1, 2], "token_type_ids": [0, 1]}, False),
    ],
    ids=["same", "order", "length", "order of fields", "pairs cut elsewhere"],
)
def test_rows_are_equal_if_tokens_and_token_types_are(one, other, equal):
    assert first_of_equals([one, other]).tolist() == ([0, 0] if equal else [0, 1])


# Tiers that tell texts apart which the last takes for one


def as_they_are(texts):
    """What a function takes."""
    return list(texts)


def short(texts):
    """Two tokens of each text."""
    return [{"input_ids": row["input_ids"][:2]} for row in tokenise(texts)]


def test_of_texts_that_the_last_tier_takes_for_one_a_random_one_is_looked_at_and_counts_for_its_copies_alone():
    spaced = [f" {number}" for number in range(400)]
    texts = [*(str(number) for number in range(400)), *spaced, *spaced]
    labels = np.repeat([0, 1, 1], 400)
    split = split_texts(texts, tokenise, labels=labels, before=[as_they_are])
    assert len(split.rows) == len({*keys(split.rows)}) == 400
    assert sum(text in spaced for text in split.texts) == pytest.approx(400 * 2 / 3, rel=0.15)  # as often as it stands
    certifying, in_all = split.texts[split.calibration], split.calibration_in_all
    copies = [2 if text in spaced else 1 for text in certifying]
    assert np.bincount(in_all.distinct).tolist() == copies
    assert [int(certifying[place] in spaced) for place in in_all.distinct] == in_all.labels.tolist()
    assert split_texts(texts, tokenise, before=[as_they_are]).texts == split.texts


@pytest.mark.parametrize("calibration", [False, True])
def test_texts_that_an_earlier_tier_takes_for_one_are_shared_out_as_any_others(calibration):
    """Of those that begin alike each job has its share: what certifies is a random draw of what the last tier reads."""
    alike = [f"0 0 {number}" for number in range(600)]
    texts = [*alike, *(f"{number} 1 2" for number in range(1400))]
    certifying = [f"0 0 {number}" for number in range(600, 800)] if calibration else None
    split = split_texts(texts, tokenise, calibration=certifying, before=[short])
    assert len(split.rows) == 2200 if calibration else 2000
    for job in (split.fit, split.ordering) if calibration else (split.fit, split.ordering, split.calibration):
        share = np.mean([text in alike for text in split.texts[job]])
        assert share == pytest.approx(0.3, abs=0.06)


def test_copies_are_texts_that_all_tiers_take_for_one():
    unit, first, second = np.array([0, 1, 2, 3, 3]), np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 4])
    assert Equals.of(unit, [first, second]).copies.tolist() == [0, 1, 2, 3, 4]
    assert Equals.of(np.array([0, 0, 0]), [np.array([0, 1, 0])]).copies.tolist() == [0, 1, 0]
    assert Equals.of(unit).copies.tolist() == unit.tolist()


def test_texts_and_pairs_are_equal_if_they_are_the_same():
    assert first_of_equals(["a", "A", "a", ("a", "b"), ["a", "b"], ("b", "a")]).tolist() == [0, 1, 0, 3, 3, 5]


# The guarantee

ALPHA, DELTA, DRAWS, DISTINCT = 0.05, 0.05, 400, 400


def broken_share(certify_copies):
    """How often a policy that errs a little too often is certified from texts of which each stands there five times."""
    rng, broken = np.random.default_rng(0), 0
    for draw in range(DRAWS):
        wrong = rng.random(DISTINCT) < ALPHA
        split = split_texts([str(number) for number in range(DISTINCT)] * 5, tokenise, seed=draw)
        found = wrong[[key[0] for key in keys(split.rows[split.calibration])]]
        if certify_copies:  # what one must not do
            found = found[split.calibration_in_all.distinct]
        broken += fixed_sequence(np.array([found.sum()]), len(found), Guarantee(ALPHA, DELTA)) == 0
    return broken / DRAWS


def test_a_certificate_from_repeated_texts_is_broken_no_more_often_than_it_says():
    assert broken_share(certify_copies=False) <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)


def test_the_simulation_catches_who_counts_copies():
    assert broken_share(certify_copies=True) > 2 * DELTA
