"""The path of policies over all exits and variants: where it begins, what is on it, and that it keeps its word."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from score_samples import LENGTHS, ROWS, make_costs, make_scores, mean_seconds, share_wrong

from moco_rt.certification import policy_search
from moco_rt.certification.greedy_path import expected_errors
from moco_rt.certification.policy_search import ExitsToSearch, search

#: Seconds to three exits and to the end.
REACH = [1.0, 4.0, 7.0, 10.0]


@pytest.fixture(autouse=True)
def short_searches(monkeypatch):
    """Paths with fewer steps, so that a search takes a fraction of a second."""
    monkeypatch.setattr(policy_search, "_POLICIES", 800)
    monkeypatch.setattr(policy_search, "_FEWER", 200)


def exits_of(scores, costs, *, classes=2, sites=None, groups=None):
    """Exits to search, each at a site of its own, or at those given."""
    names = sites or [str(exit) for exit in range(len(scores.score))]
    return ExitsToSearch(scores, names, costs, LENGTHS[: scores.rows], classes, groups)


def seconds_of(exits, policy):
    """Mean seconds of the rows that a policy was found on."""
    seconds = exits.costs.seconds(exits.lengths, policy.places)
    return mean_seconds(exits.scores.at(policy.places), policy.thresholds, seconds)


def used(path, most=1.0):
    """All exits that any policy of a path uses, of those with so many errors at most."""
    return {place for policy in path if policy.error <= most for place in policy.places}


def assert_same_path(path, expected):
    assert len(path) == len(expected)
    for policy, other in zip(path, expected, strict=True):
        assert (policy.variant, policy.places) == (other.variant, other.places)
        assert (policy.error, policy.seconds) == (other.error, other.seconds)
        np.testing.assert_array_equal(policy.thresholds, other.thresholds)


# What is on a path


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_path_begins_with_what_changes_nothing_and_gets_faster_with_more_errors(classes):
    exits = exits_of(make_scores((2.0, 3.0, 4.0), classes), make_costs(REACH, 0.1), classes=classes)
    path = search([exits])
    nothing = path[0]
    assert (nothing.variant, nothing.places, nothing.error) == (0, [], 0.0)
    assert nothing.thresholds.shape == (0, classes)
    assert nothing.seconds == pytest.approx(exits.costs.seconds(LENGTHS, []).mean())
    assert len(path) > 20
    for before, after in pairwise(path):
        assert after.error > before.error
        assert after.seconds < before.seconds
    assert path[-1].seconds < 0.5 * nothing.seconds


def test_a_policy_has_the_exits_that_rows_leave_by_and_no_others():
    exits = exits_of(make_scores((1.5, 2.5, 3.5)), make_costs(REACH, 0.1))
    for policy in search([exits]):
        assert policy.places == sorted(set(policy.places))
        assert policy.thresholds.shape == (len(policy.places), 2)
        assert policy.thresholds.dtype == np.float32
        assert (policy.thresholds < np.inf).any(axis=1).all()


def test_a_policy_knows_what_its_rows_cost():
    scores = make_scores((2.0, 3.0, 4.0))
    ranks = scores.score.argsort(axis=1).argsort(axis=1)
    scores = replace(scores, score=np.linspace(0.5, 0.99, ROWS, dtype=np.float32)[ranks])  # no two rows' are the same
    exits = exits_of(scores, make_costs(REACH, 0.1))
    by_way = np.vstack([(expected_errors(scores, 2) + scores.wrong[:-1]) / 2, np.zeros(ROWS)])
    for policy in search([exits]):
        leaving = scores.at(policy.places).exit_of_row(policy.thresholds)
        own = by_way[[*policy.places, -1]]
        assert policy.error == pytest.approx(own[leaving, np.arange(ROWS)].mean(), abs=1e-9)
        # Its path was built with more exits than it uses, and scoring by those is not free: it is not slower than that.
        assert seconds_of(exits, policy) <= policy.seconds + 1e-9


def test_errors_that_are_estimated_are_those_of_fresh_rows():
    ordering, fresh = (make_scores((1.5, 2.5), rows=rows, seed=seed) for rows, seed in ((8000, 1), (100_000, 2)))
    costs = make_costs([1.0, 5.0, 10.0], 0.1)
    path = search([ExitsToSearch(ordering, ["0", "1"], costs, np.full(8000, 50), 2)])
    assert len(path) > 20
    for policy in path:
        counted = share_wrong(fresh.at(policy.places), policy.thresholds)
        # They rest on the errors that 8,000 rows show: of a share e that many are 8,000 e.
        assert policy.error == pytest.approx(counted, abs=5e-4 + 4 * (policy.error / 8000) ** 0.5)


def test_a_path_is_thin():
    """Every policy on the way is a test that may fail by chance, so that none stands close behind another."""
    path = search([exits_of(make_scores((1.5, 2.5, 3.5)), make_costs(REACH, 0.1))])
    errors = np.array([policy.error for policy in path])
    assert errors[-1] <= 0.3
    assert len(path) <= 250
    two_on = errors[3:] / errors[1:-2]  # two neighbours may lie on both sides of one level
    assert two_on.min() >= 1.03 * (1 - 1e-9)


def test_the_same_exits_have_the_same_path():
    exits = exits_of(make_scores((1.5, 2.5, 3.5)), make_costs(REACH, 0.1))
    assert_same_path(search([exits]), search([exits]))


def test_where_there_are_no_exits_only_nothing_can_be_changed():
    exits = exits_of(make_scores().at([]), make_costs([10.0], 0.0), groups=[])
    (nothing,) = search([exits])
    assert (nothing.places, nothing.error) == ([], 0.0)


# Which exits are worth asking


def test_a_useful_exit_is_on_the_path():
    assert used(search([exits_of(make_scores((3.0,)), make_costs([1.0, 10.0], 0.01))])) == {0}


def test_exits_that_are_all_useful_are_used_together():
    path = search([exits_of(make_scores((1.5, 2.5, 3.5)), make_costs(REACH, 0.0))])
    assert [0, 1, 2] in [policy.places for policy in path]


@pytest.mark.parametrize("useless", [0, 1, 2])
def test_an_exit_that_knows_nothing_is_left_out_where_asking_costs(useless):
    strengths = [3.0, 3.2, 3.4]
    strengths[useless] = 0.0
    found = used(search([exits_of(make_scores(strengths), make_costs(REACH, 2.0))]))
    assert found
    assert useless not in found


@pytest.mark.parametrize("dear", [{"ask": 3.0}, {"ask": 0.0, "once": 10.0}], ids=["each row", "once"])
def test_an_exit_is_used_by_what_asking_costs(dear):
    scores, reach = make_scores((0.8, 3.5)), [1.0, 5.0, 10.0]
    for asking, expected in (({"ask": 0.0}, {0, 1}), (dear, {1})):
        assert used(search([exits_of(scores, make_costs(reach, **asking))]), 0.02) == expected


def test_exits_that_cost_more_than_they_save_are_never_used():
    exits = exits_of(make_scores((0.5, 0.5)), make_costs([1.0, 5.0, 10.0], 20.0))
    (nothing,) = search([exits])
    assert nothing.places == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["better first", "better last"])
def test_of_two_exits_at_one_site_the_better_is_used(order):
    scores = make_scores((3.0, 2.0)).at(order)
    path = search([exits_of(scores, make_costs([1.0, 1.0, 10.0], 0.1), sites=["here", "here"])])
    assert used(path, 0.02) == {order.index(0)}  # with more errors all rows may leave, and by either


def test_of_the_exits_at_one_site_a_policy_uses_one_at_most():
    scores = make_scores((1.5, 1.6, 2.5, 2.6, 3.5))
    sites = ["early", "early", "late", "late", "later"]
    path = search([exits_of(scores, make_costs([1.0, 1.0, 4.0, 4.0, 7.0, 10.0], 0.0), sites=sites)])
    assert max(len(policy.places) for policy in path) > 1
    for policy in path:
        found = [sites[place] for place in policy.places]
        assert len(found) == len(set(found))


def test_of_two_exits_that_know_the_same_the_cheaper_is_used():
    costs = make_costs([1.0, 1.0, 5.0, 5.0, 10.0], 0.5)
    costs.scoring[:, [1, 2]] = 0.1
    scores = make_scores((2.0, 3.0)).at([0, 0, 1, 1])
    path = search([exits_of(scores, costs, sites=["early", "early", "late", "late"])])
    assert used(path, 0.02) == {1, 2}


# Where a search starts from


@pytest.mark.parametrize("seed", range(4))
def test_from_the_best_of_some_groups_a_search_gets_no_slower(seed):
    rng = np.random.default_rng(seed)
    scores = make_scores(rng.uniform(0.5, 4, 4), rows=500, seed=seed)
    costs = make_costs([*np.sort(rng.uniform(1, 10, 4)), 10.0], rng.uniform(0, 2))
    groups = [[0, 1], [1, 3], [2], [0, 1, 2, 3]]

    def seconds_at(groups, error):
        path = search([exits_of(scores, costs, groups=groups)])
        return min(policy.seconds for policy in path if policy.error <= error)

    for error in (0.01, 0.04):
        alone = min(seconds_at([group], error) for group in groups)
        assert seconds_at(groups, error) <= 1.02 * alone  # sets are compared on paths with fewer steps


@pytest.mark.parametrize("group", [[0, 2], [1], [2, 1]], ids=str)
def test_what_is_in_no_group_is_not_used(group):
    exits = exits_of(make_scores((3.0, 3.0, 3.0), rows=500), make_costs(REACH, 0.0), groups=[group])
    assert set() < used(search([exits])) <= set(group)


def test_without_groups_all_are_one():
    exits = exits_of(make_scores((1.5, 2.5, 3.5), rows=500), make_costs(REACH, 0.3))
    expected = search([exits])
    for groups in ([[2, 0, 1]], [[], range(3)]):
        assert_same_path(search([replace(exits, groups=groups)]), expected)


@pytest.mark.parametrize("groups", [[[1], [0, 1]], [[0], [0, 1]]], ids=str)
def test_of_one_site_at_most_one_is_used_whatever_the_groups(groups):
    scores, costs = make_scores((2.0, 3.0), rows=500), make_costs([1.0, 1.0, 10.0], 0.1)
    assert used(search([exits_of(scores, costs, sites=["here", "here"], groups=groups)])) == {1}


# Several variants


def two_variants(wrong_at_end=0.02, cheaper=0.5, strengths=(1.5, 2.5, 3.5)):
    """The model as it was given, and a form of it that costs less and is wrong on some rows even at its end."""
    reach = np.array(REACH)
    given = exits_of(make_scores(strengths), make_costs(reach, 0.1))
    other = exits_of(make_scores(strengths, wrong_at_end=wrong_at_end), make_costs(cheaper * reach, 0.1 * cheaper))
    return given, other


def test_variants_are_mixed_on_one_path_in_the_order_of_their_errors():
    """With fewer errors than the cheap form makes only the given model can run; with more, whichever is faster."""
    given, other = two_variants(strengths=(0.5, 1.0, 1.5))
    other = replace(other, scores=other.scores.at([]), sites=[], costs=make_costs([5.0], 0.0))
    path = search([given, other])
    assert (path[0].variant, path[0].places, path[0].error) == (0, [], 0.0)
    (place,) = [place for place, policy in enumerate(path) if policy.variant == 1]
    cheap, at_end = path[place], other.scores.wrong[-1].mean()
    assert (cheap.places, cheap.error) == ([], at_end)
    assert cheap.seconds == pytest.approx(0.5 * path[0].seconds)
    assert 0 < place < len(path) - 1
    assert path[place - 1].error < at_end < path[place + 1].error
    assert path[place - 1].seconds > cheap.seconds > path[place + 1].seconds


def test_the_cheap_form_has_exits_too_and_is_counted_with_them():
    given, other = two_variants()
    path = search([given, other])
    assert (path[0].variant, path[0].error) == (0, 0.0)
    for before, after in pairwise(path):
        assert after.error > before.error
        assert after.seconds < before.seconds
    # Both have the same exits, and the one does all in half the time: it stands wherever there are errors to spare.
    assert path[1].variant == 0
    assert {policy.variant for policy in path if policy.error > other.scores.wrong[-1].mean()} == {1}
    assert all(policy.places for policy in path[1:])


def test_a_path_over_two_variants_is_as_fast_as_that_of_each():
    variants = two_variants()
    both = search(variants)
    for variant in variants:
        for policy in search([variant]):
            fast_enough = [other for other in both if other.error <= policy.error * 1.03 + 1e-12]
            assert min((other.seconds for other in fast_enough), default=np.inf) <= policy.seconds * 1.01 or (
                policy.error == 0
            )


def test_a_variant_that_is_dearer_and_wrong_is_on_no_path():
    given, other = two_variants(cheaper=1.2)
    assert_same_path(search([given, other]), search([given]))


def test_a_cheaper_variant_that_was_never_wrong_does_not_take_the_place_of_nothing():
    """That some hundred rows show no error is no proof: the sequence of tests begins with what changes nothing."""
    path = search(two_variants(wrong_at_end=0.0))
    assert (path[0].variant, path[0].places, path[0].error) == (0, [], 0.0)
    assert {policy.variant for policy in path[1:]} == {1}


def test_a_variant_may_have_exits_of_its_own():
    given, other = two_variants()
    other = replace(other, scores=other.scores.at([2]), sites=["own"], costs=make_costs([3.5, 5.0], 0.05))
    path = search([replace(given, groups=[[0]]), other])
    assert {(policy.variant, len(policy.places)) for policy in path} == {(0, 0), (0, 1), (1, 1)}
    assert used(path) == {0}
