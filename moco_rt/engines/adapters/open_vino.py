"""OpenVINO: converted from PyTorch, for int8 quantised by NNCF on calibration texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco_rt.engines.adapters import hugging_face
from moco_rt.engines.batch import Batch

PACKAGES = ("openvino", "nncf", "torch", "transformers")
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # for int8: what stays floating-point
#: The share of zeros from which it keeps int8 weights compressed, which it does on processors with AMX alone.
_ZEROS = 0.5


def convert(model_dir: Path, folder: Path, batches: Sequence[Batch], precision: str) -> None:
    """Write model.xml."""
    import openvino

    model = hugging_face.load_fused(model_dir)
    model.config.use_cache = False
    example = {name: torch.from_numpy(values) for name, values in batches[0].items()}
    converted = openvino.convert_model(model, example_input=example)
    if precision == "int8":
        import nncf

        converted = nncf.quantize(converted, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)


class Engine:
    """All threads on a row; on a batch one stream per thread, its rows shared out: 3-5% faster than all on all rows."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(folder / "model.xml")
        self._threads = threads
        self._settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": _ZEROS,
        }
        self._requests = functools.cache(self._make_requests)

    def _make_requests(self, streams: int) -> list[Any]:
        hint = {"PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY", "NUM_STREAMS": streams}
        compiled = self._core.compile_model(self._model, "CPU", self._settings | hint)
        return [compiled.create_infer_request() for _ in range(streams)]

    def inputs(self, batch: Batch) -> list[tuple[Any, Batch]]:
        """A request for each stream, with its rows."""
        rows = len(next(iter(batch.values())))
        requests = self._requests(min(rows, self._threads))
        places = np.array_split(np.arange(rows), len(requests))
        return [
            (request, {name: values[place] for name, values in batch.items()})
            for request, place in zip(requests, places, strict=True)
        ]

    def __call__(self, inputs: list[tuple[Any, Batch]]) -> np.ndarray:
        """The logits."""
        for request, part in inputs:
            request.start_async(part, share_inputs=True)
        for request, _ in inputs:
            request.wait()
        return np.concatenate([request.get_output_tensor().data for request, _ in inputs])
