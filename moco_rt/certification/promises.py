"""Promises to choose from: what a certificate says of a policy, and the test on calibration rows that shows it.

| promise     | says, with the confidence asked for                                                               |
|-------------|---------------------------------------------------------------------------------------------------|
| `confident` | at most a share of all rows gets another answer than from the model as it was given               |
| `per class` | of the rows to which that model gives class c, at most a share a_c gets another, for each class c |
| `accuracy`  | the fast model is right on at most so many rows fewer than the given one, as a share of all       |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moco_rt.certification.certificate import ClassPromise, all_but
from moco_rt.statistics.accuracy_drop import drop_bound, drop_sequence
from moco_rt.statistics.bounds import fixed_sequence, least_disagreement, rows_needed
from moco_rt.statistics.guarantee import Guarantee
from moco_rt.statistics.per_class import class_counts, class_rows_needed, per_class_sequence

_log = logging.getLogger(__name__)

#: The agreement where none is asked for.
_AGREEMENT = 0.99
#: A class with a smaller share of the rows may lose all of them under a promise about all rows together.
_RARE = 0.1


@dataclass(frozen=True)
class Outcomes:
    """The answers that P policies of a path, ordered on other rows, give to n distinct calibration rows.

    Attributes:
        differs: (P, n) bool, whether a row's answer is another than from the model as it was given.
        given: (n,) int64 labels of that model; None: the task has none.
        drop: (P, n) float64, by how much that model is right more often than the policy, from -1 to 1: the mean over
            the copies of a row; None: no true classes are known.
    """

    differs: NDArray[np.bool_]
    given: NDArray[np.int64] | None = None
    drop: NDArray[np.float64] | None = None


class Promise(Protocol):
    """A statement about a policy that calibration rows may show.

    Attributes:
        name: what files and certificates call it.
        delta: the chance, over the choice of calibration rows, that a policy which is taken breaks it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def delta(self) -> float: ...  # noqa: D102

    def for_rows(self, outcomes_of_nothing: Outcomes, class_names: Sequence[str]) -> Promise:
        """Return what so many rows can show of the promise, and say in the log where that is less, or not enough.

        Args:
            outcomes_of_nothing: those of the path's first policy.
            class_names: the model's.
        """
        ...

    def weights(self, given: NDArray[np.int64] | None) -> NDArray[np.float64] | None:
        """Return what a changed answer of each row weighs where policies are ordered: (n,); None: all weigh 1."""
        ...

    def last(self, outcomes: Outcomes) -> int:
        """Return the index of the last policy of the path for which it is shown; -1: not even the first."""
        ...

    def stated(self, outcomes: Outcomes, policy: int) -> dict[str, Any]:
        """Return the fields of a `Certificate` that say what is promised of a policy, by its index."""
        ...


@dataclass(frozen=True)
class Confident:
    """At most a share of all rows gets another answer: Learn-then-Test with exact binomial tests.

    Attributes:
        guarantee: the share, and the chance that it is exceeded.
    """

    guarantee: Guarantee
    name = "confident"

    @property
    def delta(self) -> float:
        """The chance that the promise is broken."""
        return self.guarantee.delta

    def for_rows(self, outcomes_of_nothing: Outcomes, class_names: Sequence[str]) -> Confident:
        """Return the strictest share that the rows can show, where they are too few for the one asked for."""
        _warn_of_rare_classes(outcomes_of_nothing.given, class_names, self.guarantee)
        rows = outcomes_of_nothing.differs.shape[1]
        return Confident(what_can_be_certified(self.guarantee, rows))

    def weights(self, given: NDArray[np.int64] | None) -> None:  # noqa: ARG002
        """Return None: all rows weigh 1."""
        return

    def last(self, outcomes: Outcomes) -> int:
        """Test each policy by `fixed_sequence`."""
        return fixed_sequence(outcomes.differs.sum(axis=1), outcomes.differs.shape[1], self.guarantee)

    def stated(self, outcomes: Outcomes, policy: int) -> dict[str, Any]:  # noqa: ARG002
        """Return the highest share of rows that may differ."""
        return {"alpha": self.guarantee.max_disagreement}


