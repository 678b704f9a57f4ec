"""Accelerate a reranker: the query with all its candidates is the unit of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from moco_rt.architectures import Ranking, load_tokenizer, unwrap
from moco_rt.architectures.conversion import Dtype
from moco_rt.cascades.tier import backend_to_keep
from moco_rt.certification.certificate import GIVEN
from moco_rt.certification.promises import Confident
from moco_rt.encoding import Encoded
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import numeric_form, run_identity
from moco_rt.ranking.candidates import Candidates, list_candidates
from moco_rt.ranking.certify import select_margins
from moco_rt.ranking.policy import RankingPolicy
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.ranking.study import study_ranking
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.studies.splits import Equals, first_of_equals
from moco_rt.tuning.quantize import quantize
from moco_rt.tuning.variants import DtypeChoice, other_dtypes, try_form

#: Shares of the distinct queries that teach estimates and that order the path; the rest certifies.
_FIT, _ORDERING = 0.4, 0.2
#: Share that teaches where the certificate has queries of its own; the rest orders the path.
_FIT_OF_OTHERS = 0.65
#: Distinct queries that each of the three jobs needs to make sense at all.
_FEWEST = 30


def accelerate_ranking(
    model: Any,
    inputs: Iterable[Any],
    calibration: Iterable[Any] | None,
    tokenizer: Any,
    task: Ranking,
    promise: Confident,
    dtype: DtypeChoice | None,
    max_length: int | None,
    seed: int,
) -> EarlyExitReranker:
    """Find the fastest way to a reranker's first candidates; arguments as for `accelerate`.

    Args:
        model: a Hugging Face `...ForSequenceClassification` with one label.
        inputs: tuples `(query, documents)`, or `(query, documents, scores)` with those of the search.
        calibration: queries for the certificate alone; None: 40% of the distinct `inputs`.
        tokenizer: the model's; None: loaded from where the model came from.
        task: how many candidates must stay the first ones.
        promise: the share of queries, and the confidence.
        dtype: see `accelerate`.
        max_length: in tokens.
        seed: of the split.

    Raises:
        TypeError: inputs are not queries with documents.
        ValueError: the model has not one label, there are too few distinct queries, or scores of the search are known
            of `inputs` or of `calibration` alone.
    """
    backend = backend_to_keep(model) if isinstance(model, EarlyExitTextClassificationModel) else "auto"
    model, tokenizer = unwrap(model, tokenizer)
    given = EarlyExitReranker(model, backend=backend)
    given.tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
    learnt = list_candidates(inputs)
    certifying = None if calibration is None else list_candidates(calibration, "calibration")
    _check_scores(learnt, certifying)
    longest = length_limit(given.tokenizer, given.max_seqlen, max_length)
    encode_queries = partial(encode, given.tokenizer, max_length=longest)
    queries = split_queries(learnt, certifying, encode_queries, seed)
    forms = forms_of(given, dtype, backend, [pair for one in queries[0] for pair in one.pairs], longest)
    names = [GIVEN, *(numeric_form(form.model) for form in forms[1:])]
    studies = study_ranking(forms, given.encoder(longest), queries, task.keep_top)
    chosen = select_margins(studies, names, promise, pinned=dtype not in (None, "auto"))
    fast, estimates = forms[chosen.form], studies[chosen.form].estimates
    identity = run_identity(fast.model, given.tokenizer, longest)
    fast.ranking = RankingPolicy(task.keep_top, estimates, chosen.margins, chosen.certificate, identity)
    if fast is not given:
        fast.take_given(given)
    return fast


def _check_scores(inputs: Sequence[Candidates], calibration: Sequence[Candidates] | None) -> None:
    """Refuse queries of which one part has scores of the search, and the other has not."""
    if calibration is None:
        return
    scored = [queries[0].retrieved is not None for queries in (inputs, calibration)]
    if scored[0] != scored[1]:
        alone = "inputs" if scored[0] else "calibration"
        raise ValueError(f"inputs and calibration must both have scores, or neither (got scores in {alone} alone)")


def forms_of(
    given: EarlyExitReranker, dtype: DtypeChoice | None, backend: str, pairs: Sequence[Any], max_length: int
) -> list[EarlyExitReranker]:
    """Return the model as it was given, and in the other forms that are tried."""

    def in_form(form: Dtype) -> EarlyExitReranker:
        if form != "int8":
            return EarlyExitReranker(given.model, backend=backend, dtype=form)
        copy = quantize(given.model, pairs, tokenizer=given.tokenizer, max_length=max_length)
        return EarlyExitReranker(copy, backend=backend)

    made = [try_form(form, dtype, partial(in_form, form)) for form in other_dtypes(given, dtype)]
    others = [model for model in made if model is not None]
    for model in others:
        model.tokenizer = given.tokenizer
    return [given, *others]


def split_queries(
    queries: Sequence[Candidates],
    calibration: Sequence[Candidates] | None,
    encode: Callable[[Sequence[str]], Sequence[Encoded]],
    seed: int,
) -> tuple[list[Candidates], list[Candidates], list[Candidates]]:
    """Share queries out between the three jobs; of those with equal tokens one, with its documents, stands for all.

    It is drawn at random: documents differ, and those of the first may be of another kind than those of the others.
    """
    everything = [*(calibration or []), *queries]
    first = first_of_equals(encode([one.query for one in everything])) if everything else np.empty(0, np.int64)
    known = len(calibration or [])
    equals = Equals(unit=first, copies=np.arange(len(first)))
    certifying = [everything[place] for place in equals.draw(np.arange(known), seed)]
    others = equals.draw(np.flatnonzero(first >= known), seed)
    shuffled = [everything[place] for place in others[np.random.default_rng(seed).permutation(len(others))]]
    if calibration is None:
        fit, start = int(_FIT * len(shuffled)), int((_FIT + _ORDERING) * len(shuffled))
        certifying = shuffled[start:]
    else:
        fit, start = int(_FIT_OF_OTHERS * len(shuffled)), len(shuffled)
    parts = shuffled[:fit], shuffled[fit:start], certifying
    if min(map(len, parts)) < _FEWEST:
        got = ", ".join(str(len(part)) for part in parts)
        raise ValueError(
            f"inputs must leave at least {_FEWEST} distinct queries to fit, to search and to certify on (got {got})"
        )
    return parts
