"""The check that a model is what its class says: a comparison with one that the class builds from the configuration.

The kernels know a family, not a model: weights do not show a hook, a patched method, another activation function or
another LayerNorm epsilon. The same holds, for fewer modules, where sub-modules are driven one by one.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.modules import module as torch_modules
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from moco_rt._C import HeldObjects, places_of, sizes_of
from moco_rt.quantization.int8_linear import Int8Linear
from moco_rt.storage.reasons import named_reason

#: Where the code of a class may stand that nobody has replaced.
_LIBRARIES = tuple(f"{path}/" for path in (*torch.__path__, *transformers.__path__, Path(__file__).parents[1]))
#: Attributes that change no answer in evaluation mode, or that say what weights and products say too.
_NOT_COMPARED = {"training", "name_or_path", "gradient_checkpointing", "layer_idx", "attention_dropout", "n_layers"}
_COMPARED_TYPES = (bool, int, float, str, tuple, type(None), types.FunctionType, types.BuiltinFunctionType)
#: Of some modules these attributes alone are compared; the extension checks the shapes of weights.
_COMPARED_OF: dict[type, tuple[str, ...]] = {
    torch.nn.Linear: (),
    torch.nn.Embedding: ("max_norm",),
    torch.nn.Dropout: (),
    torch.nn.ModuleList: (),
}
#: What may stand in the place of a module without changing the answers.
_IN_PLACE_OF: dict[type, tuple[type, ...]] = {
    torch.nn.Dropout: (torch.nn.Identity,),
    torch.nn.Linear: (Int8Linear,),
}
#: Buffers that are not trained, and what builds them.
_CONSTANTS: dict[str, Callable[..., torch.Tensor]] = {"position_ids": torch.arange, "token_type_ids": torch.zeros}
#: Settings that saving a model writes.
_SETTINGS_OF_FILES = {"architectures", "dtype", "_name_or_path", "transformers_version"}
#: Ways to compute attention that all compute the same.
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
#: Where hooks come from that transformers sets itself, and leaves: they record outputs when a call asks for them.
_RECORDERS = ("transformers.utils.output_capturing", "transformers.modeling_utils")
#: What `_built_anew` returned: a search asks a hundred times for the same.
_BUILT: dict[tuple[Any, ...] | None, torch.nn.Module] = {}
_MOST_BUILT = 8
_HOOKS_OF_ALL_MODULES = (torch_modules._global_forward_hooks, torch_modules._global_forward_pre_hooks)


def check_genuine(model: Any) -> None:
    """Refuse a model any module of which does something else than its class and configuration say.

    Raises:
        ValueError: names the first such module, what must hold and what was got.
    """
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.layout is not torch.strided or weight.is_meta:
            raise ValueError(f"{name} must be dense and in memory (got {weight.layout} on {weight.device})")
    check_modules(model, [path for path, _ in model.named_modules()])
    attention = getattr(model.config, "_attn_implementation", None)  # transformers has no public name for it
    if attention not in _ATTENTIONS:
        raise ValueError(f"model must use one of transformers' own attention functions (got {attention!r})")
    for function in _attention_functions(model, attention or "eager"):
        if not _is_a_librarys(function):
            raise ValueError(f"the attention function {attention!r} must be transformers' own (got another)")


def check_modules(model: Any, paths: Collection[str], may_have_hooks: Collection[str] = ()) -> None:
    """Refuse a model some modules of which are not what its class builds, or have hooks.

    Args:
        model: a Hugging Face model of a class of transformers' own.
        paths: the modules that are compared, as `named_modules` calls them; "" is the model itself.
        may_have_hooks: those of them whose hooks do not matter.

    Raises:
        ValueError: names the first module that differs, what must hold and what was got.
    """
    if any(_HOOKS_OF_ALL_MODULES):
        raise ValueError("modules must have no hooks (got hooks of all modules: torch.nn.modules.module)")
    expected = dict(_built_anew(model).named_modules())
    for path in paths:
        name = path or "model"
        module = _submodule(model, path)
        if path not in expected:
            raise ValueError(f"{name} must not be there, by its model's configuration (got {_name_of(type(module))})")
        _check_alike(name, module, expected[path])
        if path not in may_have_hooks and _has_hooks(module):
            raise ValueError(f"{name} must have no hooks (got some)")


class Watch:
    """Notices, within microseconds, that modules were changed since it was made.

    Args:
        modules: those to be watched.
        config: the configuration of their model.
        driven: modules whose parts alone are watched: they are called as they are, hooks and all.
    """

    def __init__(self, modules: Collection[torch.nn.Module], config: Any, driven: Collection[torch.nn.Module] = ()):
        hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._growing: list[dict[Any, Any]] = [*hooks, *_HOOKS_OF_ALL_MODULES, *map(vars, modules)]
        self._sizes = sizes_of(self._growing)
        parts: list[dict[str, Any]] = [part._modules for part in driven if part._modules]
        for module in modules:
            parts += filter(None, (module._modules, module._parameters, module._buffers))
        self._held = HeldObjects(parts)
        self._config = vars(config)
        self._values, self._settings = self._now_set()

    def sees_change(self) -> bool:
        """Tell whether there are more hooks than at first, or another number of attributes: `forward` may be one."""
        return sizes_of(self._growing) != self._sizes

    def sees_other_parts(self) -> bool:
        """Tell whether a module, a weight or a setting of the configuration was replaced."""
        if self._held.replaced():
            return True
        if _are_equal(list(self._config.values()), self._values):
            return False
        values, settings = self._now_set()
        if not _are_equal(settings, self._settings):  # and stays so, whoever asks: another backend has another watch
            return True
        self._values = values
        return False

    def _now_set(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the values of the configuration, and by name those that answers may depend on."""
        settings = {name: value for name, value in self._config.items() if name not in _SETTINGS_OF_FILES}
        return list(self._config.values()), settings


