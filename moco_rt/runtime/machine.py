"""A description of the processor, and of what the extension makes of it and of a model."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from moco_rt._C import TransformerClassifier, can_multiply, cpu_isa, parallel_threads, products_of

#: Numeric forms that a model may be in, by the dtype of its weights.
_FORMS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

#: A layer's products, as `TransformerClassifier.densities` tells of them.
_PRODUCTS = ("queries, keys and values", "attention output", "feed-forward up", "feed-forward down")


def describe_machine() -> str:
    """Describe the processor, the kernels of each numeric form, threads and versions, a line each.

    Returns:
        Lines of `name: value`. A form that cannot run says why.
    """
    lines = {
        "versions": ", ".join(f"{name} {_version(name)}" for name in ("moco_rt", "torch", "transformers")),
        "processor": _processor(),
        "kernels": f"{cpu_isa()}{_bounds()}",
        **{form: _kernels_of(dtype) for form, dtype in _FORMS.items()},
        "threads": f"{parallel_threads()} (torch: {torch.get_num_threads()}, cores: {_cores()})",
        "texts": _texts(),
    }
    return "\n".join(f"{name + ':':<11}{value}" for name, value in lines.items())


def describe_densities(encoder: TransformerClassifier) -> str:
    """Say which share of its weights each product multiplies, over all layers; empty where all multiply all."""
    of_layers = [encoder.densities(layer) for layer in range(encoder.num_layers)]
    each = {
        name: f"{min(shares):.0%} to {max(shares):.0%}"
        for name, shares in zip(_PRODUCTS, zip(*of_layers, strict=True), strict=True)
        if min(shares) < 1
    }
    return ", ".join(f"{name} {shares}" for name, shares in each.items())


def _kernels_of(dtype: torch.dtype) -> str:
    if can_multiply(dtype):
        return products_of(dtype)
    if bounds := _bounds():
        return f"not here: kernels are bounded{bounds}"
    return f"not here: the processor has no products of {str(dtype).removeprefix('torch.')} (AVX-512 BF16)"


def _bounds() -> str:
    """Name the variables that keep kernels below what the processor has; empty: none does."""
    named = [f"{name}={os.environ[name]}" for name in ("MOCO_MAX_ISA", "ATEN_CPU_CAPABILITY") if name in os.environ]
    return f" by {', '.join(named)}" if named else ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _texts() -> str:
    library = f"tokenizers {_version('tokenizers')}"
    if os.environ.get("MOCO_FAST_TEXTS") == "0":
        return f"{library} (MOCO_FAST_TEXTS=0)"
    try:
        return f"{library}, tokie {version('tokie')}"
    except PackageNotFoundError:
        return f"{library} (the extra fast-texts is not installed)"
