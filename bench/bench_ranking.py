"""A reranker whose hopeless candidates leave: `python bench/bench_ranking.py`, about twenty minutes.

`minilm-qnli-rank` on `../shared/data/qnli`: 50 candidates a query, with and without the scores of a TF-IDF search.
1,100 queries to find and certify on (the same first ones for 95% of queries, confidence 95%), the rest to report: share
of queries whose first candidates stay, and time of all candidates run to the end over that with exits, in turns, in
each form of the model. The first scores must be the ones without exits, bit for bit.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import RESULTS, SHARED
from docs_table import put_into_docs
from sklearn.feature_extraction.text import TfidfVectorizer

from moco_rt import EarlyExitReranker
from moco_rt.architectures import load_classifier
from moco_rt.certification.promises import Confident
from moco_rt.inputs.tokenization import encode
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.ranking.candidates import Candidates, list_candidates
from moco_rt.ranking.certify import select_margins
from moco_rt.ranking.policy import RankingPolicy
from moco_rt.ranking.ranked import Elimination, Ranked
from moco_rt.ranking.study import RankingStudy, study_ranking
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.tuning.accelerate_ranking import forms_of, split_queries

STORED = RESULTS / "ranking.json"
KEPT = (1, 3, 10)
AGREEMENT = 0.95
#: Numeric forms that are tried, by how `dtype` says it.
TRIED = {"given": "the given one", "auto": "all"}
CONFIDENCE = 0.95
FIND = 1100
LIMIT = 128


def queries() -> list[tuple[str, list[str], np.ndarray]]:
    """Queries in a seeded order, with their candidates and the scores that a TF-IDF search gives these."""
    folder = SHARED / "data" / "qnli"
    lines = {
        name: (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in ("documents", "queries")
    }
    documents = [json.loads(line)["text"] for line in lines["documents"]]
    asked = [json.loads(line) for line in lines["queries"]]
    search = TfidfVectorizer(sublinear_tf=True).fit(documents)
    vectors, wanted = search.transform(documents), search.transform([query["query"] for query in asked])
    found = []
    for place in np.random.default_rng(0).permutation(len(asked)):
        candidates = asked[place]["candidates"]
        scores = (vectors[candidates] @ wanted[place].T).toarray()[:, 0]
        found.append((asked[place]["query"], [documents[i] for i in candidates], scores))
    return found


def first(ranked: Ranked, exits: int, keep_top: int) -> set[int]:
    """The first candidates of a query: those that ran to the end, by their scores."""
    scores = np.where(ranked.exits == exits, ranked.scores, -np.inf)
    return set(np.argsort(-scores, kind="stable")[:keep_top].tolist())


def report(fast: EarlyExitReranker, given: EarlyExitReranker, asked: list[Candidates], keep_top: int) -> dict:
    """What becomes of queries that nothing has seen; each is run in turn by all."""
    policy, nothing = fast.ranking, Elimination([], np.empty(0, np.float32), 1)
    exits, ends = Elimination(policy.estimates, policy.margins, keep_top), len(policy.estimates)
    encode, same, seconds = given.encoder(LIMIT), [], []
    for one in asked:
        times, found = [], []
        for model, elimination in ((given, nothing), (fast, nothing), (fast, exits)):
            start = perf_counter()
            found.append(elimination.run(model, encode, one))
            times.append(perf_counter() - start)
        full, own, short = found
        ran = short.exits == ends
        assert np.array_equal(own.scores[ran], short.scores[ran]), "scores of those that stay must be the model's"
        same.append(first(full, 0, keep_top) == first(short, ends, keep_top))
        seconds.append(times)
    of_given, of_own, of_exits = np.array(seconds).sum(axis=0)
    return {
        "queries": len(asked),
        "same": round(float(np.mean(same)), 4),
        "certified": f"{policy.certificate.disagreements} of {policy.certificate.rows}",
        "variant": policy.certificate.variant,
        "over_own_form": round(float(of_own / of_exits), 3),
        "over_given": round(float(of_given / of_exits), 3),
    }


def keeping(study: RankingStudy, keep_top: int) -> RankingStudy:
    """The same study for another number of first candidates."""
    ordering, calibration = (
        replace(form, scores=replace(form.scores, keep_top=keep_top)) for form in (study.ordering, study.calibration)
    )
    return replace(study, ordering=ordering, calibration=calibration)


def table(results: dict) -> str:
    """Make the table of docs/benchmarks.md."""
    lines = [
        "| kept | scores of the search | forms tried | runs in | queries that keep them "
        "| over the same form without exits | over the given model |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for name, found in results.items():
        kept, scored, tried = name.split("/")
        lines.append(
            f"| first {kept} | {scored} | {TRIED[tried]} | {found['variant']} "
            f"| {found['same']:.1%} of {found['queries']} "
            f"| {found['over_own_form']:.2f}x | {found['over_given']:.2f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--find", type=int, default=FIND, help="queries to find and certify on (%(default)s)")
    parser.add_argument("--report", type=int, default=100, help="queries to report on, at most (%(default)s)")
    parser.add_argument("--keep", type=int, nargs="+", default=KEPT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED, help="only %(default)s changes docs/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_classifier(str(SHARED / "models" / "minilm-qnli-rank"))
    given = EarlyExitReranker(model)
    given.tokenizer = tokenizer
    asked, results = queries(), {}
    for scored in ("TF-IDF", "none"):
        inputs = list_candidates(asked if scored == "TF-IDF" else [query[:2] for query in asked])
        find, unseen = inputs[: options.find], inputs[options.find : options.find + options.report]
        jobs = split_queries(find, None, partial(encode, tokenizer, max_length=LIMIT), seed=0)
        forms = forms_of(given, "auto", "auto", [pair for one in jobs[0] for pair in one.pairs], LIMIT)
        names = ["as given", *(numeric_form(form.model) for form in forms[1:])]
        studies = study_ranking(forms, given.encoder(LIMIT), jobs, KEPT[0])
        for keep_top in options.keep:
            of_kept = [keeping(study, keep_top) for study in studies]
            for tried, count in (("given", 1), ("auto", len(forms))):
                promise = Confident(Guarantee.of_agreement(AGREEMENT, CONFIDENCE))
                chosen = select_margins(of_kept[:count], names, promise)
                print(chosen.certificate.table(), flush=True)
                fast, estimates = forms[chosen.form], studies[chosen.form].estimates
                fast.ranking = RankingPolicy(keep_top, estimates, chosen.margins, chosen.certificate)
                results[f"{keep_top}/{scored}/{tried}"] = report(fast, given, unseen, keep_top)
                fast.ranking = None
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    if options.out == STORED:
        put_into_docs("ranking", table(results))


if __name__ == "__main__":
    main()