class WeightPlaces:
    """The places of the large weights of a model, and how often all weights were written.

    The kernels have copies of some and addresses of others. To share a model with another process, pickled or by
    `share_memory`, moves its weights; training and `load_state_dict` write them.

    Args:
        model: whose weights are packed for the kernels after this.
    """

    def __init__(self, model: torch.nn.Module):
        weights = (*model.parameters(), *model.buffers())
        # What moves weights moves them all: to ask the small ones, too, would take half the time again.
        self._large = [weight for weight in weights if weight.dim() > 1 and weight.layout is torch.strided]
        # Tensors that were made in inference mode do not count.
        self._counting = [weight for weight in weights if not weight.is_inference()]
        self._places = places_of(self._large, self._counting)

    def have_changed(self) -> bool:
        """Tell whether any of them lies elsewhere by now, or was written."""
        return places_of(self._large, self._counting) != self._places


def _built_anew(model: Any) -> torch.nn.Module:
    """Return a model of the same class and configuration, without weights: 10 to 25 ms for 12 layers, then kept."""
    config = model.config
    key = None
    with contextlib.suppress(TypeError):  # the caller may have put there what is no JSON: then nothing is kept
        key = (type(model), config.to_json_string(use_diff=False), getattr(config, "_attn_implementation", None))
    if (kept := _BUILT.get(key)) is not None:
        return kept
    try:
        with torch.device("meta"):
            built: torch.nn.Module = type(model)(copy.deepcopy(config))
    except Exception as error:
        raise ValueError(
            f"model must be what its class builds from its configuration (got {named_reason(error)})"
        ) from error
    if key is not None:
        for oldest in list(_BUILT)[: len(_BUILT) + 1 - _MOST_BUILT]:
            _BUILT.pop(oldest, None)  # another thread may have been here
        _BUILT[key] = built
    return built


def _are_equal(one: Any, other: Any) -> bool:
    """Tell whether two collections are equal; tensors and arrays in them are, where they are the same one."""
    try:
        return bool(one == other)
    except (ValueError, RuntimeError):  # they are compared number by number
        return False


def _submodule(model: torch.nn.Module, path: str) -> torch.nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{path} must be a module of the model (got none)") from None


def _has_hooks(module: torch.nn.Module) -> bool:
    """Tell whether a module has hooks that may change or see what it computes."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(getattr(hook, "__module__", None) not in _RECORDERS for hook in hooks)


def _check_alike(name: str, module: torch.nn.Module, expected: torch.nn.Module) -> None:
    kind = type(expected)
    if type(module) is not kind:
        if type(module) in _IN_PLACE_OF.get(kind, ()):
            return
        raise ValueError(f"{name} must be {_name_of(kind)} (got {_name_of(type(module))})")
    for method in _replaced_methods(module):
        raise ValueError(f"{name}.{method} must be the class's own (got another function in its place)")
    needed = _parts(expected) if kind is not torch.nn.ModuleList else set()  # a model may be cut off after a layer
    for part in sorted(needed - _parts(module)):
        if (kind, part) != (torch.nn.Linear, "bias"):
            raise ValueError(f"{name} must have {part}, as its class builds it (got none)")
    for attribute, value in vars(expected).items():
        if not _is_compared(kind, attribute, value):
            continue
        found = getattr(module, attribute, None)
        if found != value:
            raise ValueError(f"{name}.{attribute} must be {value}, as its model's configuration says (got {found})")
    for buffer, made in _CONSTANTS.items():
        if (held := module._buffers.get(buffer)) is None:
            continue
        if not bool((held == made(held.shape[-1], device=held.device)).all()):
            raise ValueError(f"{name}.{buffer} must be what its class builds (got other numbers)")


def _parts(module: torch.nn.Module) -> set[str]:
    """Names of the sub-modules and parameters that a module holds itself."""
    return {name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))}


def _is_compared(kind: type, attribute: str, value: Any) -> bool:
    if attribute.startswith("_") or attribute in _NOT_COMPARED:
        return False
    return attribute in _COMPARED_OF.get(kind, (attribute,)) and isinstance(value, _COMPARED_TYPES)


def _replaced_methods(module: torch.nn.Module) -> Iterator[str]:
    """Names of methods that are not the class's own, of the object or of the class."""
    kind = type(module)
    for name in vars(module):
        if isinstance(getattr(kind, name, None), types.FunctionType):
            yield name
    for name in {"forward", "__call__", *vars(kind)}:
        function = getattr(kind, name, None)
        while isinstance(function, types.FunctionType):
            if not _is_a_librarys(function):
                yield name
            function = getattr(function, "__wrapped__", None)


def _attention_functions(model: Any, name: str) -> Iterator[Any]:
    """Functions that attend, and that make the mask, where a model's configuration has this name for them."""
    if name == "eager":
        # Not all modules of transformers have one: some attend without a function.
        yield from filter(None, [getattr(sys.modules.get(type(model).__module__), "eager_attention_forward", None)])
    yield from (each[name] for each in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS) if name in each)


def _is_a_librarys(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_LIBRARIES)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
