"""Promises class by class: of the rows to which the given model gives class c, at most a share a_c differs.

The classes are those of the given model, so that no labels are needed. Rows are independent draws: given how many have
class c, the count of those that differ is binomial.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from moco_rt.statistics.bounds import last_passed


def class_counts(
    given: NDArray[np.int64], differs: NDArray[np.bool_], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the rows of every class, and those of them that differ: (C,) and (C,) int64.

    Args:
        given: (n,) classes that the given model gives.
        differs: (n,) whether the fast model gives another.
        num_classes: C.

    Raises:
        ValueError: a class is not inside [0, C).
    """
    outside = given[(given < 0) | (given >= num_classes)]
    if len(outside):
        raise ValueError(f"given must be inside [0, {num_classes}) (got {outside[0]})")
    rows = np.bincount(given, minlength=num_classes)
    return rows.astype(np.int64), np.bincount(given[differs], minlength=num_classes).astype(np.int64)


def per_class_sequence(
    differing: NDArray[np.integer], rows: NDArray[np.integer], max_disagreement: NDArray[np.float64], delta: float
) -> int:
    """Return the index of the last policy along a path that keeps the promise of every class; -1: not even the first.

    A policy passes if every class passes its exact binomial test, P(Binomial(rows_c, a_c) <= differing_c) <= delta, on
    its own rows. All classes together are certified at delta without a correction: the intersection-union test (Berger,
    "Multiparameter hypothesis testing and acceptance sampling", Technometrics 1982). Policies are tested until one
    fails (see `fixed_sequence`): with probability 1 - delta all up to the returned one keep the promise of every class.

    Args:
        differing: (policies, C) rows of each class that differ; the path was ordered on other rows.
        rows: (C,) rows of each class. Fewer than `class_rows_needed` pass under no policy.
        max_disagreement: (C,) a_c, highest share that may differ, inside (0, 1); NaN: nothing is promised of the class.
        delta: the chance, over the rows, that the promise is broken, inside (0, 1).

    Raises:
        ValueError: a share or delta is out of range, or no class is promised anything.
    """
    _check(max_disagreement, delta)
    promised = ~np.isnan(max_disagreement)
    if not promised.any():
        raise ValueError("max_disagreement must be a number for one class at least (got NaN for all)")
    p_values = bdtr(differing[:, promised].astype(np.float64), rows[promised], max_disagreement[promised])
    return last_passed((p_values <= delta).all(axis=1))


def class_rows_needed(max_disagreement: NDArray[np.float64], delta: float) -> NDArray[np.int64]:
    """Return the fewest rows of each class that can certify it, (C,) int64: the least n with (1 - a_c)^n <= delta.

    Args:
        max_disagreement: (C,) a_c, inside (0, 1); NaN: nothing is promised of the class, and 0 rows are needed.
        delta: the chance that the promise is broken, inside (0, 1).

    Raises:
        ValueError: a share or delta is out of range.
    """
    _check(max_disagreement, delta)
    rows: NDArray[np.float64] = np.ceil(np.log(delta) / np.log1p(-max_disagreement))
    return np.where(np.isnan(rows), 0, rows).astype(np.int64)


def _check(max_disagreement: NDArray[np.float64], delta: float) -> None:
    for name, shares in (("max_disagreement", max_disagreement), ("delta", np.array([delta]))):
        outside = shares[(shares <= 0) | (shares >= 1)]  # NaN is neither
        if len(outside):
            raise ValueError(f"{name} must be inside (0, 1) (got {outside[0]})")
