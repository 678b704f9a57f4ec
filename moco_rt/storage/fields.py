"""Dataclasses from what JSON kept of them, with every field checked."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from moco_rt.storage.reasons import shortened

_T = TypeVar("_T")


def rebuild(kind: type[_T], stored: Any) -> _T:
    """Rebuild a dataclass from what `dataclasses.asdict` made of it.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is of another type, or unknown.
    """
    values = typed_fields(kind, stored)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory:  # it has neither
            raise KeyError(field.name)
    return kind(**values)


def typed_fields(kind: type, stored: Any) -> dict[str, Any]:
    """Return stored fields of a dataclass as what its annotations say; fields may be missing.

    Annotations are numbers, strings, other dataclasses, None, sequences, tuples, mappings and unions of these.

    Raises:
        TypeError: a field is of another type, or unknown.
    """
    if not isinstance(stored, Mapping):
        raise TypeError(f"{shortened(repr(stored), 40)} for {kind.__name__}, which has fields")
    hints = _hints(kind)
    for name in stored:
        if name not in hints:
            raise TypeError(f"{shortened(repr(name), 40)}, which is no field of {kind.__name__}")
    return {name: _value(hints[name], value, name) for name, value in stored.items()}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (each for each in arguments if each is not type(None))
        return _value(hint, value, name)
    if is_dataclass(hint):
        return rebuild(hint, value)  # type: ignore[arg-type]
    if origin in (tuple, Sequence) and isinstance(value, list | tuple):
        return tuple(_value(arguments[0], each, name) for each in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _value(arguments[1], each, name) for key, each in value.items()}
    if hint is float and type(value) in (int, float):
        return float(value)  # OverflowError where an int has hundreds of digits
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypeError(f"{shortened(repr(value), 40)} for {name}, which must be {getattr(hint, '__name__', hint)}")
