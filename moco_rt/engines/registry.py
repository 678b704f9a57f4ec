"""The engines by name.

An adapter is a module that knows one engine:

    PACKAGES            what its answers come from; their versions are reported
    convert(model_dir, folder, batches, precision, **options)
                        only where it is needed: writes into folder what Engine reads, calibrated on the batches
    Engine(model_dir, folder, threads, precision, **options)
        inputs(batch)   a padded batch, in the form the engine likes best; not timed
        (inputs)        the logits (B, C) as an array

A batch is what `moco_rt.engines.batch` says. Adapters are imported in workers only: a rival that is not installed
fails alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

BASELINE = "hf.fp32"
OURS = "moco-packed"

#: Name, which ends in the precision, and the adapter with its options.
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "hf.fp32": ("hugging_face", {}),
    "hf.bf16": ("hugging_face", {}),
    "compile.fp32": ("torch_compile", {}),
    "compile.bf16": ("torch_compile", {}),
    "zentorch.fp32": ("zen_torch", {}),
    "zentorch.bf16": ("zen_torch", {}),
    "vllm.fp32": ("v_llm", {}),
    "vllm.bf16": ("v_llm", {}),
    "onnxruntime.fp32": ("onnx_runtime", {}),
    "onnxruntime.int8": ("onnx_runtime", {}),
    "onnxruntime-reduced.int8": ("onnx_runtime", {"reduce_range": True}),
    "onnxruntime-blocks.int8": ("onnx_runtime", {"by_blocks": True}),
    "openvino.fp32": ("open_vino", {}),
    "openvino.bf16": ("open_vino", {}),
    "openvino.int8": ("open_vino", {}),
    "ctranslate2.fp32": ("c_translate2", {}),
    "ctranslate2.bf16": ("c_translate2", {}),
    "ctranslate2.int8": ("c_translate2", {}),
    "torchao.int8": ("torch_ao", {}),
    "deepsparse.fp32": ("deep_sparse", {}),
    "deepsparse.int8": ("deep_sparse", {}),
    "moco-reference.fp32": ("moco", {"backend": "reference"}),
    "moco-reference.bf16": ("moco", {"backend": "reference"}),
    "moco-packed.fp32": ("moco", {"backend": "packed"}),
    "moco-packed.bf16": ("moco", {"backend": "packed"}),
    "moco-packed.int8": ("moco_int8", {}),
}


#: Engines whose packages contradict those of the others: the variables that name their environments' interpreters.
_INTERPRETERS = {"v_llm": "MOCO_RT_VLLM_PYTHON", "deep_sparse": "MOCO_RT_DEEPSPARSE_PYTHON"}


def interpreter(name: str) -> str:
    """Return the path of the Python that runs an engine: this one, unless an environment variable names another."""
    module, _ = ENGINES[name]
    return os.environ.get(_INTERPRETERS.get(module, ""), sys.executable)


def precision(name: str) -> str:
    """Return the precision of an engine: fp32, bf16 or int8."""
    return name.rpartition(".")[2]


def is_rival(name: str) -> bool:
    """Tell whether an engine is somebody else's."""
    return not name.startswith("moco")


def adapter(name: str) -> tuple[ModuleType, dict[str, Any]]:
    """The adapter's module, and the options of its engine."""
    module, options = ENGINES[name]
    return importlib.import_module(f"moco_rt.engines.adapters.{module}"), options


def versions(module: ModuleType) -> dict[str, str]:
    """The versions of what an adapter's answers come from."""
    return {package: version(package) for package in module.PACKAGES}
