"""Variants: the numeric forms in which a model is tried, each studied, the model as it was given first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from moco_rt._C import can_multiply
from moco_rt.architectures.conversion import Dtype
from moco_rt.certification.certificate import GIVEN
from moco_rt.certification.selection import ExitCandidates
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.studies.splits import Split
from moco_rt.studies.study import Study, study_forms
from moco_rt.tuning.given import Given

#: What `accelerate` may be asked to compute in; `"auto"`: whatever is fastest.
DtypeChoice = Dtype | Literal["auto"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A model in one form, studied.

    Attributes:
        name: what certificate and report call it.
        model: the model in this form, without exits.
        study: what is known of it.
        candidates: its exits, as `select` takes them.
    """

    name: str
    model: EarlyExitClassifier
    study: Study
    candidates: ExitCandidates


def study_variants(given: Given, dtype: DtypeChoice | None, split: Split, seed: int) -> list[Variant]:
    """Study a model as it was given, and in the other forms that were asked for.

    Answers of all forms are compared with those of the model as it was given.

    Args:
        given: the model.
        dtype: `"auto"`: its own dtype and all others that this processor has kernels for; None: its own; any other:
            that one, and the model as it was given without exits, to fall back on.
        split: the rows of the three jobs.
        seed: of the off-ramps.

    Returns:
        Variants, first the model as it was given.
    """
    models = [given.model, *_other_forms(given, dtype, split)]
    names = [GIVEN, *(numeric_form(model.model) for model in models[1:])]
    studies = study_forms(models, split, seed=seed)
    candidates = [study.candidates(name) for study, name in zip(studies, names, strict=True)]
    if len(models) > 1 and dtype != "auto":
        candidates[0] = candidates[0].without_exits()
    return [Variant(*parts) for parts in zip(names, models, studies, candidates, strict=True)]


def _other_forms(given: Given, dtype: DtypeChoice | None, split: Split) -> list[EarlyExitClassifier]:
    """Return the model in the dtypes that are tried besides its own."""
    forms = []
    for form in _dtypes(given.model, dtype):
        try:
            model = given.variant(form, split)
        except ValueError as error:
            if dtype != "auto":
                raise
            _log.info("%s is not tried: %s", form, error)
            continue
        if dtype == "auto" and model.backend != "packed":
            _log.info("%s is not tried: no kernels of ours run it", form)
            continue
        forms.append(model)
    return forms


def _dtypes(model: EarlyExitClassifier, dtype: DtypeChoice | None) -> Sequence[Dtype]:
    """Return the dtypes to try besides a model's own."""
    own = numeric_form(model.model)
    if dtype is None or is_int8(model.model):
        return []
    if dtype == "auto":
        if model.device.type != "cpu":
            return []
        forms: list[Dtype] = ["int8", *(["bfloat16"] if can_multiply(torch.bfloat16) else []), "float32"]  # type: ignore[list-item]
        return [form for form in forms if form != own]
    return [] if str(dtype).removeprefix("torch.") == own else [dtype]
