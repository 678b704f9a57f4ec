"""A reranker: candidates that left, those that stayed, and files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from thread_counts import assert_no_threads_of_torch

from moco_rt import EarlyExitReranker, EarlyExitTextClassificationModel
from moco_rt.certification.certificate import Certificate
from moco_rt.policies.fingerprints import model_identity, run_identity
from moco_rt.ranking import ranked as ranked_module
from moco_rt.ranking.candidates import make_candidates
from moco_rt.ranking.elimination import RankScores
from moco_rt.ranking.estimates import RETRIEVED, ScoreEstimate
from moco_rt.ranking.policy import RankingPolicy
from moco_rt.ranking.ranked import ASK_ONLY, Elimination

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
SITES = ("embeddings", "encoder.0.attention", "encoder.1.attention")


def make_documents(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 20))) for _ in range(count)]


def random_policy(keep_top=2, margin=0.5, features=0, sites=SITES, size=64, seed=0):
    rng = np.random.default_rng(seed)
    estimates = [ScoreEstimate(site, rng.normal(size=size + features).astype(np.float32) / 8) for site in sites]
    if features:
        estimates.insert(0, ScoreEstimate(RETRIEVED, rng.normal(size=features).astype(np.float32)))
    return RankingPolicy(keep_top, estimates, np.full(len(estimates), margin, np.float32))


@pytest.fixture(params=["packed", "reference"])
def backend(request):
    return request.param


@pytest.fixture
def make(tiny_bert, word_tokenizer):
    def make(backend="packed", **options):
        model = EarlyExitReranker(tiny_bert(3, labels=1), backend=backend, **options)
        model.tokenizer = word_tokenizer
        return model

    return make


def test_without_a_policy_all_have_the_models_own_scores(make, backend):
    model, documents = make(backend), make_documents(30)
    found = model.rank("good film", documents)
    scores = model.predict([("good film", document) for document in documents]).scores
    assert [row["corpus_id"] for row in found] == torch.argsort(-scores, stable=True).tolist()
    exactly = 0 if backend == "packed" else 1e-5  # which pads, and so differs in the last bits
    assert [row["score"] for row in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=exactly)
    assert {row["exit"] for row in found} == {None}


def test_top_k_gives_the_first(make):
    model, documents = make(), make_documents(30)
    assert model.rank("film", documents, top_k=4) == model.rank("film", documents)[:4]
    assert len(model.rank("film", documents[:2], top_k=4)) == 2


def test_those_that_stay_have_the_models_bits_and_stand_first(make, backend):
    model, documents = make(backend), make_documents(40)
    full = {row["corpus_id"]: row["score"] for row in model.rank("good film", documents)}
    model.ranking = random_policy()
    found = model.rank("good film", documents)
    stayed = [row for row in found if row["exit"] is None]
    assert 2 <= len(stayed) < 40
    assert found[: len(stayed)] == stayed
    exactly = 0 if backend == "packed" else 1e-5
    assert all(row["score"] == pytest.approx(full[row["corpus_id"]], abs=exactly) for row in stayed)
    assert sorted(row["corpus_id"] for row in found) == list(range(40))
    order = [SITES.index(row["exit"]) for row in found[len(stayed) :]]
    assert order == sorted(order, reverse=True)


def test_what_leaves_is_what_recorded_estimates_say(make):
    """The loop that ranks, and the simulation that search and certificate rest on, do the same."""
    model, documents = make(), make_documents(40)
    policy = random_policy(features=4)
    candidates = make_candidates("good film", documents, np.random.default_rng(1).normal(size=40))
    encode = model.encoder(None)
    ask = np.full(4, ASK_ONLY, np.float32)
    recorded = Elimination(policy.estimates, ask, 2).run(model, encode, candidates)
    assert (recorded.exits == 4).all()
    assert np.isfinite(recorded.estimates).all()
    scores = RankScores(recorded.estimates[:, None], recorded.scores[None], recorded.scores[None], 2)
    margins = np.quantile(recorded.estimates.max(axis=1, keepdims=True) - recorded.estimates, 0.7, axis=1)
    margins = margins.astype(np.float32)
    found = Elimination(policy.estimates, margins, 2).run(model, encode, candidates)
    np.testing.assert_array_equal(found.exits, scores.exit_of_candidate(margins)[0])
    assert len(np.unique(found.exits)) > 2
    assert (found.lengths[found.exits == 0] == 0).all()  # not even tokenised


def test_retrieved_scores_that_a_policy_reads_must_be_given(make, one_line_error):
    model = make()
    model.ranking = random_policy(features=4)
    with one_line_error(ValueError, "scores must be given: the policy was found with those of the search (got None)"):
        model.rank("film", ["a", "b"])
    model.ranking = random_policy()
    assert model.rank("film", ["a", "b"], scores=[1.0, 2.0]) == model.rank("film", ["a", "b"])


def test_very_many_candidates_are_ranked_piece_by_piece(make, monkeypatch):
    model, documents = make(), make_documents(40)
    whole = model.rank("good film", documents)
    monkeypatch.setattr(ranked_module, "_BATCH_TOKENS", 50)
    assert model.rank("good film", documents) == whole
    model.ranking = random_policy()
    stayed = [row for row in model.rank("good film", documents) if row["exit"] is None]
    assert len(stayed) >= 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_candidates_are_ranked_too(make, count):
    model = make()
    model.ranking = random_policy(margin=0.0)
    assert len(model.rank("film", make_documents(count))) == count


def test_a_policy_is_saved_and_loaded_with_the_model(make, tmp_path, one_line_error):
    model, documents = make(), make_documents(40)
    model.ranking = random_policy()
    found = model.rank("good film", documents)
    model.save_pretrained(tmp_path)
    loaded = EarlyExitReranker.from_pretrained(tmp_path)
    assert loaded.rank("good film", documents) == found
    assert loaded.ranking.keep_top == 2
    loaded.save_pretrained(tmp_path)  # where it was loaded from
    assert EarlyExitReranker.from_pretrained(tmp_path).rank("good film", documents) == found
    about = json.loads((tmp_path / "ranking.json").read_text())
    for sites in ([], {}, [[], *SITES[1:]], [*SITES[:2], "encoder.9.attention"], [*reversed(SITES)]):
        (tmp_path / "ranking.json").write_text(json.dumps(about | {"sites": sites}))
        with one_line_error(ValueError, "must "):
            EarlyExitReranker.from_pretrained(tmp_path)
    model.ranking = None
    model.save_pretrained(tmp_path)  # takes the old policy away
    assert EarlyExitReranker.from_pretrained(tmp_path).ranking is None


# Monitors


def promised(keep_top=2, margin=0.5, wrong=10):
    """A policy with a certificate of 100 queries, so many of which differ."""
    return replace(
        random_policy(keep_top, margin), certificate=Certificate(0.2, 0.05, 100, wrong, 2.0, 1.0, (), units="queries")
    )


def test_checked_queries_are_those_whose_first_candidates_differ(make):
    model, plain = make(), make()
    model.ranking = promised(margin=1.0)
    monitor = model.monitor(rate=1.0, delta=1e-250)
    wrong = 0
    for seed in range(40):
        documents = make_documents(12, seed)
        kept = {row["corpus_id"] for row in model.rank("good film", documents, top_k=2)}
        wrong += kept != {row["corpus_id"] for row in plain.rank("good film", documents, top_k=2)}
    assert (monitor.process.rows, monitor.process.wrong) == (40, wrong)
    assert wrong > 0


def test_too_much_evidence_lets_nobody_leave(make, tmp_path):
    model, alarms = make(), []
    model.ranking = promised(margin=0.0, wrong=0)
    model.monitor(rate=1.0, on_alarm=alarms.append)
    for seed in range(60):
        model.rank("good film", make_documents(12, seed))
    assert len(alarms) == 1
    assert alarms[0].level < 0.05
    rows = model.rank("good film", make_documents(12))
    assert {row["exit"] for row in rows} == {None}
    assert rows == make().rank("good film", make_documents(12))
    table = model.ranking.certificate.table()
    ended = f"since the monitor's alarm the model as it was given ranks, and nobody leaves; before:\n{table}"
    assert model.report() == ended
    assert not model.is_certified
    model.save_pretrained(tmp_path)
    loaded = EarlyExitReranker.from_pretrained(tmp_path)
    assert loaded.watched_by.state() == model.watched_by.state()
    assert {row["exit"] for row in loaded.rank("good film", make_documents(12))} == {None}
    assert loaded.report() == ended
    loaded.watched_by = None
    assert loaded.report() == table
    assert loaded.is_certified
    loaded.save_pretrained(tmp_path)
    assert EarlyExitReranker.from_pretrained(tmp_path).watched_by is None


def test_after_an_alarm_the_model_as_it_was_given_ranks_whose_form_cannot_err(make, tiny_bert):
    """Not the exits but the numeric form may be what errs: to let nobody leave would not end it."""
    given, fast = make(), EarlyExitReranker(tiny_bert(3, labels=1, seed=5))
    fast.tokenizer = given.tokenizer
    fast.take_given(given)
    fast.ranking = promised(margin=1e3, wrong=0)
    fast.monitor(rate=1.0)
    documents = make_documents(12)
    assert fast.is_certified
    assert fast.rank("good film", documents) != given.rank("good film", documents)
    fast.watched_by.record(50, 50)
    assert fast.rank("good film", documents) == given.rank("good film", documents)
    assert not fast.is_certified


@torch.no_grad()
def test_nothing_is_promised_of_a_reranker_that_was_changed(make):
    model, documents = make(), make_documents(12)
    model.ranking = replace(promised(margin=1e3), made_for=model_identity(model.model))
    model.rank("good film", documents)
    assert model.is_certified
    model.model.classifier.weight.neg_()
    model.rank("good film", documents)
    assert not model.is_certified
    table = model.ranking.certificate.table()
    said = "the model was changed since it was certified: nothing is promised of it, but of what it was:"
    assert model.report() == f"{said}\n{table}"
    model.model.classifier.weight.neg_()
    model.rank("good film", documents)
    assert model.is_certified
    assert model.report() == table


def test_a_new_monitor_goes_on_from_the_one_before_and_an_alarm_stays_raised(make, tmp_path):
    model = make()
    model.ranking = promised(margin=0.0)
    model.monitor(rate=1.0).record(3, 40)
    model.monitor(rate=0.5)
    assert (model.watched_by.process.rows, model.watched_by.process.wrong) == (40, 3)
    model.watched_by.record(90, 100)
    assert model.monitor(rate=0.01).alarmed
    assert {row["exit"] for row in model.rank("good film", make_documents(12))} == {None}
    model.save_pretrained(tmp_path)
    loaded = EarlyExitReranker.from_pretrained(tmp_path)
    assert loaded.monitor(rate=0.01).alarmed
    drawn = [[EarlyExitReranker.from_pretrained(tmp_path).monitor(0.5).draws() for _ in range(64)] for _ in range(2)]
    assert drawn[0] != drawn[1]  # other queries in every process
    loaded.ranking = promised(margin=0.0, wrong=20)
    assert not loaded.monitor().alarmed  # another certificate
    loaded.watched_by = None
    loaded.save_pretrained(tmp_path)
    model.load_policy(tmp_path)  # another policy, which nothing has watched
    assert model.watched_by is None


def test_what_several_processes_have_seen_adds(make):
    model = make()
    model.ranking = promised()
    monitor = model.monitor(rate=1.0)
    monitor.merge({"queries": 30, "wrong": 2})
    monitor.merge({"queries": 10, "wrong": 1})
    assert (monitor.process.rows, monitor.process.wrong) == (40, 3)
    assert not monitor.alarmed
    monitor.merge({"queries": 60, "wrong": 50})
    assert monitor.alarmed
    many = model.monitor(rate=1.0, delta=1e-9)
    many.restore({"queries": 0, "wrong": 0, "alarmed": False})
    many.merge({"queries": 60, "wrong": 50}, {"queries": 10_000, "wrong": 0})
    assert not many.alarmed  # judged when both are added
    model.ranking = promised(wrong=20)
    other = model.monitor(rate=1.0)
    other.merge(monitor.state())
    assert (other.process.rows, other.alarmed) == (0, False)  # of another certificate
    model.ranking = promised()
    model.watched_by = None  # as in another process
    many = model.monitor(rate=1.0)
    many.merge({"queries": 10_000, "wrong": 0})
    many.merge(monitor.state())
    assert many.alarmed  # as it was elsewhere, though both together have seen enough that is right


def test_what_cannot_be_watched_is_refused(make, one_line_error):
    model = make()
    with one_line_error(ValueError, "reranker must have a certificate to be watched, which accelerate finds (it has n"):
        model.monitor()
    model.ranking = promised()
    with one_line_error(ValueError, "rate must be inside (0, 1] (got 2)"):
        model.monitor(rate=2)
    with one_line_error(ValueError, "delta must be inside (0, 1) (got 0)"):
        model.monitor(delta=0)
    with one_line_error(ValueError, "seed must be a whole number (got 1.5)"):
        model.monitor(seed=1.5)


def test_the_policy_of_another_model_is_refused(make, tmp_path, one_line_error, tiny_bert):
    model = make()
    model.ranking = random_policy()
    model.save_pretrained(tmp_path)
    made_for = run_identity(tiny_bert(3, labels=1, seed=5), model.tokenizer, 32)
    replace(model.ranking, made_for=made_for).save(tmp_path)
    with one_line_error(ValueError, "was made for a model with another weights"):
        EarlyExitReranker.from_pretrained(tmp_path)


def test_a_model_with_more_labels_ranks_nothing(tiny_bert, one_line_error):
    with one_line_error(ValueError, "model must have one label to rank by (got 2)"):
        EarlyExitReranker(tiny_bert())


def test_without_a_tokenizer_nothing_is_ranked(tiny_bert, one_line_error):
    with one_line_error(ValueError, "tokenizer must be set on the model to rank texts (got None)"):
        EarlyExitReranker(tiny_bert(labels=1)).rank("film", ["a"])


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_must_be_at_least_1(make, one_line_error, top_k):
    with one_line_error(ValueError, f"top_k must be at least 1 (got {top_k})"):
        make().rank("film", ["a"], top_k=top_k)


def test_a_plain_model_with_one_label_has_no_exits_as_ever(tiny_bert, one_line_error):
    with one_line_error(ValueError, "model must choose one label of at least two"):
        EarlyExitTextClassificationModel(tiny_bert(labels=1)).check_takes_exits()


def test_few_candidates_are_ranked_without_torchs_own_threads(make):
    model, documents = make(), make_documents(8)
    assert_no_threads_of_torch(lambda: model.rank("good film", documents))
    model.ranking = random_policy()
    assert_no_threads_of_torch(lambda: model.rank("good film", documents))


def test_a_promise_about_these_pairs_is_refused_where_another_form_runs(make, one_line_error):
    """Scores are no labels: that all of one label are equal says nothing of them."""
    fast, given = make(), make()
    pairs = [("good film", document) for document in make_documents(40)]
    assert fast.predict(pairs, certify=0.9).certificate.in_full
    fast.take_given(given)
    with one_line_error(ValueError, "model must choose one label of at least two"):
        fast.predict(pairs, certify=0.9)


def test_the_given_model_of_one_with_a_policy_ranks_without_it(make):
    model, documents = make(), make_documents(12)
    expected = model.rank("good film", documents)
    model.ranking = random_policy(margin=-1e3)
    assert model.rank("good film", documents) != expected
    assert model.given.rank("good film", documents) == expected
    assert model.given.model is model.model
    assert model.runs_as_given


def test_pairs_are_cut_where_the_ranking_cuts_them(make, word_tokenizer, tmp_path):
    model = make()
    model.ranking = replace(random_policy(margin=np.inf), made_for=run_identity(model.model, word_tokenizer, 8))
    model.save_pretrained(tmp_path)
    documents = make_documents(12)
    pairs = [("good film", document) for document in documents]
    ranked = {row["corpus_id"]: row["score"] for row in model.rank("good film", documents)}
    expected = [ranked[place] for place in range(12)]
    assert make().predict(pairs).scores.tolist() != pytest.approx(expected)
    another = make()
    another.ranking = model.ranking
    another.take_given(make())
    for found in (model, another, EarlyExitReranker.from_pretrained(tmp_path)):
        assert found.predict(pairs).scores.tolist() == pytest.approx(expected, abs=1e-6)
        assert found.given.predict(pairs).scores.tolist() == pytest.approx(expected, abs=1e-6)
        of_given = found.given.rank("good film", documents)
        assert {row["corpus_id"]: row["score"] for row in of_given} == pytest.approx(ranked, abs=1e-6)


def test_one_with_a_policy_stays_what_it_was_made_for(make, tmp_path, one_line_error):
    model = make()
    made_for = run_identity(model.model, model.tokenizer, 64)
    model.ranking = replace(random_policy(), made_for=made_for)
    with one_line_error(ValueError, "the ranking was made for a model with another dtype: float32 (got bfloat16)"):
        model.to(torch.bfloat16)
    assert model.model.dtype == torch.float32
    with torch.no_grad():
        model.model.classifier.bias += 1
    with one_line_error(ValueError, "the ranking was made for a model with another weights"):
        model.save_pretrained(tmp_path)
