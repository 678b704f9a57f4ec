"""What a server asks of each kind of model: rerankers with policies, cascades, several labels, and the warm-up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from server_samples import metrics_of
from tier_samples import make_texts

from moco_rt import Cascade, EarlyExitReranker, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.ranking.estimates import RETRIEVED, ScoreEstimate
from moco_rt.ranking.policy import RankingPolicy
from moco_rt.server.answering import Served, raw_scores
from moco_rt.serving.loading import load_answering

TEXTS = make_texts(20)
QUERY = {"query": "good film", "texts": TEXTS, "raw_scores": True}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def early_reranker(tiny_bert, word_tokenizer, tmp_path_factory):
    """`early_reranker(features)`: a folder of one whose candidates leave, by estimates that read so many features."""

    def make(features=0):
        rng = np.random.default_rng(0)
        estimates = [ScoreEstimate("encoder.0.attention", rng.normal(size=64 + features).astype(np.float32) / 8)]
        if features:
            estimates.insert(0, ScoreEstimate(RETRIEVED, np.array([1, 0, 0, 0], np.float32)))
        margins = np.full(len(estimates), 0.5, np.float32)
        promise = Certificate(0.2, 0.05, 100, 10, 2.0, 1.0, (), units="queries")
        model = EarlyExitReranker(tiny_bert(3, labels=1))
        model.tokenizer = word_tokenizer
        model.ranking = RankingPolicy(3, estimates, margins, promise, {"max_length": 16})
        where = tmp_path_factory.mktemp("early")
        model.save_pretrained(where)
        return where

    return make


def said_of(answer):
    assert answer.status_code == 200, answer.text
    return [(each["index"], each["score"]) for each in answer.json()]


def test_scores_of_a_search_reach_the_policy_that_reads_them(serve, early_reranker):
    folder = early_reranker(features=4)
    client, model = serve(folder), EarlyExitReranker.from_pretrained(folder)
    scores = np.random.default_rng(1).normal(size=len(TEXTS)).round(2).tolist()
    expected = model.rank("good film", TEXTS, scores=scores)
    assert {row["exit"] for row in expected} == {None, RETRIEVED}
    found = client.post("/rerank", json={**QUERY, "scores": scores})
    assert said_of(found) == [(row["corpus_id"], row["score"]) for row in expected]


def test_after_an_alarm_nothing_claims_the_certificate(early_reranker):
    model = EarlyExitReranker.from_pretrained(early_reranker())
    served, monitor = Served(model), model.monitor(rate=1.0)
    assert served.is_certified
    monitor.record(50, 50)
    assert not served.is_certified


def test_a_rerankers_policy_knows_where_texts_are_cut(serve, early_reranker, one_line_error):
    folder = early_reranker()
    client = serve(folder)
    for words, status in ((11, 200), (12, 413)):  # beside the query's two, and the special tokens
        body = {**QUERY, "texts": ["good " * words], "truncate": False}
        assert client.post("/rerank", json=body).status_code == status
    with one_line_error(
        ValueError, "max_length must be left to the policy of a reranker, which knows its own (got 32)"
    ):
        Served(load_answering(folder), 32)


def test_without_them_a_query_runs_to_the_end(serve, early_reranker):
    """Texts are cut to what the policy was found with all the same."""
    folder = early_reranker(features=4)
    client, model = serve(folder), EarlyExitReranker.from_pretrained(folder)
    pairs = [("good film", text) for text in TEXTS]
    scores = model.predict(pairs, max_length=16).scores
    found = said_of(client.post("/rerank", json=QUERY))
    assert [place for place, _ in found] == torch.argsort(-scores, stable=True).tolist()
    assert [score for _, score in found] == pytest.approx(sorted(scores.tolist(), reverse=True), rel=1e-5)
    assert metrics_of(client)['moco_rt_exits{site="end"}'] == len(TEXTS)


def test_scores_that_nobody_reads_change_nothing(serve, early_reranker, reranker_folder):
    for folder in (early_reranker(), reranker_folder):
        client = serve(folder)
        plain = said_of(client.post("/rerank", json=QUERY))
        assert said_of(client.post("/rerank", json={**QUERY, "scores": [0] * len(TEXTS)})) == plain


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([1, 2], "scores must be one number for each of the 3 texts (got 2)"),
        ([], "scores must be one number for each of the 3 texts (got 0)"),
        (3, "scores: Input should be a valid list"),
        ([1, 2, "3"], "scores.2: Input should be a valid number"),
        ([1, 2, True], "scores.2: Input should be a valid number"),
        ([1, 2, None], "scores.2: Input should be a valid number"),
        ([1, float("nan"), 3], "scores.1: Input should be a finite number"),
        ([float("inf"), 2, 3], "scores.0: Input should be "),
        ([1, 2, 1e39], "scores.2: Input should be "),
        ([1, 2, 10**400], "scores.2: Input should be "),
    ],
)
def test_scores_that_are_no_numbers_of_the_texts_are_refused(serve, reranker_folder, scores, words):
    body = json.dumps({"query": "a", "texts": ["b", "c", "d"], "scores": scores})
    answer = serve(reranker_folder).post("/rerank", content=body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
    assert answer.json()["error"].startswith(words)


def test_a_rerankers_monitor_is_told_of(serve, early_reranker):
    client = serve(early_reranker(), monitor=1.0)
    assert metrics_of(client)['moco_rt_monitor_rows{exit="0"}'] == 0
    for _ in range(3):
        client.post("/rerank", json=QUERY)
    assert metrics_of(client)['moco_rt_monitor_rows{exit="0"}'] == 3


def test_logits_of_several_labels_are_the_models_own(tiny_bert, word_tokenizer, tmp_path):
    """In float32 their probabilities are 0 and 1."""
    model = tiny_bert(2, labels=4, problem_type="multi_label_classification")
    with torch.no_grad():
        model.classifier.bias += torch.tensor([40.0, -120.0, 0.0, 18.0])
    model.save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    served = Served(load_answering(tmp_path))
    for text, scores in zip(TEXTS, served.answer(TEXTS), strict=True):
        with torch.no_grad():
            logits = model(**word_tokenizer(text, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(raw_scores(scores), logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores.values, logits.sigmoid(), rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def cascade_folder(tiny_bert, word_tokenizer, tmp_path_factory):
    """Rows of it leave at an exit inside the first tier, at its end and at the last one's."""
    first = EarlyExitTextClassificationModel(tiny_bert(3, labels=3, seed=4))
    weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
    first.add_rule(LinearCondition(weight, 2.0, 1.0, 0.01), 1, "encoder.0.attention")
    cascade = Cascade([(first, word_tokenizer), (tiny_bert(3, labels=3, seed=3), word_tokenizer)], thresholds=[0.9])
    counts = tuple(ExitCount(f"tier 0 {way}", 0, 500, 400, 0.5) for way in ("encoder.0.attention", "end"))
    cascade.certificate = Certificate(0.05, 0.05, 1000, 800, 2.0, 1.0, counts)
    where = tmp_path_factory.mktemp("cascade")
    cascade.save_pretrained(where)
    return where


