"""A cascade's monitor: what it counts, what it closes, and that its evidence adds and lasts."""

from __future__ import annotations

import json

import pytest
import torch
from tier_samples import assert_same_bits, count_words, make_texts

from moco_rt import Cascade, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.certificate import Certificate, ExitCount

EXIT = "tier 0 encoder.0.attention"

pytestmark = pytest.mark.usefixtures("one_thread")


def promise(**wrong):
    """A certificate of 1,000 rows, half of which left by these ways out, with so many wrong ones."""
    counts = tuple(ExitCount(site, 0, 500, count, 0.5) for site, count in wrong.items())
    return Certificate(0.05, 0.05, 1000, sum(wrong.values()), 2.0, 1.0, counts)


@pytest.fixture
def exits(tiny_bert):
    """Rows leave it at one site."""
    fast = EarlyExitTextClassificationModel(tiny_bert(3, seed=4))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    fast.add_rule(LinearCondition(weight, 0.0, 1.0, 0.01), 1, "encoder.0.attention")
    return fast


@pytest.fixture
def cascade(exits, tiny_bert, word_tokenizer):
    cascade = Cascade([(exits, word_tokenizer), (tiny_bert(3, seed=3), word_tokenizer)], thresholds=[0.6])
    cascade.certificate = promise(**{EXIT: 400, "tier 0 end": 400})
    return cascade


def last_alone(cascade, texts):
    """Labels of the last tier without exits."""
    last = cascade.tiers[-1]
    return EarlyExitTextClassificationModel(last.model.model).predict(texts, tokenizer=last.tokenizer).labels


def counted(cascade, found, texts):
    """(rows, wrong) of both ways out of the first tier, from answers."""
    wrong, early = found.labels != last_alone(cascade, texts), found.tier == 0
    by_exit = [early & (found.exit_rule == rule) for rule in (0, -1)]
    return [(int(some.sum()), int((some & wrong).sum())) for some in by_exit]


def seen(monitor):
    return [(process.rows, process.wrong) for process in monitor.processes]


def test_every_row_that_is_answered_early_is_counted_where_all_are_checked(cascade):
    texts = make_texts(300)
    plain = cascade.predict(texts)
    monitor = cascade.monitor(rate=1.0)
    found = cascade.predict(texts)
    assert_same_bits(found, plain)
    assert [monitor.site(way) for way in range(2)] == [EXIT, "tier 0 end"]
    assert seen(monitor) == counted(cascade, found, texts)
    assert min(rows for rows, _ in seen(monitor)) > 0


def test_streams_and_padded_batches_are_counted_too(cascade, word_tokenizer):
    texts = make_texts(100)
    expected = counted(cascade, cascade.predict(texts), texts)
    monitor = cascade.monitor(rate=1.0)
    list(cascade.stream(texts))
    assert seen(monitor) == expected
    cascade.watched_by = None  # begin anew
    monitor = cascade.monitor(rate=1.0)
    cascade(**word_tokenizer(texts, padding=True, return_tensors="pt"))
    assert seen(monitor) == expected


def test_a_share_of_the_rows_is_checked(cascade):
    monitor = cascade.monitor(rate=0.1, seed=1)
    found = cascade.predict(make_texts(2000))
    early = int((found.tier == 0).sum())
    assert sum(rows for rows, _ in seen(monitor)) == pytest.approx(early / 10, rel=0.3)


@pytest.mark.parametrize(("erring", "way"), [(EXIT, 0), ("tier 0 end", 1)])
def test_what_errs_too_often_is_closed_and_its_rows_go_on(cascade, erring, way):
    other = {EXIT: 499, "tier 0 end": 499} | {erring: 0}
    cascade.certificate = promise(**other)
    alarms = []
    monitor = cascade.monitor(rate=1.0, on_alarm=alarms.append)
    texts = make_texts(600)
    cascade.predict(texts)
    assert [alarm.site for alarm in alarms] == [erring]
    assert (alarms[0].exit, alarms[0].rows, alarms[0].step) == (way, monitor.processes[way].rows, None)
    found = cascade.predict(texts)
    early = found.tier == 0
    assert early.any()
    assert (found.exit_rule[early] == 0).all() if way else (found.exit_rule[early] == -1).all()
    rest = ~early
    assert torch.equal(found.labels[rest], last_alone(cascade, texts)[rest])
    cascade.predict(texts)
    assert len(alarms) == 1


