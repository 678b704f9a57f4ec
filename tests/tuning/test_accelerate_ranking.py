"""`accelerate` for rerankers, from queries to a certified policy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitReranker, Ranking, accelerate
from moco_rt.inputs.tokenization import encode
from moco_rt.ranking import study
from moco_rt.ranking.candidates import make_candidates
from moco_rt.tuning import accelerate_ranking
from moco_rt.tuning.accelerate_ranking import forms_of, split_queries

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]

SPELLINGS = (str, str.strip, lambda text: text.replace(" ", "  "), lambda text: f" {text}")

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


def make_queries(count, documents=12, seed=0, scored=False):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 14))) for _ in range(count * (documents + 1))]
    found = []
    for place in range(count):
        query = f"{texts.pop()} {' '.join(WORDS[int(digit)] for digit in np.base_repr(place, 8))}"
        item = query, [texts.pop() for _ in range(documents)]
        found.append((*item, rng.normal(size=documents)) if scored else item)
    return found


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert(4, labels=1)


@pytest.mark.parametrize("scored", [False, True])
def test_a_reranker_gets_exits_and_a_certificate(model, word_tokenizer, tmp_path, scored):
    queries = make_queries(300, scored=scored)
    fast = accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(2), agreement=0.8, dtype=None)
    assert isinstance(fast, EarlyExitReranker)
    certificate = fast.ranking.certificate
    assert (certificate.rows, certificate.units) == (120, "queries")
    assert certificate.alpha == pytest.approx(0.2)
    assert "first 2 candidates" in fast.report()
    unseen = make_queries(20, seed=7, scored=scored)
    plain = EarlyExitReranker(model)
    plain.tokenizer = word_tokenizer
    scores = [query[2] if scored else None for query in unseen]
    found = [fast.rank(*query[:2], top_k=2, scores=of) for query, of in zip(unseen, scores, strict=True)]
    expected = [plain.rank(*query[:2], top_k=2) for query in unseen]
    same = [
        {row["corpus_id"] for row in a} == {row["corpus_id"] for row in b} for a, b in zip(found, expected, strict=True)
    ]
    assert np.mean(same) >= 0.6
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitReranker.from_pretrained(tmp_path)
    assert loaded.ranking.certificate == certificate
    assert [loaded.rank(*query[:2], top_k=2, scores=of) for query, of in zip(unseen, scores, strict=True)] == found


def test_forms_are_tried_against_the_given_models_answers(model, word_tokenizer, tmp_path, monkeypatch):
    real = study.measure_costs

    def faster_in_int8(models, *arguments):
        from dataclasses import replace

        found = real(models, *arguments)
        return [found[0], *(replace(found[0], compute=found[0].compute / 5) for _ in found[1:])]

    monkeypatch.setattr(study, "measure_costs", faster_in_int8)
    queries = make_queries(300)
    fast = accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(1), agreement=0.7, dtype="int8")
    assert fast.ranking.certificate.variant == "int8"
    fast.save_pretrained(tmp_path)
    loaded = EarlyExitReranker.from_pretrained(tmp_path)
    found = loaded.rank(*queries[0])
    assert found == fast.rank(*queries[0])
    given = loaded.given.rank(*queries[0])
    plain = EarlyExitReranker(model)
    plain.tokenizer = word_tokenizer
    assert given == plain.rank(*queries[0])


def test_forms_that_no_kernels_run_are_tried_where_they_are_asked_for_alone(model, word_tokenizer):
    given = EarlyExitReranker(model, backend="reference")
    given.tokenizer = word_tokenizer
    pairs = [(query, document) for query, documents in make_queries(4) for document in documents]
    assert forms_of(given, "auto", "reference", pairs, 32) == [given]
    assert [form.dtype for form in forms_of(given, "bfloat16", "reference", pairs, 32)] == [
        torch.float32,
        torch.bfloat16,
    ]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_queries_with_fewer_documents_than_are_kept_are_taken(model, word_tokenizer):
    queries = [(query, documents[: 1 + place % 4]) for place, (query, documents) in enumerate(make_queries(200))]
    fast = accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(2), agreement=0.8, dtype=None)
    assert fast.ranking.certificate.rows == 80
    assert [len(fast.rank(*query)) for query in queries[:4]] == [1, 2, 3, 4]


def test_queries_of_the_calibration_teach_nothing(model, word_tokenizer):
    queries, calibration = make_queries(150), make_queries(60, seed=3)
    fast = accelerate(
        model,
        [*queries, *calibration],
        tokenizer=word_tokenizer,
        task=Ranking(1),
        agreement=0.7,
        dtype=None,
        calibration=[*calibration, calibration[0]],
    )
    assert fast.ranking.certificate.rows == 60


def test_queries_with_equal_tokens_do_one_job(word_tokenizer):
    """A tokenizer that does not see how wide a space is: 40 queries, four spellings of each."""
    spelt = [f"{WORDS[a]} {WORDS[b]} " * 2 for a in range(5) for b in range(8)]
    queries = [make_candidates(change(text), ["a film"]) for change in SPELLINGS for text in spelt]
    encode_queries = partial(encode, word_tokenizer, max_length=32)
    assert len({np.asarray(row["input_ids"]).tobytes() for row in encode_queries([one.query for one in queries])}) == 40
    with pytest.raises(ValueError, match=r"at least 30 distinct queries .* \(got 16, 8, 16\)"):
        split_queries(queries, None, encode_queries, 0)
    many = [make_candidates(query, documents) for query, documents in make_queries(200)]
    jobs = split_queries([*many, *queries], [*queries[::-1], *many[:30]], encode_queries, 0)
    assert len(jobs[2]) == 70
    tokens = [
        {np.asarray(row["input_ids"]).tobytes() for row in encode_queries([q.query for q in job])} for job in jobs
    ]
    assert sum(map(len, tokens)) == len(set().union(*tokens)) == sum(map(len, jobs))


def test_of_queries_with_equal_tokens_a_random_one_stands_for_all(word_tokenizer):
    """Each stands there with a good list of documents first, and with a bad one twice."""
    texts = [query for query, _ in make_queries(300)]
    queries = [make_candidates(text, [document]) for document in ("good", "bad", "bad") for text in texts]
    encode_queries = partial(encode, word_tokenizer, max_length=32)
    learnt = [make_candidates(*query) for query in make_queries(100, seed=9)]
    jobs = split_queries(queries, None, encode_queries, 0)
    assert sum(map(len, jobs)) == len(texts)
    for some in ([one for job in jobs for one in job], split_queries(learnt, queries, encode_queries, 0)[2]):
        assert len(some) == len(texts)
        assert np.mean([one.documents == ["bad"] for one in some]) == pytest.approx(2 / 3, abs=0.12)


@pytest.mark.parametrize("scored", [False, True])
def test_scores_in_one_part_of_the_queries_alone_are_refused_before_the_work(
    model, word_tokenizer, one_line_error, monkeypatch, scored
):
    monkeypatch.setattr(accelerate_ranking, "study_ranking", lambda *_: pytest.fail("it began"))
    queries, calibration = make_queries(150, scored=scored), make_queries(60, seed=3, scored=not scored)
    alone = "inputs" if scored else "calibration"
    with one_line_error(
        ValueError, f"inputs and calibration must both have scores, or neither (got scores in {alone} alone)"
    ):
        accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(1), calibration=calibration)
    with one_line_error(TypeError, "calibration must be tuples (query, documents)"):
        accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(1), calibration=["a text"])


def test_a_form_that_was_asked_for_runs_or_the_model_as_it_was_given(model, word_tokenizer, monkeypatch):
    real = study.measure_costs
    times = {"slower": 5.0, "faster": 0.2}
    queries = make_queries(300)
    for speed, factor in times.items():
        monkeypatch.setattr(
            study,
            "measure_costs",
            lambda models, *rest, factor=factor: [
                replace(found, compute=found.compute * (factor if number else 1.0))
                for number, found in enumerate(real(models, *rest))
            ],
        )
        fast = accelerate(model, queries, tokenizer=word_tokenizer, task=Ranking(1), agreement=0.7, dtype="int8")
        certificate = fast.ranking.certificate
        assert certificate.variant == ("int8" if speed == "faster" else "as given")
        left = [row["exit"] for query in queries[:50] for row in fast.rank(*query)]
        if speed == "slower":
            assert set(left) == {None}


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"inputs": ["a text"]}, TypeError, "inputs must be tuples (query, documents)"),
        ({"inputs": make_queries(40)}, ValueError, "inputs must leave at least 30 distinct queries"),
        ({"promise": "per class"}, ValueError, "promise must be 'confident' to rank (got 'per class')"),
        ({"labels": [0]}, ValueError, "labels must be None to rank"),
        ({"columns": "text"}, ValueError, "columns must be None to rank"),
    ],
)
def test_what_does_not_fit_is_refused(model, word_tokenizer, one_line_error, changed, kind, words):
    options = {"inputs": make_queries(120), "tokenizer": word_tokenizer, "task": Ranking(1), **changed}
    with one_line_error(kind, words):
        accelerate(model, **options)


@pytest.mark.parametrize("keep_top", [0, -1, 2.5, True, "1"])
def test_keep_top_must_be_a_whole_number(one_line_error, keep_top):
    with one_line_error(ValueError, f"keep_top must be an integer of at least 1 (got {keep_top!r})"):
        Ranking(keep_top)


def test_a_model_with_two_labels_is_refused(tiny_bert, word_tokenizer, one_line_error):
    with one_line_error(ValueError, "model must have one label to rank by (got 2)"):
        accelerate(tiny_bert(), make_queries(120), tokenizer=word_tokenizer, task=Ranking(1))
