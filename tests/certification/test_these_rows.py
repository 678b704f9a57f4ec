"""These rows: how many are drawn, which policy is taken, and how often what is promised of the answers is broken."""

from __future__ import annotations

import numpy as np
import pytest
from rates import at_most

from moco_rt.certification.rows_certificate import RowsCertificate
from moco_rt.certification.these_rows import PoliciesToCompare, RowsWish, draw_rows, in_full
from moco_rt.statistics.finite_rows import allowed_found, ever_differing, most_differing, rows_to_draw

DRAWS = 1000
ONE_PERCENT = RowsWish(0.99)


def make_policies(shares, seconds=None, full=1.0, drawn=1.0):
    """Policies that are ever faster."""
    seconds = np.linspace(0.5, 0.1, len(shares)) if seconds is None else np.array(seconds, float)
    return PoliciesToCompare(np.array(shares, float), seconds, full, drawn, 10 + np.arange(len(shares)))


# The draw


def test_every_row_is_drawn_as_often_as_any_other():
    drawn = np.array([draw_rows(40, 10, seed) for seed in range(4000)])
    assert (drawn.sum(axis=1) == 10).all()
    spread = 4 * np.sqrt(0.25 * 0.75 / len(drawn))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.25, atol=spread)
    together = (drawn.T.astype(float) @ drawn)[np.triu_indices(40, 1)] / len(drawn)
    np.testing.assert_allclose(together, 10 * 9 / (40 * 39), atol=spread)  # and every two of them


def test_a_draw_is_the_same_again_and_another_with_another_seed():
    assert (draw_rows(1000, 100, 3) == draw_rows(1000, 100, 3)).all()
    assert (draw_rows(1000, 100, 3) != draw_rows(1000, 100, 4)).any()
    assert draw_rows(5, 5, 0).all()
    assert not draw_rows(5, 0, 0).any()


# How many rows are drawn


@pytest.mark.parametrize("rows", [1, 50, 3000, 25_000])
@pytest.mark.parametrize("drawn", [1.0, 1.6])
def test_as_many_are_drawn_as_make_the_whole_run_shortest(rows, drawn):
    policies = make_policies([0.0005, 0.002, 0.005, 0.009, 0.03], [0.9, 0.6, 0.5, 0.48, 0.2], drawn=drawn)
    best, expected = 0, float(rows)  # all in full
    for share, seconds in zip(policies.shares.tolist(), policies.seconds.tolist(), strict=True):
        needed = rows_to_draw(rows, ONE_PERCENT.guarantee, share)
        if needed * drawn + (rows - needed) * seconds < expected:
            best, expected = needed, needed * drawn + (rows - needed) * seconds
    assert policies.rows_to_draw(rows, ONE_PERCENT) == best
    assert best > 0 or rows < 3000


def test_nothing_is_drawn_where_no_policy_saves_time():
    assert make_policies([0.001], [1.0]).rows_to_draw(25_000, ONE_PERCENT) == 0
    assert make_policies([0.001], [0.3]).rows_to_draw(25_000, ONE_PERCENT) > 0
    assert make_policies([0.5], [0.3], drawn=1.1).rows_to_draw(25_000, ONE_PERCENT) == 0


# Which policy is taken


@pytest.mark.parametrize("seconds", [[0.5, 0.4, 0.3, 0.2], [0.5, 0.3, 0.4, 0.2], [0.5, 1.5, 2.0, 0.2]], ids=str)
@pytest.mark.parametrize("found", [[0, 3, 9, 40], [0, 0, 23, 23], [24, 24, 24, 24], [0, 24, 24, 30]], ids=str)
def test_the_fastest_is_taken_of_those_before_the_first_that_fails(found, seconds):
    policies = make_policies([0.01] * 4, seconds)
    certificate, taken = policies.certify(np.array(found), 3000, 25_000, ONE_PERCENT)
    passed = []
    while len(passed) < 4 and found[len(passed)] <= 23:  # of 3,000 drawn ones of 25,000
        passed.append(len(passed))
    expected = min(passed, key=lambda place: seconds[place], default=-1)
    assert taken == expected
    if taken < 0:
        assert certificate == in_full(25_000, ONE_PERCENT, 3000, found[0])
        return
    bound = most_differing(23, 3000, 25_000, ONE_PERCENT.guarantee.delta) - 23
    assert certificate == RowsCertificate(25_000, 3000, found[taken], bound / 25_000, 0.99, 0.95, 10 + taken, False, 0)
    assert 240 < certificate.differing <= 250


def test_of_one_policy_alone_the_bound_is_that_of_its_own_count():
    policies = PoliciesToCompare(np.zeros(1), np.zeros(1), 1.0, 1.0)
    certificate, taken = policies.certify(np.array([4]), 3000, 25_000, ONE_PERCENT)
    assert (taken, certificate.step) == (0, None)
    assert certificate.differing == most_differing(4, 3000, 25_000, ONE_PERCENT.guarantee.delta) - 4 < 100


def test_all_rows_are_run_in_full_where_no_policy_that_passes_is_faster():
    policies = make_policies([0.001, 0.01], [1.0, 0.5])
    certificate, taken = policies.certify(np.array([0, 200]), 3000, 25_000, ONE_PERCENT)
    assert (taken, certificate.in_full, certificate.bound, certificate.step) == (-1, True, 0.0, None)


# How often the promise is broken


def masks(differing, rows):
    """Which rows differ, by policy, from their places."""
    differs = np.zeros((len(differing), rows), bool)
    for policy, some in enumerate(differing):
        differs[policy, list(some)] = True
    return differs