def test_evidence_of_several_processes_adds(cascade):
    monitor = cascade.monitor(rate=1.0, delta=1e-9)
    states = []
    for seed in (1, 2):
        cascade.predict(make_texts(100, seed=seed))
        states.append(json.loads(json.dumps(monitor.state())))
        cascade.watched_by = None  # as in another process
        monitor = cascade.monitor(rate=1.0, delta=1e-9)
    monitor.merge(*states)
    total = [sum(state["rows"][way] for state in states) for way in range(2)]
    assert [rows for rows, _ in seen(monitor)] == total
    cascade.certificate = promise(**{EXIT: 300})  # on other rows
    for take in (monitor.merge, monitor.restore):
        take(states[0])
        assert seen(monitor) == [(0, 0)] * 2


def test_a_new_monitor_goes_on_from_the_one_before(cascade, tmp_path):
    first = cascade.monitor(rate=1.0, delta=1e-9)
    cascade.predict(make_texts(100))
    known = seen(first)
    assert min(rows for rows, _ in known) > 0
    assert seen(cascade.monitor(rate=0.5, delta=1e-9)) == known
    cascade.save_pretrained(tmp_path)
    assert seen(Cascade.from_pretrained(tmp_path).monitor(rate=0.1)) == known
    condition = LinearCondition(torch.ones(32).numpy(), 0.0, 1.0, 0.01)
    cascade.tiers[0].model.add_rule(condition, 1, "encoder.1.attention")  # a way out more
    assert seen(cascade.monitor(rate=0.5)) == [known[0], (0, 0), known[1]]
    cascade.certificate = promise(**{EXIT: 300})  # on other rows
    assert seen(cascade.monitor(rate=0.5)) == [(0, 0)] * 3


def test_merged_evidence_closes_too(cascade):
    cascade.certificate = promise(**{EXIT: 0, "tier 0 end": 0})
    monitor = cascade.monitor()
    monitor.merge({"rows": [50, 0], "wrong": [40, 0]})
    assert cascade.tiers[0].model.policy.closed == {0}
    assert not torch.isinf(cascade.tiers[0].thresholds).any()


def test_it_lasts_on_disk(cascade, tmp_path):
    monitor = cascade.monitor(rate=0.5, delta=0.01)
    cascade.predict(make_texts(200))
    monitor._close(0, -1)
    cascade.save_pretrained(tmp_path)
    loaded = Cascade.from_pretrained(tmp_path)
    assert loaded.watched_by.state() == monitor.state()
    assert torch.isinf(loaded.tiers[0].thresholds).all()
    assert_same_bits(loaded.predict(make_texts(50)), cascade.predict(make_texts(50)))
    again = Cascade.from_pretrained(tmp_path).watched_by
    drawn = [one._random.random(10).tolist() for one in (loaded.watched_by, again)]
    assert drawn[0] != drawn[1]  # other rows in every process
    loaded.watched_by = None
    loaded.save_pretrained(tmp_path)
    assert Cascade.from_pretrained(tmp_path).watched_by is None


def test_a_function_has_an_end_alone(tiny_bert, word_tokenizer):
    cascade = Cascade([count_words, (tiny_bert(3, seed=3), word_tokenizer)], thresholds=[0.7])
    cascade.certificate = promise(**{"tier 0 end": 450})
    monitor = cascade.monitor(rate=1.0)
    found = cascade.predict(make_texts(100))
    assert monitor.ways == [(0, -1)]
    assert monitor.processes[0].rows == int((found.tier == 0).sum()) > 0


def test_what_cannot_be_watched_is_refused(cascade, tiny_bert, word_tokenizer, one_line_error):
    with one_line_error(ValueError, "rate must be inside (0, 1] (got 0)"):
        cascade.monitor(rate=0)
    with one_line_error(ValueError, "delta must be inside (0, 1) (got 1)"):
        cascade.monitor(delta=1)
    with one_line_error(ValueError, "rate must be a number inside (0, 1] (got 'often')"):
        cascade.monitor(rate="often")
    with one_line_error(ValueError, "seed must be at least 0 (got -1)"):
        cascade.monitor(seed=-1)
    with one_line_error(ValueError, "state must be of 2 ways out (got 1)"):
        cascade.monitor().merge({"rows": [1], "wrong": [0]})
    cascade.certificate = None
    with one_line_error(ValueError, "cascade must have a certificate to be watched, which accelerate finds (it has no"):
        cascade.monitor()
    alone = Cascade([(tiny_bert(3), word_tokenizer)], thresholds=[])
    alone.certificate = promise()
    with one_line_error(ValueError, "cascade must have a way out before the last tier's end to be watched"):
        alone.monitor()
