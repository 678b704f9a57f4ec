"""Ranking: the task of a reranker, whose unit is a query with all its candidates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ranking:
    """The task of a reranker, a model with one label: which of a query's candidates are the first.

    Two answers are the same if the set of the first `keep_top` candidates is. The unit that is split, counted and
    promised is the query with all its candidates.

    Attributes:
        keep_top: how many candidates must stay the first ones, at least 1.

    Raises:
        ValueError: keep_top is not an integer of at least 1.
    """

    keep_top: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.keep_top, bool) or not isinstance(self.keep_top, int) or self.keep_top < 1:
            raise ValueError(f"keep_top must be an integer of at least 1 (got {self.keep_top!r})")
