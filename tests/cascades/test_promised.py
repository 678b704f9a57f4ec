"""A cascade's certificate is about the ways out that there were: where others are in use nothing is promised."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tier_samples import make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition, recertify
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.statistics.bounds import upper_bound
from moco_rt.tuning import recertify_cascade

SITE = "encoder.0.attention"
EXIT, END = f"tier 0 {SITE}", "tier 0 end"
COUNTS = (ExitCount(EXIT, 0, 500, 40, 0.5), ExitCount(END, 0, 300, 40, 0.5))
CERTIFICATE = Certificate(0.9, 0.05, 1000, 80, 2.0, 1.0, COUNTS)
OTHERS = "other ways out are in use than were certified: nothing is promised of them, but of these:\n"

pytestmark = pytest.mark.usefixtures("one_thread")


def rule(bias=-1.0, bound=0.07):
    """A rule that is always true where the bias is above 0."""
    return LinearCondition(np.zeros(32, np.float32), bias, 0.0, bound)


@pytest.fixture
def cascade(tiny_bert, word_tokenizer):
    """Two models, the first with an exit, and a certificate of both."""
    fast = EarlyExitTextClassificationModel(tiny_bert(3, seed=4))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 1.0, 0.01), 1, SITE)
    cascade = Cascade([(fast, word_tokenizer), (tiny_bert(3, seed=3), word_tokenizer)], thresholds=[0.6])
    cascade.certificate = CERTIFICATE
    return cascade


def add(cascade):
    cascade.tiers[0].model.add_rule(rule(), 0, SITE)


def close(cascade):
    cascade.tiers[0].model.policy.close([0])


def shut(cascade):
    cascade.tiers[0].thresholds.fill_(torch.inf)


def alarm(cascade):
    monitor = cascade.monitor(rate=0.5)
    monitor.merge({"wrong": [0, 1000], "rows": [0, 1000]})


def replace_model(cascade):
    """By a copy, whose exits are the same."""
    cascade.tiers[0] = replace(cascade.tiers[0], model=copy.deepcopy(cascade.tiers[0].model))


def heat(cascade):
    cascade.tiers[0] = replace(cascade.tiers[0], temperature=2.0)


def cut(cascade):
    cascade.tiers[0] = replace(cascade.tiers[0], max_length=5)


CHANGES = pytest.mark.parametrize("change", [add, close, shut, alarm, replace_model, heat, cut])


def test_the_certificate_is_about_the_ways_out_there_are_when_it_is_set(cascade):
    assert cascade.is_certified
    assert cascade.report() == CERTIFICATE.table()
    assert copy.deepcopy(cascade).is_certified
    cascade.certificate = None
    assert not cascade.is_certified
    assert cascade.report() == "no certificate"


@CHANGES
def test_nothing_is_promised_of_other_ways_out(cascade, change, tmp_path):
    change(cascade)
    assert not cascade.is_certified
    assert cascade.report() == OTHERS + CERTIFICATE.table()
    for _ in range(2):
        cascade.save_pretrained(tmp_path)
        cascade = Cascade.from_pretrained(tmp_path)
        assert not cascade.is_certified
        assert cascade.report().startswith(OTHERS)
    cascade.certificate = CERTIFICATE
    assert cascade.is_certified


@pytest.mark.parametrize(("change", "expected"), [(None, True), (close, False), (shut, False)])
def test_files_of_earlier_versions_are_certified_where_nothing_counted_is_closed(cascade, change, expected, tmp_path):
    if change is not None:
        change(cascade)
    cascade.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "cascade.json").read_text(encoding="utf-8"))
    del about["certified"]
    (tmp_path / "cascade.json").write_text(json.dumps(about), encoding="utf-8")
    assert Cascade.from_pretrained(tmp_path).is_certified == expected


def test_what_is_no_truth_value_is_refused(cascade, tmp_path, one_line_error):
    cascade.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "cascade.json").read_text(encoding="utf-8"))
    (tmp_path / "cascade.json").write_text(json.dumps(about | {"certified": "yes"}), encoding="utf-8")
    with one_line_error(ValueError, f"{tmp_path / 'cascade.json'} must be whole (got certified that is no boolean)"):
        Cascade.from_pretrained(tmp_path)


def test_a_rule_added_by_hand_is_held_to_its_own_bound_although_a_certified_exit_has_its_name(cascade):
    before = [process.level for process in cascade.monitor().processes]
    assert before == [upper_bound(40, fired, 1 - 0.05 / 2) for fired in (500, 300)]
    add(cascade)
    monitor = cascade.monitor()
    assert [monitor.site(way) for way in range(3)] == [EXIT, EXIT, END]
    assert monitor.processes[1].level == pytest.approx(0.07)
    assert monitor.processes[2].level == upper_bound(40, 300, 1 - 0.05 / 3)


# Certified again


def test_a_monitor_begins_anew_when_the_cascade_is_certified_again(cascade):
    texts = list(dict.fromkeys(make_texts(400)))
    monitor = cascade.monitor(rate=1.0)
    cascade.predict(texts)
    assert sum(monitor.state()["rows"]) > 0
    add(cascade)
    new = recertify(cascade, texts).new
    assert cascade.watched_by is monitor
    assert monitor.state()["rows"] == [0] * 3
    left = sum(count.fired for count in new.exits if count.site == END)
    wrong = sum(count.wrong for count in new.exits if count.site == END)
    assert monitor.processes[2].level == upper_bound(wrong, left, 1 - 0.05 / 3)
    assert cascade.is_certified


@pytest.mark.parametrize("change", [None, close])
def test_expected_seconds_are_those_of_the_search_only_of_the_ways_out_that_it_found(cascade, change):
    cascade.certificate = replace(CERTIFICATE, seconds_full=1.0, seconds=1e-9)
    if change is not None:
        change(cascade)
    new = recertify(cascade, list(dict.fromkeys(make_texts(400)))).new
    assert (new.seconds == 1e-9) == (change is None)
    assert new.speedup < 1e3 or change is None


def test_what_a_monitor_closes_while_the_tiers_are_written_is_known_on_disk(cascade, tmp_path, monkeypatch):
    last = cascade.tiers[1].model
    own = last.save_pretrained

    def save(directory):
        own(directory)
        shut(cascade)

    monkeypatch.setattr(last, "save_pretrained", save)
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert not loaded.is_certified


def test_what_a_monitor_closes_while_fresh_rows_run_is_not_certified(cascade, monkeypatch):
    own = recertify_cascade.join_parts

    def join(parts):
        shut(cascade)  # after the rows' ways out were taken
        return own(parts)

    monkeypatch.setattr(recertify_cascade, "join_parts", join)
    new = recertify(cascade, list(dict.fromkeys(make_texts(400)))).new
    assert "tier 0 end" in {count.site for count in new.exits}
    assert not cascade.is_certified


def test_a_watched_cascade_is_copied_with_what_its_monitor_has_seen(cascade):
    cascade.monitor(rate=1.0).merge({"wrong": [0, 0], "rows": [5, 7]})
    copied = copy.deepcopy(cascade)
    assert [process.rows for process in copied.watched_by.processes] == [5, 7]
    texts = list(dict.fromkeys(make_texts(50)))
    assert torch.equal(copied.predict(texts).labels, cascade.predict(texts).labels)
    assert [process.rows for process in copied.watched_by.processes] == [
        process.rows for process in cascade.watched_by.processes
    ]
