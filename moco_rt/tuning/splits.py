"""Texts shared out between the three jobs of a search: fitting, ordering, calibration. They never meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moco_rt.inputs.texts import TextInput

#: Of texts that are given for everything: the shares that off-ramps learn from and that order the path.
_FIT, _PATH = 0.5, 0.15
#: Of texts that the certificate does not rest on.
_FIT_OF_OTHERS = 0.8
#: Rows that each of the three jobs needs to make sense at all.
_FEWEST = 50


@dataclass(frozen=True)
class Split:
    """Texts for three jobs, one after the other.

    Attributes:
        texts: N texts: for off-ramps to learn from, then to order the path, then for the certificate.
        path: how many are before the path's.
        calibration: how many are before the certificate's.
        labels: true classes of the certificate's, or None.
    """

    texts: Sequence[TextInput]
    ordering_start: int
    calibration_start: int
    labels: NDArray[np.int64] | None


def split_texts(
    texts: Sequence[TextInput], calibration: Sequence[TextInput] | None, labels: Sequence[int] | None, seed: int
) -> Split:
    """Texts in a random order, shared out; see `accelerate`.

    Raises:
        ValueError: the texts are too few, or labels are not as many as texts.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    fit = int((_FIT if calibration is None else _FIT_OF_OTHERS) * len(texts))
    path = int((_FIT + _PATH) * len(texts))
    ordered = [texts[i] for i in order]
    labelled = order[path:]
    if calibration is not None:
        path = len(texts)
        ordered += list(calibration)
        labelled = np.arange(len(calibration))
    if min(fit, path - fit, len(ordered) - path) < _FEWEST:
        raise ValueError(
            f"texts must leave at least {_FEWEST} rows to fit, to search and to certify on "
            f"(got {fit}, {path - fit} and {len(ordered) - path})"
        )
    expected = len(texts if calibration is None else calibration)
    if labels is not None and len(labels) != expected:
        raise ValueError(f"labels must be one for each of the {expected} texts (got {len(labels)})")
    return Split(ordered, fit, path, None if labels is None else np.asarray(labels)[labelled])
