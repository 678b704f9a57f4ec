"""Answers of two models compared: by what they are, and without what rounding adds or takes."""

from __future__ import annotations

import pytest
import torch

from moco_rt.compression.answers import distance, divergence


def test_answers_are_compared_by_what_they_are(tiny_bert):
    given, found = torch.tensor([[1.0, -2.0], [0.5, 0.5]]), torch.tensor([[0.0, -1.0], [0.5, 0.5]])
    probs, other = given.softmax(1), found.softmax(1)
    one_label = divergence(given, found, tiny_bert().config)
    assert float(one_label) == pytest.approx(float((probs * (probs / other).log()).sum(1).mean()), abs=1e-6)
    probs, other = given.sigmoid(), found.sigmoid()
    binary = probs * (probs / other).log() + (1 - probs) * ((1 - probs) / (1 - other)).log()
    several = divergence(given, found, tiny_bert(problem_type="multi_label_classification").config)
    assert float(several) == pytest.approx(float(binary.sum(1).mean()), abs=1e-6)
    numbers = divergence(given, found, tiny_bert(problem_type="regression").config)
    assert float(numbers) == pytest.approx(0.5)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_answers_that_are_nearly_the_same_are_a_little_apart(tiny_bert, problem):
    config = tiny_bert(problem_type=problem).config
    below = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        given = torch.randn(50, 3, generator=generator)
        found = given + 1e-6 * torch.randn(50, 3, generator=generator)
        assert distance(given, given, config) == 0
        assert 0 < distance(given, found, config) < 1e-11
        below += bool(divergence(given, found, config) <= 0)
    assert (below > 0) == (problem != "regression")  # squares are never below 0, single precision or not