def broken(differs, drawn, agreement, take):
    """Shares of draws in which more answers that are delivered differ than was promised, and than the bound.

    take: from drawn, its mask, rows and the wish to the certificate and the policy that is taken.
    """
    rows, promise, bound = differs.shape[1], 0, 0
    for seed in range(DRAWS):
        mask = draw_rows(rows, drawn, seed)
        certificate, taken = take(differs[:, mask], rows, RowsWish(agreement, 0.95, seed))
        wrong = int(differs[taken][~mask].sum()) if taken >= 0 else 0
        promise += wrong > round((1 - agreement) * rows)
        bound += wrong > certificate.differing
    return promise / DRAWS, bound / DRAWS


def certified(of_drawn, rows, wish):
    """The rule that is used."""
    policies = make_policies(np.zeros(len(of_drawn)))
    return policies.certify(ever_differing(of_drawn), of_drawn.shape[1], rows, wish)


def by_estimate(of_drawn, rows, wish):
    """A naive rule: the fastest policy that differs on no larger share of the drawn rows than may differ."""
    passing = np.flatnonzero(of_drawn.mean(axis=1) <= 1 - wish.agreement)
    return in_full(rows, wish), int(passing[-1]) if len(passing) else -1


def by_own_counts(of_drawn, rows, wish):
    """Another: the fastest policy whose own count passes its test."""
    allowed = allowed_found(of_drawn.shape[1], rows, wish.guarantee)
    passing = np.flatnonzero(of_drawn.sum(axis=1) <= allowed)
    return in_full(rows, wish), int(passing[-1]) if len(passing) else -1


def by_found(of_drawn, rows, wish):
    """The rule that is used, with the bound that goes with the count of the policy that it has chosen."""
    certificate, taken = certified(of_drawn, rows, wish)
    drawn = of_drawn.shape[1]
    bound = most_differing(certificate.disagreements, drawn, rows, wish.guarantee.delta) if taken >= 0 else 0
    return RowsCertificate(**{**vars(certificate), "bound": (bound - certificate.disagreements) / rows}), taken


def much_alike(rows, drawn, agreement):
    """Policies that differ on the same rows but for one each, at the edge of what is promised."""
    core = round((1 - agreement) * rows) + allowed_found(drawn, rows, RowsWish(agreement).guarantee)
    return masks([[*range(core - 1), core + policy] for policy in range(25)], rows)


def at_random(rows, most, policies=30):
    """Policies that differ on ever more rows, at random, and now and then on others than before."""
    rng = np.random.default_rng(rows)
    order = rng.permutation(rows)
    return masks([{*order[:some], *rng.choice(rows, 5)} for some in np.linspace(0, most, policies, dtype=int)], rows)


def apart(rows, drawn, agreement):
    """A policy that differs on few rows, and one that is at the edge."""
    edge = round((1 - agreement) * rows) + allowed_found(drawn, rows, RowsWish(agreement).guarantee) + 1
    return masks([range(30), range(edge)], rows)


@pytest.mark.parametrize(
    ("differs", "drawn", "agreement"),
    [
        (much_alike(1000, 900, 0.99), 900, 0.99),
        (much_alike(2000, 700, 0.97), 700, 0.97),
        (at_random(3000, 150), 800, 0.98),
        (at_random(1000, 100), 300, 0.95),
        (apart(5000, 1000, 0.95), 1000, 0.95),
        (masks([range(1000)], 1000), 400, 0.99),
    ],
    ids=["alike", "alike, fewer drawn", "random", "random, fewer rows", "apart", "everything differs"],
)
def test_the_promise_about_the_delivered_answers_is_broken_as_seldom_as_it_says(differs, drawn, agreement):
    promise, bound = broken(differs, drawn, agreement, certified)
    assert promise <= at_most(0.05, DRAWS)
    assert bound <= at_most(0.05, DRAWS)


def test_naive_rules_are_found_out():
    differs = at_random(3000, 150)
    assert broken(differs, 800, 0.98, by_estimate)[0] > at_most(0.05, DRAWS)
    edge = 60 + allowed_found(800, 3000, RowsWish(0.98).guarantee) + 1
    elsewhere = masks([range(start, start + edge) for start in range(0, 2800, 140)], 3000)
    assert broken(elsewhere, 800, 0.98, by_own_counts)[0] > at_most(0.05, DRAWS)
    assert broken(elsewhere, 800, 0.98, certified)[0] <= at_most(0.05, DRAWS)


def test_a_bound_by_the_count_of_the_policy_that_was_chosen_would_be_too_low():
    assert broken(apart(5000, 1000, 0.95), 1000, 0.95, by_found)[1] > at_most(0.05, DRAWS)


# Refusals


def test_wishes_keep_pythons_numbers_whichever_are_given():
    wish = RowsWish(np.float32(0.5), np.float16(0.25), np.int64(3))
    assert wish == RowsWish(0.5, 0.25, 3)
    assert [type(each) for each in (wish.agreement, wish.confidence, wish.seed)] == [float, float, int]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0,), r"certify must be inside \(0, 1\) \(got 1.0\)"),
        ((0.0,), r"certify must be inside \(0, 1\) \(got 0.0\)"),
        ((0.99, 1.5), r"confidence must be inside \(0, 1\) \(got 1.5\)"),
        (("most",), r"certify must be a number inside \(0, 1\) \(got 'most'\)"),
        ((0.99, None), r"confidence must be a number inside \(0, 1\) \(got None\)"),
        ((0.99, 0.95, 1.5), r"seed must be a whole number \(got 1.5\)"),
        ((0.99, 0.95, -1), r"seed must be at least 0 \(got -1\)"),
    ],
)
def test_wishes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        RowsWish(*arguments)