def ways_out(found):
    """Where rows of a cascade left, by the names of its certificate."""
    return [None if row["tier"] == 1 else f"tier 0 {row['exit'] or 'end'}" for row in found]


def test_exits_of_a_cascade_are_its_ways_out(serve, cascade_folder):
    client = serve(cascade_folder)
    ways = ways_out(Cascade.from_pretrained(cascade_folder).predict(TEXTS))
    assert set(ways) == {None, "tier 0 encoder.0.attention", "tier 0 end"}
    client.post("/predict", json={"inputs": [[text] for text in TEXTS]})
    found = metrics_of(client)
    for way in set(ways):
        assert found[f'moco_rt_exits{{site="{way or "end"}"}}'] == ways.count(way)


def test_a_shadow_of_a_cascade_answers_by_the_last_tier(serve, cascade_folder, tmp_path):
    cascade = Cascade.from_pretrained(cascade_folder)
    early, last = cascade.predict(TEXTS), cascade.given.predict(TEXTS)
    assert (early.labels != last.labels).any()
    client = serve(cascade_folder, shadow=str(tmp_path / "shadow.jsonl"))
    answers = client.post("/predict", json={"inputs": [[text] for text in TEXTS]}).json()
    assert [answer[0]["label"] for answer in answers] == [row["label"] for row in last]
    lines = [json.loads(line) for line in (tmp_path / "shadow.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["label"] for row in last]
    assert [line["policy_label"] for line in lines] == [row["label"] for row in early]
    assert [line["exit"] for line in lines] == ways_out(early)


def test_no_tier_of_a_cascade_cuts_what_must_stay_whole(serve, cascade_folder):
    client = serve(cascade_folder)
    for words, status in ((62, 200), (63, 413)):
        answer = client.post("/predict", json={"inputs": "good " * words, "truncate": False})
        assert answer.status_code == status


def test_what_warms_up_is_evidence_of_nothing(serve, folder, cascade_folder, tmp_path):
    for model in (folder, cascade_folder):
        client = serve(model, monitor=1.0, shadow=str(tmp_path / "shadow.jsonl"))
        seen = [value for name, value in metrics_of(client).items() if name.startswith("moco_rt_monitor_rows")]
        assert len(seen) >= 1
        assert set(seen) == {0}
    assert (tmp_path / "shadow.jsonl").read_text() == ""
    client = serve(cascade_folder, monitor=1.0)
    client.post("/predict", json={"inputs": [[text] for text in TEXTS]})
    assert metrics_of(client)['moco_rt_monitor_rows{exit="0"}'] > 0
