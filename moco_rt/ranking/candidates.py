"""Candidates: the documents that a query's search brought back, and the scores that it gave them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.inputs.texts import lone_surrogate
from moco_rt.ranking.elimination import ranks
from moco_rt.storage.reasons import reason


@dataclass(frozen=True, eq=False)
class Candidates:
    """One query with n documents: the unit that is ranked, counted and promised.

    Attributes:
        query: a text.
        documents: n texts, at least one.
        retrieved: (n,) float32, the scores of the search that found them, the higher the better; None: not known.
    """

    query: str
    documents: Sequence[str]
    retrieved: NDArray[np.float32] | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Texts as the model takes them: n pairs of query and document."""
        return [(self.query, document) for document in self.documents]

    @property
    def features(self) -> NDArray[np.float32]:
        """Describe every document by its retrieved score: (n, 4) float32; (n, 0) where none is known.

        The score itself, its distance from the query's mean in standard deviations, from the best score, and its rank
        as a share of n: searches score queries on different scales, and estimates of one query are compared.
        """
        scores = self.retrieved
        if scores is None:
            return np.empty((len(self.documents), 0), np.float32)
        deviation = float(scores.std()) or 1.0
        columns = [scores, (scores - scores.mean()) / deviation, scores - scores.max(), ranks(scores) / len(scores)]
        return np.stack(columns, axis=1).astype(np.float32)


def make_candidates(query: Any, documents: Any, scores: Any = None) -> Candidates:
    """Check one query with its documents.

    Args:
        query: a text.
        documents: n texts.
        scores: n finite numbers, the higher the better; None: there are none.

    Raises:
        TypeError: a text is something else.
        ValueError: there is no document, a text is not valid Unicode, or scores are not one finite number each.
    """
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise TypeError(f"documents must be a sequence of texts (got one {type(documents).__name__})")
    texts = [query, *documents]
    for place, text in enumerate(texts):
        name = "query" if place == 0 else f"documents[{place - 1}]"
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a text (got {type(text).__name__})")
        if (wrong := lone_surrogate(text)) is not None:
            raise ValueError(f"{name} must be valid Unicode (got {wrong})")
    if len(texts) == 1:
        raise ValueError("documents must hold at least one document (got none)")
    if scores is None:
        return Candidates(query, texts[1:])
    try:
        with np.errstate(over="ignore"):  # what is too large is refused below
            retrieved = np.asarray(scores, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"scores must be one finite number for each of the {len(texts) - 1} documents (got {reason(error)})"
        ) from None
    if retrieved.shape != (len(texts) - 1,) or not np.isfinite(retrieved).all():
        raise ValueError(
            f"scores must be one finite number for each of the {len(texts) - 1} documents (got shape {retrieved.shape}"
            f", {int((~np.isfinite(retrieved)).sum())} not finite)"
        )
    return Candidates(query, texts[1:], retrieved)


def list_candidates(inputs: Iterable[Any], name: str = "inputs") -> list[Candidates]:
    """Read queries with their documents.

    Args:
        inputs: tuples `(query, documents)` or `(query, documents, scores)`; all have scores, or none has.
        name: of the argument, for errors.

    Raises:
        TypeError: an item is something else.
        ValueError: there are none, one of them is not valid, or some have scores and some have not.
    """
    if isinstance(inputs, str | bytes | Mapping):
        raise TypeError(f"{name} must be tuples of query and documents (got one {type(inputs).__name__})")
    found = []
    for place, item in enumerate(inputs):
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(
                f"{name} must be tuples (query, documents) or (query, documents, scores) to rank by "
                f"(got {type(item).__name__} at place {place})"
            )
        try:
            found.append(make_candidates(*item))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}[{place}]: {error}") from None
    if not found:
        raise ValueError(f"{name} must hold at least one query (got none)")
    scored = sum(candidates.retrieved is not None for candidates in found)
    if scored not in (0, len(found)):
        raise ValueError(f"{name} must have scores for all queries or for none (got {scored} of {len(found)})")
    return found
