"""EarlyExitReranker: a cross-encoder with one label whose hopeless candidates leave early."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moco_rt.architectures import Source, find_file
from moco_rt.architectures.conversion import Dtype
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.policies.fingerprints import check_made_for, check_tokenizer, is_made_for, model_identity
from moco_rt.policies.monitor import Alarm
from moco_rt.policies.promised import OF_ANOTHER_MODEL
from moco_rt.ranking.candidates import Candidates, make_candidates
from moco_rt.ranking.monitor import RankingMonitor, read_state
from moco_rt.ranking.policy import JSON, MONITOR, TENSORS, RankingPolicy
from moco_rt.ranking.ranked import Elimination, Ranked
from moco_rt.runtime import checkpoints
from moco_rt.runtime.classifiers.given import preparation
from moco_rt.runtime.model import EarlyExitTextClassificationModel

if TYPE_CHECKING:
    from typing_extensions import Self

#: Scores all candidates by the model itself.
_TO_THE_END = Elimination([], np.empty(0, np.float32), 1)


class EarlyExitReranker(EarlyExitTextClassificationModel):
    """A model that scores pairs of a query and a document, and ranks the candidates of a query.

    `predict(pairs)` gives the model's own scores of all pairs. `rank` lets candidates leave between layers as soon as
    they cannot be among the first, where there is a policy, which `accelerate` finds.

    Args:
        model: a Hugging Face `...ForSequenceClassification` with one label.
        backend: see `EarlyExitTextClassificationModel`.
        dtype: see there.

    Attributes:
        ranking: its exits; None: all candidates run to the end.
        watched_by: the monitor that `monitor` has set; None: nothing watches it.

    Raises:
        TypeError: model is not a sequence classifier.
        ValueError: it has more than one label, or see `EarlyExitTextClassificationModel`.
    """

    def __init__(self, model: Any, *, backend: str = "auto", dtype: Dtype | None = None):
        if getattr(model.config, "num_labels", None) != 1:
            raise ValueError(f"model must have one label to rank by (got {model.config.num_labels})")
        super().__init__(model, backend=backend, dtype=dtype)
        self.ranking: RankingPolicy | None = None
        self.watched_by: RankingMonitor | None = None

    def rank(
        self, query: str, documents: Iterable[str], *, top_k: int | None = None, scores: Sequence[float] | None = None
    ) -> list[dict[str, Any]]:
        """Rank the candidates of a query, as sentence-transformers' `CrossEncoder.rank` does.

        Args:
            query: a text.
            documents: n texts, at least one.
            top_k: how many to return, at most; None: all.
            scores: n scores of the search that found them, the higher the better; a policy that was found with such
                scores needs them.

        Returns:
            Dicts from the best candidate to the worst: `corpus_id`, its place in `documents`; `score`; and `exit`, the
            site where it left, or None. Of those that ran to the end, which stand first, the score is the model's own;
            of the others it is an estimate, on a scale of its own, which orders them as it was when they left.

        Raises:
            TypeError: a text is something else.
            ValueError: there is no document, a text is not valid Unicode, top_k is not at least 1, or scores are not
                one finite number each, or missing where the policy reads them.
        """
        candidates = make_candidates(query, documents, scores)
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1 (got {top_k})")
        return self.in_order(self.rank_candidates(candidates), top_k)

    def in_order(self, ranked: Ranked, top_k: int | None = None) -> list[dict[str, Any]]:
        """List scored candidates as `rank` does: from the best to the worst."""
        # A candidate that left later lasted longer; equal ones keep their places.
        order = np.lexsort((-ranked.scores, -ranked.exits))[:top_k]
        estimates = [] if self.ranking is None else self.ranking.estimates
        sites = [*(estimate.site for estimate in estimates), None]  # None: ran to the end
        return [
            {"corpus_id": place, "score": float(ranked.scores[place]), "exit": sites[ranked.exits[place]]}
            for place in order.tolist()
        ]

    def _check_policy(self, own: Mapping[str, Any]) -> None:
        super()._check_policy(own)
        ranking: RankingPolicy | None = getattr(self, "ranking", None)  # not yet there while it is built
        if ranking is not None:
            check_made_for(ranking.made_for, own, "the ranking")

    def _note_change(self) -> None:
        if self.ranking is None:
            super()._note_change()
        else:
            self.policy.is_of_model = is_made_for(self.ranking.made_for, model_identity(self.model))

    @property
    def reads_scores(self) -> bool:
        """True where the policy was found with scores of the search, and needs them."""
        own = 2 * self.policy.hidden_size
        return self.ranking is not None and any(len(estimate.weight) != own for estimate in self.ranking.estimates)

    @property
    def prepared_for(self) -> Mapping[str, Any]:
        """The preparation of texts that the ranking was found with; without a ranking, that of the policy."""
        return super().prepared_for if self.ranking is None else preparation(self.ranking.made_for)

    def rank_candidates(self, candidates: Candidates) -> Ranked:
        """Score the candidates of a query, those leaving early that cannot be among its first ones."""
        policy, monitor = self.ranking, self.watched_by
        if policy is None:
            return self.rank_to_the_end(candidates)
        if self.reads_scores and candidates.retrieved is None:
            raise ValueError("scores must be given: the policy was found with those of the search (got None)")
        if not self.reads_scores:
            candidates = Candidates(candidates.query, candidates.documents)
        if monitor is not None and monitor.alarmed:
            return self.rank_to_the_end(candidates)
        encode = self.encoder(self.prepared_for.get("max_length"))
        found = policy.elimination.run(self, encode, candidates)
        if monitor is not None and monitor.draws():
            given = _TO_THE_END.run(self.given, encode, candidates)
            monitor.record(int(found.differs(given.scores, policy.keep_top)))
        return found

    def rank_to_the_end(self, candidates: Candidates) -> Ranked:
        """Score the candidates of a query, none of which leaves; after an alarm by the model as it was given."""
        ended = self.watched_by is not None and self.watched_by.alarmed
        model = self.given if ended and not self.runs_as_given else self  # its numeric form may be what errs
        run = _TO_THE_END if self.ranking is None else self.ranking.nobody_leaves
        return run.run(model, self.encoder(self.prepared_for.get("max_length")), candidates)

    @property
    def is_certified(self) -> bool:
        """True where a certificate is about what runs: not after an alarm of its monitor, nor of a changed model."""
        promised = self.ranking is not None and self.ranking.certificate is not None and self.policy.is_of_model
        return promised and not (self.watched_by is not None and self.watched_by.alarmed)

    def monitor(  # type: ignore[override]  # its unit is the query
        self,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int | None = None,
    ) -> RankingMonitor:
        """From now on, rank a random share of the queries by the given model too; where they err it ranks them all.

        For what it takes see `RankingMonitor`, which it returns: `process` holds the evidence; saved with the model.
        It goes on from what a monitor before it, such as one that was loaded, has seen: an alarm stays raised.
        """
        certificate, before = None if self.ranking is None else self.ranking.certificate, self.watched_by
        self.watched_by = RankingMonitor(certificate, rate, on_alarm, delta=delta, seed=seed)
        if before is not None:
            self.watched_by.go_on_from(before)
        return self.watched_by

    def encoder(self, max_length: int | None) -> Callable[[Sequence[tuple[str, str]]], EncodedTexts]:
        """Return what tokenises pairs, truncated to at most so many tokens; None: what model and tokenizer allow."""
        if self.tokenizer is None:
            raise ValueError("tokenizer must be set on the model to rank texts (got None)")
        check_tokenizer(self.prepared_for, self.tokenizer)
        longest = length_limit(self.tokenizer, self.max_seqlen, max_length)
        return lambda pairs: encode(self.tokenizer, pairs, longest)

    def _without_exits(self) -> Self:
        if self.ranking is None:
            return self
        plain = self._sharing_weights()
        self._share_preparation(plain)
        plain.ranking = plain.watched_by = None
        return plain

    def report(self) -> str:
        """Return the policy's certificate as a table, and whether the monitor has ended it."""
        if self.ranking is None or self.ranking.certificate is None:
            return "no certificate"
        table = self.ranking.certificate.table()
        if not self.policy.is_of_model:
            return f"{OF_ANOTHER_MODEL}\n{table}"
        if self.watched_by is not None and self.watched_by.alarmed:
            return f"since the monitor's alarm the model as it was given ranks, and nobody leaves; before:\n{table}"
        return table

    def _save_preparation(self, directory: Path) -> None:
        super()._save_preparation(directory)
        if self.ranking is not None:
            self.ranking.save(directory)
        if self.watched_by is not None:
            (directory / MONITOR).write_text(json.dumps(self.watched_by.state()) + "\n", encoding="utf-8")

    def load_policy(self, source: str | Path | Source) -> None:
        """Take a policy from a directory or by a name on the hub, if there is one; refuses one of another model.

        Raises:
            OSError: there is no such directory, and no policy of that name on the hub.
            ValueError: the policy is not of this model.
        """
        source = checkpoints.policy_source(source)
        super().load_policy(source)
        files = [find_file(source, name) for name in (JSON, TENSORS)]
        if files[0] is not None and files[1] is not None:
            self.ranking = RankingPolicy.load(files[0], files[1], model_identity(self.model), self.sites)
            self.watched_by = None  # it has watched another policy
            seen = find_file(source, MONITOR)
            if seen is not None:
                state = read_state(seen)
                self.monitor(state["rate"], delta=state["delta"]).restore(state)
