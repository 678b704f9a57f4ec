"""Keyword arguments of `accelerate`, which says what they mean, by the kind of model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from moco_rt.architectures import MultiLabel, Regression, SingleLabel
from moco_rt.inputs.texts import Texts
from moco_rt.tuning.variants import DtypeChoice


class _Options(TypedDict, total=False):
    agreement: float | Mapping[str, float] | None
    confidence: float
    dtype: DtypeChoice | None
    seed: int


class RankingOptions(_Options, total=False):
    """Those for rerankers."""

    tokenizer: Any
    max_length: int | None
    calibration: Iterable[Any] | None


class ImageOptions(_Options, total=False):
    """Those for classifiers of images."""

    task: SingleLabel | MultiLabel | Regression | None
    promise: str
    max_drop: float | None
    calibration: Texts | None
    labels: Any
    columns: str | Sequence[str] | None
    variants: Sequence[Any]
    never_early: Sequence[str]


class TextOptions(ImageOptions, total=False):
    """Those for classifiers of texts."""

    tokenizer: Any
    max_length: int | None
