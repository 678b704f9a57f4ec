"""Certificates about sets of labels and numbers: simulated models whose off-ramps are scored by the extension."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rates import at_most
from score_samples import make_costs, share_wrong

from moco_rt import MultiLabel, Regression
from moco_rt._C import OffRamp
from moco_rt.architectures import Flags
from moco_rt.certification import promises, selection
from moco_rt.certification.exit_scores import ExitScores
from moco_rt.certification.policy_search import search
from moco_rt.certification.promises import Confident
from moco_rt.certification.selection import ExitCandidates, RowsInAll, ScoredRows
from moco_rt.statistics.guarantee import Guarantee

ALPHA, DELTA = 0.1, 0.1
DRAWS, DRAWS_A_PATH = 300, 15
TASKS = {
    "multi-label": MultiLabel({"a": 0.3, "b": 0.5, "c": 0.7}),
    "flags": Flags({"a": 0.8, "b": None, "c": 0.3}),
    "regression": Regression(0.5),
}
SITES = ["embeddings", "encoder.0.attention", "encoder.1.attention"]


def everyone_of(task, rows=20_000):
    """All rows there are: off-ramps know more and more of the model's logits, and how little they know."""
    rng = np.random.default_rng(0)
    given = rng.normal(0, 3, (rows, 3)).astype(np.float32)
    score, wrong = [], []
    for strength in (0.5, 0.2, 0.1):
        noise = strength * rng.gamma(1.0, 1.0, (rows, 1))
        found = given + noise * rng.normal(size=(rows, 3))
        if isinstance(task, Regression):
            outputs = np.hstack([found, np.log(noise / task.tolerance) + 0.3 * rng.normal(size=(rows, 3))])
            options = {"score": "deviation"}
        else:
            outputs, options = found / noise, {"score": task.scores[0], "levels": task.levels(3)}
        x = torch.from_numpy(outputs.astype(np.float32))
        size = x.shape[1]
        scores, logits = OffRamp([(torch.eye(size), torch.zeros(size))], temperature=1.0, **options).answer(x)
        score.append(scores[0].numpy())
        wrong.append(~task.same(given, logits.numpy()))
    return ExitScores.of_answers(np.array(score), np.array([*wrong, np.zeros(rows, bool)]))


@pytest.fixture(scope="module", params=TASKS)
def everyone(request):
    return TASKS[request.param], everyone_of(TASKS[request.param])


def take_rows(scores, places):
    return ExitScores.of_answers(scores.score[:, places], scores.wrong[:, places])


def candidates_of(task, ordering, calibration):
    costs = make_costs([0.1, 0.4, 0.7, 1.0], 0.01)
    jobs = [ScoredRows(scores, np.full(scores.rows, 10)) for scores in (ordering, calibration)]
    in_all = RowsInAll(np.arange(calibration.rows))
    return ExitCandidates(SITES, costs, *jobs, in_all, task.groups(3), answer=task.answer)


def violations(task, everyone, monkeypatch, calibration_rows=400, draws=DRAWS):
    """How often the policy that is selected errs on more than ALPHA of all rows, and how often it has exits."""
    rng = np.random.default_rng(1)
    broken, used = 0, 0
    for _ in range(draws // DRAWS_A_PATH):
        ordering, path = take_rows(everyone, rng.integers(0, everyone.rows, 300)), None
        for _ in range(DRAWS_A_PATH):
            drawn = take_rows(everyone, rng.integers(0, everyone.rows, calibration_rows))
            candidates = candidates_of(task, ordering, drawn)
            if path is None:
                monkeypatch.setattr(selection, "search", search)
                path = search([candidates.to_search(None)])
                monkeypatch.setattr(selection, "search", lambda _, path=path: path)
            found = selection.select([candidates], Confident(Guarantee(ALPHA, DELTA)))
            broken += bool(found.places) and share_wrong(everyone.at(found.places), found.thresholds) > ALPHA
            used += bool(found.places)
    return broken / draws, used / draws


def test_the_promise_is_broken_no_more_often_than_it_says(everyone, monkeypatch):
    broken, used = violations(*everyone, monkeypatch)
    assert broken <= at_most(DELTA, DRAWS)
    assert used > 0.9


def test_the_simulation_catches_who_takes_the_last_policy_that_looks_good(everyone, monkeypatch):
    def last_below(disagreements, rows, guarantee):
        return int(np.flatnonzero(disagreements / rows <= guarantee.max_disagreement)[-1])

    monkeypatch.setattr(promises, "fixed_sequence", last_below)
    assert violations(*everyone, monkeypatch, draws=60)[0] > at_most(DELTA, 60)


def test_a_certificate_says_what_stays_the_same_and_counts_by_exit(everyone):
    task, scores = everyone
    ordering, calibration = (take_rows(scores, slice(*ends)) for ends in ((0, 1500), (1500, 4000)))
    found = selection.select([candidates_of(task, ordering, calibration)], Confident(Guarantee(ALPHA, DELTA)))
    certificate = found.certificate
    assert certificate.answer == task.answer
    at = calibration.at(found.places)
    exits = at.exit_of_row(found.thresholds)
    assert found.thresholds.shape == (len(found.places), 1)
    assert certificate.disagreements == int(at.disagrees(exits).sum())
    counted = [(count.site, count.predicted_class, count.fired) for count in certificate.exits]
    assert counted == [(SITES[place], 0, int((exits == k).sum())) for k, place in enumerate(found.places)]
    assert all(0 < bound < 1 for site in SITES for bound in found.bounds(site))
    lines = certificate.table().splitlines()
    assert lines[0].startswith(f"same {task.answer} as the full model for at least 90.00% of rows")
    assert "class" not in certificate.table()
    assert len({len(line) for line in lines[2:-1]}) == 1
