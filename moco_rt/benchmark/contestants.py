"""The engines of a benchmark: those that are installed here, and how to install the others."""

from __future__ import annotations

from importlib.util import find_spec

from moco_rt._C import can_multiply
from moco_rt.engines import BASELINE

#: What an engine needs: modules that must be there, and what to type where they are not.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "compile": ((), ""),
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "pip install onnx onnxscript onnxruntime"),
    "openvino": (("openvino", "nncf"), "pip install openvino nncf"),
    "ctranslate2": (("ctranslate2",), "pip install ctranslate2"),
}
#: Engines by what they compute in; bfloat16 where the processor multiplies it.
_IN_EACH = {
    "fp32": ("compile.fp32", "onnxruntime.fp32", "openvino.fp32", "ctranslate2.fp32"),
    "bf16": ("compile.bf16", "openvino.bf16"),
    "int8": ("onnxruntime.int8", "openvino.int8", "ctranslate2.int8"),
}
#: Ours in int8, which models that run as a whole do not have.
OUR_INT8 = "moco_rt.int8"
#: Ours, without exits, by the dtype that they are loaded in.
OURS = {"moco_rt.fp32": "float32", "moco_rt.bf16": "bfloat16", OUR_INT8: "int8"}
#: Ours with the policy that the texts allow.
WITH_EXITS = "moco_rt with exits"


def contestants() -> tuple[list[str], dict[str, str]]:
    """Return the engines that can run here, the baseline first, and for each of the others what to type to have it."""
    import torch

    dtypes = ["fp32", "int8"] + (["bf16"] if can_multiply(torch.bfloat16) else [])
    here, missing = [BASELINE], {}
    for engine in [engine for dtype in dtypes for engine in _IN_EACH[dtype]]:
        name = engine.partition(".")[0]
        modules, command = _NEEDS[name]
        if all(find_spec(module) is not None for module in modules):
            here.append(engine)
        else:
            missing[name] = command
    ours = [name for name in OURS if name.partition(".")[2] in dtypes]
    return here + ours, missing
