"""Promises to choose from: what is asked for, what is tested, and how often what was certified does not hold."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from rates import at_most

from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.policy_search import ExitsToSearch, search
from moco_rt.certification.promises import Accuracy, Confident, Outcomes, PerClass, make_promise, what_can_be_certified
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.studies.costs import Costs

NAMES = ("fine", "toxic")


def ask(name="confident", agreement=None, max_drop=None, confidence=0.95):
    return make_promise(name, agreement, max_drop, confidence, NAMES, 0)


# What is asked for


def test_nothing_said_is_an_agreement_of_99_per_cent():
    promise = ask()
    assert isinstance(promise, Confident)
    assert (promise.guarantee.agreement, promise.delta) == (0.99, pytest.approx(0.05))


def test_one_agreement_is_asked_for_each_class_or_each_has_its_own():
    assert ask("per class").max_disagreement == pytest.approx((0.01, 0.01))
    assert ask("per class", 0.9).max_disagreement == pytest.approx((0.1, 0.1))
    fine, toxic = ask("per class", {"toxic": 0.97}).max_disagreement
    assert np.isnan(fine)
    assert toxic == pytest.approx(0.03)


def test_accuracy_is_asked_for_by_a_drop():
    assert ask("accuracy", max_drop=0.02, confidence=0.9) == Accuracy(0.02, pytest.approx(0.1))
    assert type(ask("accuracy", max_drop=np.float32(0.02)).max_drop) is float


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "sure"}, "promise must be one of confident, per class, accuracy"),
        ({"name": "accuracy"}, "must be asked for with max_drop inside (0, 1)"),
        ({"name": "accuracy", "max_drop": 0.01, "agreement": 0.99}, "and no agreement"),
        ({"name": "accuracy", "max_drop": 1.0}, "max_drop inside (0, 1)"),
        ({"max_drop": 0.01}, "max_drop must be None"),
        ({"agreement": {"toxic": 0.9}}, "agreement must be a number"),
        ({"name": "per class", "agreement": {"vile": 0.9}}, "classes fine, toxic"),
        ({"name": "per class", "agreement": {}}, "classes fine, toxic"),
        ({"name": "per class", "agreement": {"toxic": 1.0}}, "agreement must be inside (0, 1)"),
        ({"agreement": 1.0}, "agreement must be inside (0, 1)"),
        ({"agreement": "0.9"}, "agreement must be a number inside (0, 1) (got '0.9')"),
        ({"name": "per class", "agreement": {"toxic": None}}, "agreement must be a number inside (0, 1) (got None)"),
        ({"confidence": None}, "confidence must be a number inside (0, 1) (got None)"),
        ({"name": "accuracy", "max_drop": "a"}, "max_drop inside (0, 1), and no agreement (got max_drop='a'"),
        ({"name": "accuracy", "max_drop": 0.1, "confidence": 1.0}, "confidence must be inside (0, 1)"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(options, words, one_line_error):
    with one_line_error(ValueError, words):
        ask(**options)


# What the log says


def outcomes(given, differs):
    return Outcomes(np.atleast_2d(np.array(differs, bool)), np.array(given))


def test_a_rare_class_is_named_with_the_rows_it_would_need(caplog):
    ask().for_rows(outcomes([0] * 990 + [1] * 10, [False] * 1000), NAMES)
    assert "class toxic has 1.0% of the rows" in caplog.text
    assert "299 of its rows" in caplog.text


def test_a_class_with_too_few_rows_to_promise_anything_is_named(caplog):
    ask("per class").for_rows(outcomes([0] * 990 + [1] * 10, [False] * 1000), NAMES)
    assert "10 distinct calibration rows of class toxic can promise nothing: that needs 299" in caplog.text
    assert "fine" not in caplog.text


def test_classes_that_are_not_rare_are_not_spoken_of(caplog):
    caplog.set_level(logging.INFO)
    ask().for_rows(outcomes([0, 1] * 500, [False] * 1000), NAMES)
    assert caplog.text == ""


# What is tested


def test_each_class_must_pass_on_its_own_rows():
    given = np.array([0] * 2000 + [1] * 400)
    differs = np.zeros((3, len(given)), bool)
    differs[1, :5] = True  # 5 of 2,000
    differs[2, :5] = differs[2, 2000:2004] = True  # and 4 of 400: too many of these
    assert ask("per class").last(Outcomes(differs, given)) == 1
    assert ask().last(Outcomes(differs, given)) == 2
    assert ask("per class", {"fine": 0.99}).last(Outcomes(differs, given)) == 2


def test_what_is_stated_of_classes_is_what_was_counted():
    given = np.array([0] * 300 + [1] * 100)
    differs = np.arange(400) % 100 == 0
    stated = ask("per class", {"toxic": 0.9}).stated(Outcomes(differs[None], given), 0)
    fine, toxic = stated["classes"]
    assert stated["alpha"] is None
    assert (fine.alpha, fine.rows, fine.disagreements) == (None, 300, 3)
    assert (toxic.alpha, toxic.rows, toxic.disagreements) == (pytest.approx(0.1), 100, 1)


def test_labels_that_change_in_both_directions_alike_cost_accuracy_nothing():
    rng = np.random.default_rng(0)
    changed = rng.random(6000) < 0.04
    both = np.where(changed, rng.choice([-1.0, 1.0], 6000), 0.0)
    worse = changed.astype(float)
    drop = np.array([np.zeros(6000), both, worse])
    promise = ask("accuracy", max_drop=0.01)
    assert promise.last(Outcomes(np.array([changed] * 3), None, drop)) == 1
    assert promise.stated(Outcomes(np.array([changed] * 3), None, drop), 1)["drop_bound"] <= 0.01


def test_errors_of_a_rare_class_weigh_more_where_classes_are_promised():
    given = np.array([0] * 990 + [1] * 10)
    weights = ask("per class").weights(given)
    assert weights.mean() == pytest.approx(1)
    assert weights[-1] / weights[0] == pytest.approx(99)
    assert ask("per class", {"fine": 0.99}).weights(given)[-1] == 0
    assert ask().weights(given) is None


# How often it does not hold

POPULATION, DRAWS, CALIBRATION = 60_000, 300, 4000


@pytest.fixture(scope="module")
def world():
    """Many rows, one in ten toxic, two exits that know ever more, and what a path ordered on some answers."""
    rng = np.random.default_rng(0)
    given = (rng.random(POPULATION) < 0.1).astype(np.int64)
    sure = np.where(given == 1, 1.0, -1.0)[None] * np.array([[1.5], [2.5]]) + rng.normal(0, 1, (2, POPULATION))
    probs = 1 / (1 + np.exp(-2 * sure))
    predicted, score = (probs > 0.5).astype(np.int64), np.maximum(probs, 1 - probs).astype(np.float32)
    truth = np.where(rng.random(POPULATION) < 0.1, 1 - given, given)

    def of(rows):
        return ExitScores.of_labels(predicted[:, rows], score[:, rows], given[rows])

    def answers(promise):
        costs = Costs(np.ones(1), np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 2)), np.zeros(3))
        ordering = of(slice(0, 3000))
        weights = promise.weights(ordering.given)
        path = search([ExitsToSearch(ordering, ["a", "b"], costs, np.ones(3000, int), 2, weights=weights)])
        everyone = of(slice(None))
        labels = []
        for policy in path:
            some = everyone.at(policy.places)
            labels.append(some.label_of_row(some.exit_of_row(policy.thresholds)))
        return np.array(labels)

    return given, truth, answers


def broken(promise, labels, given, truth, holds, last=None):
    """In how many draws of calibration rows a policy was certified that does not hold for the rows that were not drawn.

    The rows that ordered the path are never drawn.
    """
    rng, count = np.random.default_rng(1), 0
    differs = labels != given
    drop = (given == truth).astype(float) - (labels == truth)
    for _ in range(DRAWS):
        rows = rng.integers(3000, POPULATION, CALIBRATION)
        seen = Outcomes(differs[:, rows], given[rows], drop[:, rows])
        place = (last or promise.last)(seen)
        count += place >= 0 and not holds(place)
    return count / DRAWS


def test_what_is_promised_of_classes_is_broken_no_more_often_than_it_says(world):
    given, truth, answers = world
    promise = PerClass((0.01, 0.05), 0.05)
    labels = answers(promise)
    rates = [[(labels[:, given == c] != c)[place].mean() for c in (0, 1)] for place in range(len(labels))]

    def holds(place):
        return rates[place][0] <= 0.01 and rates[place][1] <= 0.05

    assert broken(promise, labels, given, truth, holds) <= at_most(0.05, DRAWS)

    def looks_good(seen):
        """Take the last policy that keeps the shares on the calibration rows themselves."""
        good = [
            all(differs[seen.given == c].mean() <= share for c, share in ((0, 0.01), (1, 0.05)))
            for differs in seen.differs
        ]
        return int(np.flatnonzero(good).max(initial=-1))

    assert broken(promise, labels, given, truth, holds, looks_good) > at_most(0.05, DRAWS)


def test_a_rare_class_is_kept_by_its_own_promise_and_lost_by_one_about_all_rows(world):
    given, _, answers = world
    rows = np.arange(3000, 20_000)
    lost = {}
    for promise in (Confident(Guarantee(0.02, 0.05)), PerClass((0.02, 0.02), 0.05)):
        labels = answers(promise)
        place = promise.last(Outcomes((labels != given)[:, rows], given[rows]))
        lost[promise.name] = (labels[place] != given)[given == 1].mean()
    assert lost["per class"] <= 0.02
    assert lost["confident"] > 0.05


def test_what_is_promised_of_accuracy_is_broken_no_more_often_than_it_says(world):
    given, truth, answers = world
    promise = Accuracy(0.01, 0.05)
    labels = answers(promise)
    falls = (given == truth).mean() - (labels == truth).mean(axis=1)
    assert broken(promise, labels, given, truth, lambda place: falls[place] <= 0.01) <= at_most(0.05, DRAWS)


def test_what_rows_can_show_is_rounded_towards_the_weaker_promise(caplog):
    what_can_be_certified(Guarantee(0.001, 0.05), 530)  # which show 99.436%
    assert "cannot certify an agreement of 99.90%: that needs 2995 at least; certifying 99.43%" in caplog.text
