"""What can be promised at all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from moco_rt.statistics.guarantee import Guarantee


def test_shares_and_their_complements():
    guarantee = Guarantee.of_agreement(0.99, 0.95)
    assert (guarantee.max_disagreement, guarantee.delta) == (pytest.approx(0.01), pytest.approx(0.05))
    assert (guarantee.agreement, guarantee.confidence) == (pytest.approx(0.99), pytest.approx(0.95))


def test_numbers_of_any_library_are_kept_as_floats_which_files_can_hold():
    made = [Guarantee.of_agreement(np.float32(0.5), Fraction(3, 4)), Guarantee(Fraction(1, 2), np.float16(0.25))]
    assert made == [Guarantee(0.5, 0.25)] * 2
    assert all(type(each) is float for one in made for each in (one.max_disagreement, one.delta))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 99.0, float("nan")])
def test_shares_out_of_range_are_refused(share, one_line_error):
    for name, made in (
        ("max_disagreement", lambda: Guarantee(share, 0.05)),
        ("delta", lambda: Guarantee(0.01, share)),
        ("agreement", lambda: Guarantee.of_agreement(share, 0.95)),
        ("confidence", lambda: Guarantee.of_agreement(0.99, share)),
    ):
        with one_line_error(ValueError, f"{name} must be inside (0, 1) (got {share})"):
            made()
