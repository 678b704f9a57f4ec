"""A classifier with int8 weights, made from one in float32."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from moco_rt.architectures.base import affine
from moco_rt.architectures.registry import architecture_of
from moco_rt.quantization.hf_quantizer import Int8Config, is_int8
from moco_rt.quantization.int8_linear import Int8Linear

#: What a model may be asked to compute in.
Dtype = torch.dtype | Literal["int8"]


def to_dtype(model: Any, dtype: Dtype | None) -> Any:
    """A model in a dtype: itself where it is in that, or None is asked for; else a copy.

    Raises:
        TypeError: dtype is neither torch's, nor "int8".
        ValueError: it has int8 weights, which cannot be made anything else.
    """
    if not (dtype is None or dtype == "int8" or isinstance(dtype, torch.dtype)):
        raise TypeError(f"dtype must be a torch.dtype or 'int8' (got {dtype!r})")
    if dtype is None or dtype == ("int8" if is_int8(model) else model.dtype):
        return model
    if is_int8(model):
        raise ValueError(f"dtype must be int8, as the model's weights are (got {dtype})")
    return int8_copy(model) if dtype == "int8" else copy.deepcopy(model).to(dtype)


def describe(model: Any) -> str:
    """Which of a model's products are in int8, in a line."""
    everything = [name for linears in architecture_of(model).linear_groups() for name in linears]
    quantized = set(model.config.quantization_config.modules)
    kept = [name for name in everything if name not in quantized]
    return f"int8: {len(quantized)} of {len(everything)} layers" + (f"; in bfloat16: {', '.join(kept)}" if kept else "")


def int8_copy(model: Any, smooth: Mapping[str, Tensor] | None = None, keep: Collection[str] = ()) -> Any:
    """A model in bfloat16 with an `Int8Linear` in place of every linear layer inside its encoder's layers.

    Embeddings, LayerNorm, attention itself and the classifier are not quantised. Nothing is compared with the model
    that was given: `quantize` does.

    Args:
        model: a Hugging Face `...ForSequenceClassification`, which stays as it is.
        smooth: by module path, (inputs) each: see `Int8Linear`; None: 1.
        keep: paths of layers that stay in bfloat16; of those that share their input all or none.

    Raises:
        ValueError: its family is not covered, a layer is not torch's own, or the model is not on the CPU.
    """
    if model.device.type != "cpu":
        raise ValueError(f"model must be on the CPU to be quantised (got {model.device})")
    linears: dict[str, torch.nn.Linear] = {
        name: linear
        for together in architecture_of(model).linear_groups()
        for name, linear in together.items()
        if name not in keep
    }
    for linear in linears.values():
        affine(linear)
    found = copy.deepcopy(model).to(torch.bfloat16)
    for name, linear in linears.items():
        smoothed_by = torch.ones(linear.in_features) if smooth is None else smooth[name]
        found.set_submodule(name, Int8Linear.of(linear, smoothed_by))
    found.config.quantization_config = Int8Config(list(linears))
    return found
