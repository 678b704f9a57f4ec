from __future__ import annotations

import math

import numpy as np
import pytest

from moco_rt.architectures.sites import all_sites
from moco_rt.policies.conditions import LinearCondition
from moco_rt.policies.policy import Exit, Policy

HIDDEN = 4
SITE = "encoder.0.attention"


def policy(num_classes=2):
    return Policy(all_sites(2), num_classes, HIDDEN)


def exit_at(site=SITE, predicted_class=0, condition=lambda x: x[:, 0] > 0, feature="cls", bound=0.01):
    return Exit(site, predicted_class, condition, feature, bound)


def linear(size=HIDDEN, feature="cls", site=None):
    return LinearCondition(np.ones(size, np.float32), 0.0, 0.0, 0.01, feature, site)


def linear_exit(size=HIDDEN, feature="cls", fitted_at=None):
    return exit_at(condition=linear(size, feature, fitted_at), feature=feature)


@pytest.mark.parametrize("site", all_sites(2)[:-1])
@pytest.mark.parametrize("predicted_class", [0, 1])
def test_every_site_but_the_last_takes_exits_of_every_class(site, predicted_class):
    model = policy()
    model.add(exit_at(site, predicted_class))
    assert [(place, exit.site, exit.predicted_class) for place, exit in model.at(site)] == [(0, site, predicted_class)]


@pytest.mark.parametrize(
    ("feature", "size"), [("cls", HIDDEN), ("mean", HIDDEN), ("flat", HIDDEN), ("flat", 7 * HIDDEN)]
)
@pytest.mark.parametrize("fitted_at", [None, SITE])
def test_conditions_of_the_right_size_are_taken(feature, size, fitted_at):
    model = policy()
    exit = linear_exit(size, feature, fitted_at)
    model.add(exit)
    assert model.exits == (exit,)


@pytest.mark.parametrize(("num_classes", "bound"), [(2, 0.499), (3, 0.66), (10, 0.89), (2, 1e-9)])
def test_bounds_are_taken_while_no_other_class_is_likelier(num_classes, bound):
    model = policy(num_classes)
    model.add(exit_at(bound=bound))
    assert len(model.exits) == 1


ALL_SITES = r"embeddings, encoder\.0\.attention, encoder\.0\.output, encoder\.1\.attention, encoder\.1\.output"
LIKELIER = "or another class would be likelier"
UNFIT = {
    "unknown site": (exit_at("encoder.2.output"), rf"site must be one of {ALL_SITES} \(got 'encoder\.2\.output'\)"),
    "no site": (exit_at(""), rf"site must be one of {ALL_SITES} \(got ''\)"),
    "last site": (
        exit_at("encoder.1.output"),
        r"site must have a layer left to save \(got 'encoder\.1\.output', the last\)",
    ),
    "class too high": (exit_at(predicted_class=2), r"class must be from 0 to 1 \(got 2\)"),
    "class too low": (exit_at(predicted_class=-1), r"class must be from 0 to 1 \(got -1\)"),
    "bound 0": (exit_at(bound=0.0), rf"bound must be inside \(0, 0\.5\), {LIKELIER} \(got 0\.0\)"),
    "bound of a coin": (exit_at(bound=0.5), rf"bound must be inside \(0, 0\.5\), {LIKELIER} \(got 0\.5\)"),
    "bound of no number": (exit_at(bound=math.nan), rf"bound must be inside \(0, 0\.5\), {LIKELIER} \(got nan\)"),
    "unknown feature": (exit_at(feature="max"), r"feature must be one of cls, mean, flat, cls\+mean \(got 'max'\)"),
    "cls of another size": (linear_exit(5), rf"weight must have size 4, the hidden size at {SITE} \(got 5\)"),
    "cls of flat size": (linear_exit(8), rf"weight must have size 4, the hidden size at {SITE} \(got 8\)"),
    "mean of another size": (linear_exit(3, "mean"), rf"weight must have size 4, the hidden size at {SITE} \(got 3\)"),
    "flat of another size": (
        linear_exit(10, "flat"),
        rf"weight must have size a multiple of 4, the hidden size at {SITE} \(got 10\)",
    ),
    "fitted elsewhere": (
        linear_exit(fitted_at="encoder.0.output"),
        rf"a rule fitted at encoder\.0\.output must stay at that site \(got {SITE}\)",
    ),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_exit_that_does_not_fit_is_refused_and_changes_nothing(unfit):
    model = policy()
    first = exit_at()
    model.add(first)
    exit, message = UNFIT[unfit]
    with pytest.raises(ValueError, match=f"^{message}$"):
        model.add(exit)
    assert model.exits == (first,)


@pytest.mark.parametrize(("condition", "kind"), [(None, "NoneType"), (np.ones(4), "ndarray"), ("x > 0", "str")])
def test_condition_that_cannot_be_called_is_refused_and_changes_nothing(condition, kind):
    model = policy()
    with pytest.raises(TypeError, match=rf"^condition must be callable \(got {kind}\)$"):
        model.add(exit_at(condition=condition))
    assert model.exits == ()


def test_bound_of_three_classes_may_be_higher_than_of_two():
    model = policy(3)
    model.add(exit_at(bound=0.6))
    with pytest.raises(ValueError, match=rf"^bound must be inside \(0, 0\.667\), {LIKELIER} \(got 0\.67\)$"):
        model.add(exit_at(bound=0.67))
    assert len(model.exits) == 1


def test_exits_of_a_site_come_in_the_order_they_were_added_with_their_places_among_all():
    model = policy()
    for site, predicted_class in [(SITE, 1), ("embeddings", 0), (SITE, 0), ("encoder.0.output", 1), (SITE, 1)]:
        model.add(exit_at(site, predicted_class))
    assert [(place, exit.predicted_class) for place, exit in model.at(SITE)] == [(0, 1), (2, 0), (4, 1)]
    assert [place for place, _ in model.at("embeddings")] == [1]
    assert [place for place, _ in model.at("encoder.0.output")] == [3]
    assert all(exit is model.exits[place] for place, exit in model.at(SITE))


def test_site_without_exits_has_none():
    assert policy().at(SITE) == []
