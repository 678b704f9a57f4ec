"""One query through the model: candidates leave between layers as soon as they cannot be among the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moco_rt._C import Results
from moco_rt.architectures.device_batch import AnyBatch, on_cpu
from moco_rt.encoding import EncodedTexts
from moco_rt.ranking.candidates import Candidates
from moco_rt.ranking.elimination import RankScores, eliminated
from moco_rt.ranking.estimates import RETRIEVED, ScoreEstimate
from moco_rt.runtime.classifiers.base import EarlyExitClassifier

#: A margin by which nobody leaves, and yet all are asked: for recording.
ASK_ONLY = np.finfo(np.float32).max
#: Candidates of a query share a batch of at most so many tokens; more are ranked piece by piece.
_BATCH_TOKENS = 65_536

#: Tokenises pairs of query and document.
Encode = Callable[[Sequence[tuple[str, str]]], EncodedTexts]


@dataclass(frozen=True, eq=False)
class Ranked:
    """The n candidates of a query, as the model leaves them.

    Attributes:
        scores: (n,) float32, the model's own; of those that left the last estimate.
        exits: (n,) int64, place of the estimate by which each left; E: it ran to the end.
        estimates: (E, n) float32; NaN: it was not asked.
        lengths: (n,) int64 tokens; 0: it left before it was tokenised.
    """

    scores: NDArray[np.float32]
    exits: NDArray[np.int64]
    estimates: NDArray[np.float32]
    lengths: NDArray[np.int64]

    def differs(self, given: NDArray[np.float32], keep_top: int) -> bool:
        """Return whether the set of the first k is another than by scores of the given model, (n,)."""
        scores = RankScores(self.estimates[:, None], self.scores[None], given[None], keep_top)
        return bool(scores.differs(self.exits[None])[0])


class Elimination:
    """Estimates and margins by which candidates leave, ready to run.

    Args:
        estimates: E of them, in the order of their sites.
        margins: (E,) float32, see `eliminated`; infinite: nobody leaves there, and nobody is asked.
        keep_top: k.
    """

    def __init__(self, estimates: Sequence[ScoreEstimate], margins: NDArray[np.float32], keep_top: int):
        self.sites = [estimate.site for estimate in estimates]
        self._asked = [place for place, margin in enumerate(margins) if not np.isposinf(margin)]
        self._compiled = [estimate.compiled() for estimate in estimates]
        self._margins = margins
        self._keep_top = keep_top

    def run(self, model: EarlyExitClassifier, encode: Encode, candidates: Candidates) -> Ranked:
        """Run the candidates of a query. Scores of those that stay have the bits that they have without exits."""
        n, exits = len(candidates.documents), len(self.sites)
        features = candidates.features
        nothing = np.full((exits, n), np.nan, np.float32)
        found = Ranked(np.full(n, np.nan, np.float32), np.full(n, exits), nothing, np.zeros(n, np.int64))
        stay = np.arange(n)
        for place in self._asked:
            if self.sites[place] == RETRIEVED:
                stay = stay[~self.let_leave(place, stay, features[stay], found)]
        pairs = candidates.pairs
        rows = encode([pairs[place] for place in stay])
        found.lengths[stay] = rows.lengths
        for piece in _pieces(rows.lengths, self._keep_top):
            here = stay[piece]
            points = {
                self.sites[place]: _EliminationPoint(self, place, here, features[here], found)
                for place in self._asked
                if self.sites[place] != RETRIEVED
            }
            logits = model.run_batch(points, rows[piece]).logits[:, 0].float().cpu().numpy()
            ran = found.exits[here] == exits
            found.scores[here[ran]] = logits[ran]
        return found

    def let_leave(
        self, place: int, here: NDArray[np.int64], x: NDArray[np.float32], found: Ranked
    ) -> NDArray[np.bool_]:
        """Write down what an estimate says of some candidates, and return which of them leave.

        Args:
            place: which of the E estimates.
            here: (m,) places of the candidates in the query.
            x: (m, size) float32, what the estimate reads.
            found: written.
        """
        estimates = self._compiled[place].logits(torch.from_numpy(x))[:, 0].numpy()
        found.estimates[place, here] = estimates
        everybody = np.ones((1, len(here)), bool)
        leave: NDArray[np.bool_] = eliminated(estimates[None], everybody, self._keep_top, self._margins[place])[0]
        found.exits[here[leave]] = place
        found.scores[here[leave]] = estimates[leave]
        return leave


class _EliminationPoint:
    """The exit point of one estimate, for the candidates of one batch."""

    can_peek = True
    needs_mean = True

    def __init__(
        self,
        elimination: Elimination,
        place: int,
        candidates: NDArray[np.int64],
        features: NDArray[np.float32],
        found: Ranked,
    ):
        self._elimination, self._place = elimination, place
        self._candidates, self._features = candidates, features
        self._found = found

    def apply(self, batch: AnyBatch, results: Results) -> int:  # noqa: ARG002
        """Estimate all that are left, and take those out that leave."""
        rows = batch.row_ids.long().numpy()
        x = np.hstack([batch.pool("cls+mean").numpy(), self._features[rows]])
        leave = self._elimination.let_leave(self._place, self._candidates[rows], x, self._found)
        if leave.any():
            on_cpu(batch).compact(torch.from_numpy(~leave))
        return int(leave.sum())


def _pieces(lengths: NDArray[np.int64], keep_top: int) -> list[slice]:
    """Cut rows into pieces of about `_BATCH_TOKENS` tokens, each with more rows than are kept."""
    starts, tokens = [0], 0
    for row, length in enumerate(lengths.tolist()):
        if tokens + length > _BATCH_TOKENS and row - starts[-1] > keep_top:
            starts.append(row)
            tokens = 0
        tokens += length
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(lengths)], strict=True)]