@dataclass(frozen=True)
class PerClass:
    """At most a share of the rows of each class gets another answer, class by class.

    Attributes:
        max_disagreement: (C,) share by class; NaN: nothing is promised of the class.
        delta: the chance that the promise is broken.
    """

    max_disagreement: tuple[float, ...]
    delta: float
    name = "per class"

    def for_rows(self, outcomes_of_nothing: Outcomes, class_names: Sequence[str]) -> PerClass:
        """Return the promise; the log names classes with too few rows, of which then no policy keeps it."""
        counts = self._rows(outcomes_of_nothing.given)
        needed = class_rows_needed(np.array(self.max_disagreement), self.delta)
        names = class_names or [str(c) for c in range(len(counts))]
        for name, rows, least in zip(names, counts, needed, strict=True):
            if rows < least:
                _log.warning(
                    "%d distinct calibration rows of class %s can promise nothing: that needs %d at least",
                    rows,
                    name,
                    least,
                )
        return self

    def weights(self, given: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Return the weight of each row, (n,): the fewer rows a class has and may lose, the more each weighs."""
        assert given is not None
        shares = np.array(self.max_disagreement)
        promised = ~np.isnan(shares)
        by_class = np.zeros(len(shares))
        by_class[promised] = 1 / (np.maximum(1, self._rows(given)[promised]) * shares[promised])
        of_rows: NDArray[np.float64] = by_class[given]
        return np.asarray(of_rows * (len(given) / max(float(of_rows.sum()), 1e-12)))

    def last(self, outcomes: Outcomes) -> int:
        """Test each policy by `per_class_sequence`."""
        assert outcomes.given is not None
        classes = len(self.max_disagreement)
        counts = [class_counts(outcomes.given, differs, classes)[1] for differs in outcomes.differs]
        shares = np.array(self.max_disagreement)
        return per_class_sequence(np.array(counts), self._rows(outcomes.given), shares, self.delta)

    def stated(self, outcomes: Outcomes, policy: int) -> dict[str, Any]:
        """Return what is promised, and what was counted, of every class."""
        assert outcomes.given is not None
        rows, differing = class_counts(outcomes.given, outcomes.differs[policy], len(self.max_disagreement))
        classes = tuple(
            ClassPromise(c, None if np.isnan(share) else share, int(rows[c]), int(differing[c]))
            for c, share in enumerate(self.max_disagreement)
        )
        return {"alpha": None, "classes": classes}

    def _rows(self, given: NDArray[np.int64] | None) -> NDArray[np.int64]:
        assert given is not None
        return np.bincount(given, minlength=len(self.max_disagreement))


@dataclass(frozen=True)
class Accuracy:
    """The fast model is right on at most `max_drop` fewer rows than the given one, as a share: paired differences.

    Attributes:
        max_drop: that share, inside [0, 1).
        delta: the chance that the promise is broken.
        seed: of the order in which rows are bet on.
    """

    max_drop: float
    delta: float
    seed: int = 0
    name = "accuracy"

    def for_rows(self, outcomes_of_nothing: Outcomes, class_names: Sequence[str]) -> Accuracy:  # noqa: ARG002
        """Return the promise itself: what rows can show of it depends on how the policies err."""
        return self

    def weights(self, given: NDArray[np.int64] | None) -> None:  # noqa: ARG002
        """Return None: all rows weigh 1."""
        return

    def last(self, outcomes: Outcomes) -> int:
        """Test each policy by `drop_sequence`."""
        assert outcomes.drop is not None
        return drop_sequence(outcomes.drop[:, self._order(outcomes.drop.shape[1])], self.max_drop, self.delta)

    def stated(self, outcomes: Outcomes, policy: int) -> dict[str, Any]:
        """Return the drop that was asked for, and the smallest one that the rows show."""
        assert outcomes.drop is not None
        drop = outcomes.drop[policy]
        return {
            "alpha": None,
            "max_drop": self.max_drop,
            "drop_bound": drop_bound(drop[self._order(len(drop))], self.delta),
        }

    def _order(self, rows: int) -> NDArray[np.int64]:
        return np.random.default_rng(self.seed).permutation(rows)


_PROMISES = (Confident.name, PerClass.name, Accuracy.name)


def make_promise(
    name: str,
    agreement: float | Mapping[str, float] | None,
    max_drop: float | None,
    confidence: float,
    class_names: Sequence[str],
    seed: int,
) -> Promise:
    """Build a promise from what users ask for, see `accelerate`; class_names: the model's.

    Raises:
        ValueError: the promise is unknown, an argument is one of another promise, or a share is not inside (0, 1).
    """
    if name not in _PROMISES:
        raise ValueError(f"promise must be one of {', '.join(_PROMISES)} (got {name!r})")
    if name == Accuracy.name:
        if agreement is not None or not isinstance(max_drop, Real) or not 0 < max_drop < 1:
            raise ValueError(
                "promise='accuracy' must be asked for with max_drop inside (0, 1), and no agreement "
                f"(got max_drop={max_drop!r} and agreement={agreement!r})"
            )
        return Accuracy(float(max_drop), Guarantee.of_agreement(0.5, confidence).delta, seed)
    if max_drop is not None:
        raise ValueError(f"max_drop must be None, but with promise='accuracy' (got {max_drop})")
    if isinstance(agreement, Mapping):
        if name != PerClass.name or not agreement or not set(agreement) <= set(class_names):
            raise ValueError(
                f"agreement must be a number, or with promise='per class' map some of the classes "
                f"{', '.join(class_names)} to numbers (got {dict(agreement)})"
            )
    elif name == Confident.name:
        return Confident(Guarantee.of_agreement(_AGREEMENT if agreement is None else agreement, confidence))
    else:
        agreement = dict.fromkeys(class_names, _AGREEMENT if agreement is None else agreement)
    guarantees = {c: Guarantee.of_agreement(share, confidence) for c, share in agreement.items()}
    shares = [guarantees[c].max_disagreement if c in guarantees else np.nan for c in class_names]
    return PerClass(tuple(shares), next(iter(guarantees.values())).delta)


def what_can_be_certified(guarantee: Guarantee, rows: int) -> Guarantee:
    """Return the guarantee, or where so many distinct rows cannot show it the strictest one that they can."""
    needed = rows_needed(guarantee)
    if rows >= needed:
        return guarantee
    weaker = replace(guarantee, max_disagreement=least_disagreement(rows, guarantee.delta))
    _log.warning(
        "%d distinct calibration rows cannot certify an agreement of %s: that needs %d at least; certifying %s",
        rows,
        all_but(guarantee.max_disagreement),
        needed,
        all_but(weaker.max_disagreement),
    )
    return weaker


def _warn_of_rare_classes(given: NDArray[np.int64] | None, class_names: Sequence[str], guarantee: Guarantee) -> None:
    """Say in the log which classes have few rows, which a promise about all rows together may lose."""
    if given is None:
        return
    counts = np.bincount(given, minlength=len(class_names))
    for name, rows in zip(class_names, counts, strict=False):
        if rows < _RARE * len(given):
            _log.warning(
                "class %s has %.1f%% of the rows: a promise about all rows may lose many of them; promise='per class' "
                "keeps its share, and needs %d of its rows for calibration at least",
                name,
                100 * rows / len(given),
                rows_needed(guarantee),
            )
