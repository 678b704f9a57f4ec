"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest

from moco_rt.certification.calibration import fit_temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_the_one_the_labels_came_from(classes, temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(logits, np.eye(classes)[labels]) == pytest.approx(temperature, rel=0.07)


@pytest.mark.parametrize(("right", "lowest", "highest"), [(True, 0, 0.06), (False, 19, 21)])
def test_the_temperature_stays_in_bounds_where_all_labels_are_right_or_wrong(right, lowest, highest):
    logits = np.random.default_rng(0).normal(0, 5, (500, 2))
    labels = logits.argmax(axis=1)
    found = fit_temperature(logits, np.eye(2)[labels if right else 1 - labels])
    assert lowest < found < highest


def test_rows_that_are_not_finite_are_left_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (500, 2))
    probs = np.full((500, 2), 0.5)
    certain = np.array([[-np.inf, 0.0]])
    assert fit_temperature(np.vstack([logits, certain]), np.vstack([probs, [[0, 1]]])) == fit_temperature(logits, probs)
    assert fit_temperature(certain, np.array([[0.0, 1.0]])) == 1.0
