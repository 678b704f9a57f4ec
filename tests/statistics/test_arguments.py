"""Numbers that users pass: what is none is refused by its name, in one line."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from moco_rt.statistics.arguments import check_share, seed_of, whole_number


@pytest.mark.parametrize("share", [0.5, np.float32(0.5), Fraction(1, 2), 1e-300])
def test_shares_of_any_library_are_taken(share):
    assert check_share("rate", share) == share
    assert type(check_share("rate", share)) is float


def test_one_is_a_share_where_it_may_be(one_line_error):
    check_share("rate", 1, one=True)
    with one_line_error(ValueError, "rate must be inside (0, 1] (got 0)"):
        check_share("rate", 0, one=True)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "rate must be inside (0, 1) (got 0)"),
        (1.0, "rate must be inside (0, 1) (got 1.0)"),
        (True, "rate must be inside (0, 1) (got True)"),
        (Fraction(10**30 - 1, 10**30), "rate must be inside (0, 1) (got 999999999999999999999999999999/10000000000"),
        (float("nan"), "rate must be inside (0, 1) (got nan)"),
        ("0.9", "rate must be a number inside (0, 1) (got '0.9')"),
        (None, "rate must be a number inside (0, 1) (got None)"),
        ([0.9], "rate must be a number inside (0, 1) (got [0.9])"),
        (np.zeros((3, 3)), "rate must be a number inside (0, 1) (got array([[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]"),
    ],
)
def test_what_is_no_share_is_refused(share, words, one_line_error):
    with one_line_error(ValueError, words):
        check_share("rate", share)


@pytest.mark.parametrize("given", [3, np.int32(3), torch.tensor(3)])
def test_whole_numbers_of_any_library_are_taken(given):
    assert whole_number("epochs", given) == 3
    assert type(seed_of(given)) is int


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (-1, "seed must be at least 0 (got -1)"),
        (1.5, "seed must be a whole number (got 1.5)"),
        ("a", "seed must be a whole number (got 'a')"),
        (None, "seed must be a whole number (got None)"),
        (2**64, "seed must be below 2**64 (got 18446744073709551616)"),
    ],
)
def test_what_is_no_seed_is_refused(given, words, one_line_error):
    with one_line_error(ValueError, words):
        seed_of(given)
