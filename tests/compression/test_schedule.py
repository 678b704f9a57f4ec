"""Schedules of lengths: what a mapping means, what layers see, and a search that finds where least is lost."""

from __future__ import annotations

import itertools

import pytest

from moco_rt.compression.schedule import check_share, find_schedule, lengths_after, share_seen


def test_a_mapping_holds_from_a_layer_on():
    assert lengths_after({1: 0.5, 3: 0.2}, 5) == [1.0, 0.5, 0.5, 0.2, 0.2]
    assert lengths_after({}, 2) == [1.0, 1.0]


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_refused(layer, one_line_error):
    with one_line_error(ValueError, f"lengths must name layers from 0 to 2 (got {layer})"):
        lengths_after({layer: 0.5}, 3)


def test_layers_see_the_tokens_before_and_behind_their_attention():
    assert share_seen([1.0, 1.0]) == pytest.approx(1)
    assert share_seen([1.0, 0.5]) == pytest.approx((1 + 1 / 3 + 2 / 3 * 0.5) / 2)
    assert share_seen([0.5, 0.5]) == pytest.approx((1 / 3 + 2 / 3 * 0.5 + 0.5) / 2)


def test_tokens_are_left_out_where_least_is_lost():
    """The second layer needs its tokens, those behind it do not."""

    def loss(lengths):
        return sum(weight * (1 - share) for weight, share in zip((9, 9, 1, 1), lengths, strict=True))

    lengths = find_schedule(4, 0.75, loss)
    assert lengths[:2] == [1.0, 1.0]
    assert share_seen(lengths) <= 0.75
    assert all(after <= before for before, after in itertools.pairwise(lengths))


def test_a_share_that_no_schedule_has_is_refused(one_line_error):
    with one_line_error(ValueError, "lengths must leave at least 0.20 (got 0.1)"):
        find_schedule(6, 0.1, lambda _: 0.0)


def test_a_share_below_1_is_refused_for_one_layer(one_line_error):
    with one_line_error(ValueError, "lengths must be 1 for a model of one layer, which reads all tokens (got 0.5)"):
        find_schedule(1, 0.5, lambda _: 0.0)
    assert find_schedule(1, 1.0, lambda _: 0.0) == [1.0]


def test_the_least_share_that_is_named_is_one_that_a_schedule_has(one_line_error):
    with one_line_error(ValueError, "lengths must leave at least 0.30 (got 0.29)"):
        check_share(2, 0.29)
    check_share(2, 0.30)
