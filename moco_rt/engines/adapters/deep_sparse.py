"""DeepSparse, which leaves out zeros: its last version, of 2024, wants an older NumPy, and Python 3.11 at most.

So it runs in an environment of its own, with moco_rt: `MOCO_RT_DEEPSPARSE_PYTHON` names the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from moco_rt.engines.adapters import onnx_runtime
from moco_rt.engines.batch import Batch

PACKAGES = ("deepsparse", "torch", "transformers")
#: Its own exports have these operators, in which GELU and LayerNorm come in parts that it knows.
_OPSET = 14


def convert(model_dir: Path, folder: Path, batches: Sequence[Batch], precision: str) -> None:
    """Write model.onnx."""
    version("deepsparse")  # raises where it is missing: nothing is exported in vain
    file = folder / "model.onnx"
    onnx_runtime.export(model_dir, file, batches[0], _OPSET)
    if precision == "int8":
        _quantize(str(file), batches)


def _quantize(file: str, batches: Sequence[Batch]) -> None:
    """Put a model in the form of int8 that runs fastest here: calibrated, by whole tensors, in operators of int8.

    A scale for each output, and pairs of operators that quantise and dequantise, were slower on all shapes tried.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self._left, None)

    quantize_static(
        file,
        file,
        Reader(),
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


class Engine:
    """An engine for each shape of batches: it compiles for one."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        self._file, self._threads = str(folder / "model.onnx"), threads
        self._compiled: dict[tuple[int, ...], Any] = {}

    def inputs(self, batch: Batch) -> tuple[Any, list[np.ndarray]]:
        """An engine of this shape, and the arrays in the order of the model's inputs."""
        import deepsparse

        rows, tokens = batch["input_ids"].shape
        if (rows, tokens) not in self._compiled:
            self._compiled[rows, tokens] = deepsparse.Engine(
                self._file,
                batch_size=rows,
                num_cores=self._threads,
                input_shapes=[[rows, tokens]] * len(batch),
            )
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch]
        # It knows dtypes by identity, and one that came out of a pickle is an object of its own.
        return self._compiled[rows, tokens], [np.ascontiguousarray(batch[name]).view(np.int64) for name in names]

    def __call__(self, inputs: tuple[Any, list[np.ndarray]]) -> np.ndarray:
        """The logits."""
        engine, arrays = inputs
        return cast("np.ndarray", engine.run(arrays)[0])
