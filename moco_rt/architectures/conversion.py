"""Conversion of a classifier to a dtype or to int8 weights, and the line that describes its numeric form."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from moco_rt.architectures.genuine import check_genuine
from moco_rt.architectures.registry import architecture_of
from moco_rt.quantization.hf_quantizer import Int8Config, is_int8
from moco_rt.quantization.int8_linear import Int8Linear

#: What a model may be asked to compute in.
Dtype = torch.dtype | Literal["int8", "float32", "bfloat16", "float16"]

_BY_NAME = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_log = logging.getLogger(__name__)


def to_dtype(model: Any, dtype: Dtype | None) -> Any:
    """A model in a dtype that it can be computed in: itself where it is in that, else a copy.

    Args:
        model: the model, which stays as it is.
        dtype: None: its own. In place of float16 on a CPU, and of several dtypes in one model, float32 is taken, and
            the log says so.

    Raises:
        TypeError: dtype is neither torch's for floating point, nor one of the names in `Dtype`.
        ValueError: the model has int8 weights, which cannot be made anything else, or a method of one of its modules
            was replaced, so that a copy may still run the original.
    """
    wanted = _BY_NAME.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if not (wanted is None or wanted == "int8" or isinstance(wanted, torch.dtype)):
        raise TypeError(f"dtype must be a torch.dtype or one of int8, {', '.join(_BY_NAME)} (got {dtype!r})")
    if isinstance(wanted, torch.dtype) and not wanted.is_floating_point:
        raise TypeError(f'dtype must be floating point, or "int8" by its name (got {dtype})')
    if is_int8(model):
        if wanted not in (None, "int8"):
            raise ValueError(f"dtype must be int8, as the model's weights are (got {dtype})")
        return model
    if wanted != "int8" and (wanted := dtype_to_run_in(model, wanted)) is None:
        return model
    if patched := [name for name, module in model.named_modules() if "forward" in vars(module)]:
        raise ValueError(
            f"dtype must be the model's own where a forward was replaced (got {dtype or model.dtype}, "
            f"and another forward of {patched[0] or 'the model'})"
        )
    return int8_copy(model) if wanted == "int8" else copy.deepcopy(model).to(wanted)


def dtype_to_run_in(model: Any, wanted: torch.dtype | None = None) -> torch.dtype | None:
    """The dtype that a model must be converted to before it runs; None: it is in that already.

    A log line says where it is neither the model's nor what was asked for.

    Args:
        model: the model.
        wanted: what was asked for; None: the model's own, of quantised weights whatever they are.
    """
    if wanted is None and getattr(model.config, "quantization_config", None) is not None:
        return None
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if wanted is None and len(dtypes) > 1:
        names = ", ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))
        _log.warning("dtype: float32, because the model's weights are in several dtypes (%s)", names)
        return torch.float32
    dtype: torch.dtype = wanted or model.dtype
    if dtype == torch.float16 and model.device.type == "cpu":
        _log.warning("dtype: float32, because float16 is slow on a CPU")
        dtype = torch.float32
    return None if dtypes <= {dtype} else dtype


def describe(model: Any) -> str:
    """Which of a model's products are in int8, in a line."""
    everything = [name for linears in architecture_of(model).linear_groups() for name in linears]
    quantized = set(model.config.quantization_config.modules)
    kept = [name for name in everything if name not in quantized]
    return f"int8: {len(quantized)} of {len(everything)} layers" + (f"; in float32: {', '.join(kept)}" if kept else "")


def int8_copy(model: Any, smooth: Mapping[str, Tensor] | None = None, keep: Collection[str] = ()) -> Any:
    """A model in float32 with an `Int8Linear` in place of every linear layer inside its encoder's layers.

    Embeddings, LayerNorm, attention itself and the classifier are not quantised. Nothing is compared with the model
    that was given: `quantize` does.

    Args:
        model: a Hugging Face `...ForSequenceClassification`, which stays as it is.
        smooth: by module path, (inputs) each: see `Int8Linear`; None: 1.
        keep: paths of layers that stay in float32; of those that share their input all or none.

    Raises:
        ValueError: the model cannot be quantised, see `check_quantizable`.
    """
    check_quantizable(model)
    linears: dict[str, torch.nn.Linear] = {
        name: linear
        for together in architecture_of(model).linear_groups()
        for name, linear in together.items()
        if name not in keep
    }
    found = copy.deepcopy(model).to(torch.float32)
    for name, linear in linears.items():
        smoothed_by = smooth[name] if smooth else torch.ones(linear.in_features, dtype=torch.float32, device="cpu")
        found.set_submodule(name, Int8Linear.of(linear, smoothed_by))
    found.config.quantization_config = Int8Config(list(linears))
    return found


def check_quantizable(model: Any) -> None:
    """Refuse a model that cannot run in int8, before anything is computed.

    Raises:
        ValueError: its family is not covered, it is not what its class says, is not on the CPU, or is in int8 already.
    """
    if model.device.type != "cpu":
        raise ValueError(f"model must be on the CPU to be quantised (got {model.device})")
    if is_int8(model):
        raise ValueError("model must have no int8 weights yet (got some)")
    architecture_of(model)
    check_genuine(model)
