"""The check that what is saved of a model is loaded as the same model: files hold weights and a configuration alone."""

from __future__ import annotations

import types
import warnings
from typing import Any

import torch

from moco_rt.architectures.genuine import check_genuine
from moco_rt.architectures.hub import built_as_loaded
from moco_rt.architectures.registry import is_covered
from moco_rt.quantization.int8_linear import Int8Linear
from moco_rt.storage.reasons import named_reason


def check_can_be_saved(model: Any) -> None:
    """Refuse a model whose files would be loaded as another one, or not at all.

    Of families that are not covered, whose modules may change when they are called, class and weights are compared.

    Args:
        model: a Hugging Face classifier of texts or images.

    Raises:
        ValueError: it has hooks, methods or parts of its own, another class than is loaded, or weights of other names
            or shapes than its configuration says, or one where that says two; or the configuration holds what is no
            JSON.
    """
    try:
        _check_config(model.config)
        built = built_as_loaded(model)
        _check_class(model, built)
        spread = any(hasattr(module, "_hf_hook") for module in model.modules())  # over devices, by accelerate's hooks
        if is_covered(model) and not spread:
            check_genuine(model)
        _check_weights(model, built)
        _check_shared(model, built)
    except ValueError as reason:
        raise ValueError(f"what is saved must be loaded as the same model, but {reason}") from None


def warn_where_it_cannot_be_saved(model: Any) -> None:
    """Warn the caller of the caller where `check_can_be_saved` refuses a model, before much is computed for it."""
    try:
        check_can_be_saved(model)
    except ValueError as reason:
        warnings.warn(f"the model can be used, not saved: {reason}", stacklevel=3)


def _check_config(config: Any) -> None:
    """Refuse a configuration with what its file cannot hold."""
    try:
        config.to_json_string(use_diff=False)
    except TypeError as error:
        raise ValueError(f"model.config must hold what JSON can say (got {named_reason(error)})") from error


def _check_class(model: Any, built: torch.nn.Module) -> None:
    """Refuse a model of another class than is loaded, but for a subclass that changes nothing."""
    kind, loaded = type(model), type(built)
    for each in kind.__mro__:
        if each is loaded:
            return
        for name in sorted(set(vars(each)) & set(dir(loaded))):
            if isinstance(vars(each)[name], types.FunctionType):
                raise ValueError(
                    f"model must be of the class that its configuration is loaded as, {loaded.__qualname__} "
                    f"(got {kind.__qualname__}, with another {name})"
                )


def _check_weights(model: torch.nn.Module, built: torch.nn.Module) -> None:
    """Refuse weights of other names or shapes than a model has that was built anew; int8 has names of its own."""
    int8 = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, Int8Linear))
    found, expected = (
        {name: tuple(weight.shape) for name, weight in each.state_dict().items() if not name.startswith(int8)}
        for each in (model, built)
    )
    for name in (*expected, *found):
        if found.get(name) != expected.get(name):
            said, got = ("no weight" if name not in shapes else f"shape {shapes[name]}" for shapes in (expected, found))
            raise ValueError(f"{name} must be as the configuration says, {said} (got {got})")


def _check_shared(model: torch.nn.Module, built: torch.nn.Module) -> None:
    """Refuse one weight under several names that a model has not tied which was built anew: files hold weights once."""
    tied = _shared_names(built)
    for names in _shared_names(model):
        if not any(names <= other for other in tied):
            raise ValueError(
                f"{' and '.join(sorted(names)[:2])} must be two weights, as the configuration says (got one)"
            )


def _shared_names(model: torch.nn.Module) -> list[set[str]]:
    """Return the names of each weight that has several."""
    found: dict[int, set[str]] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        found.setdefault(id(weight), set()).add(name)
    return [names for names in found.values() if len(names) > 1]
