"""Variants: the forms in which a model is tried, numeric ones and smaller ones, the model as it was given first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch

from moco_rt._C import can_multiply
from moco_rt.architectures.conversion import Dtype, to_dtype
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

#: What `compress` is asked for, in the order in which a name says it.
_DIALS = ("width", "sparsity", "lengths", "epochs")

_Model = TypeVar("_Model", bound=EarlyExitClassifier)

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


def study_variants(
    given: Given, dtype: DtypeChoice | None, split: Split, seed: int, others: Sequence[Any] = ()
) -> list[Variant]:
    """Study a model as it was given, and in the other forms that were asked for.

    Answers of all forms are compared with those of the model as it was given, which also teaches their off-ramps.

    Args:
        given: the model.
        dtype: `"auto"`: its own dtype and all others that this processor has kernels for; None: its own; any other:
            that one, and the model as it was given without exits, to fall back on.
        split: the rows of the three jobs.
        seed: of the off-ramps.
        others: models that give the same kind of answer, such as `compress` makes; each is tried in the same forms.

    Returns:
        Variants, first the model as it was given.

    Raises:
        TypeError: one of the others is no classifier of texts, or of images, as the model is, or dtype is none.
        ValueError: one of them has other classes, or a model cannot be in the dtype that was asked for.
    """
    smaller = [given.other(other) for other in others]
    own = _other_forms(given, given.model, dtype, split)
    models = [given.model, *own]
    names = [GIVEN, *(numeric_form(model.model) for model in models[1:])]
    for number, model in enumerate(smaller):
        forms = _other_forms(given, model, dtype, split)
        if dtype in (None, "auto") or not forms:
            forms = [model, *forms]
        models += forms
        names += [f"{_name(number, smaller)} in {numeric_form(form.model)}" for form in forms]
    studies = study_forms(models, split, seed=seed)
    candidates = [study.candidates(name) for study, name in zip(studies, names, strict=True)]
    if own and dtype != "auto":  # another form was pinned
        candidates[0] = candidates[0].without_exits()
    return [Variant(*parts) for parts in zip(names, models, studies, candidates, strict=True)]


def _name(number: int, models: Sequence[EarlyExitClassifier]) -> str:
    """Return what one of several smaller models is called: by what `compress` was asked for, told apart by numbers."""

    def asked_for(model: EarlyExitClassifier) -> str:
        made_by: dict[str, Any] = getattr(model.config, "compression", {})
        dials = [f"{name} {_plainly(made_by[name])}" for name in _DIALS if name in made_by]
        return ", ".join(dials) or "another model"

    names = [asked_for(model) for model in models]
    if names.count(names[number]) == 1:
        return names[number]
    return f"{names[number]} ({1 + names[:number].count(names[number])})"


def _plainly(value: Any) -> str:
    """Return a number, or shares by layer, as a name may hold them."""
    return "+".join(f"{layer}:{share}" for layer, share in value.items()) if isinstance(value, dict) else str(value)


def _other_forms(
    given: Given, own: EarlyExitClassifier, dtype: DtypeChoice | None, split: Split
) -> list[EarlyExitClassifier]:
    """Return a model in the dtypes that are tried besides its own."""
    made = [try_form(form, dtype, partial(given.form, own, form, split)) for form in other_dtypes(own, dtype)]
    return [model for model in made if model is not None]


def try_form(form: Dtype, dtype: DtypeChoice | None, make: Callable[[], _Model]) -> _Model | None:
    """Make a model in another numeric form; None, and a line in the log, where all are tried and it is not worth it.

    Args:
        form: the one to try.
        dtype: see `study_variants`.
        make: returns the model in it.

    Raises:
        ValueError: it is the form that was asked for, and the model cannot be in it.
    """
    try:
        model = make()
    except ValueError as error:
        if dtype != "auto":
            raise
        _log.info("%s is not tried: %s", form, error)
        return None
    if dtype == "auto" and model.backend != "packed":
        _log.info("%s is not tried: no kernels of ours run it", form)
        return None
    return model


def other_dtypes(model: EarlyExitClassifier, dtype: DtypeChoice | None) -> Sequence[Dtype]:
    """Return the dtypes to try besides a model's own.

    Raises:
        TypeError: dtype is none.
        ValueError: the model has int8 weights, and another dtype was asked for.
    """
    own = numeric_form(model.model)
    if dtype is None:
        return []
    if is_int8(model.model):
        to_dtype(model.model, None if dtype == "auto" else dtype)  # refuses another
        return []
    if dtype == "auto":
        if model.device.type != "cpu":
            return []
        forms: list[Dtype] = ["int8", *(["bfloat16"] if can_multiply(torch.bfloat16) else []), "float32"]  # type: ignore[list-item]
        return [form for form in forms if form != own]
    return [] if str(dtype).removeprefix("torch.") == own else [dtype]
