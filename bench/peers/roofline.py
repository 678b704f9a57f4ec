"""The most that matrix products reach on this machine: oneDNN with prepacked weights, through torch.

(at::linear is no measure: in fp32 it goes through MKL, which is slow on AMD.)
"""

from __future__ import annotations

import time

import torch
from torch.ops import mkldnn, onednn

from moco_rt._C import can_multiply

TOKENS = 2048
SHAPES = ((384, 1536), (768, 3072), (1024, 4096))
REPEATS = 5


class Roofline:
    """Products of all shapes, made ready once, in float32 and in whatever else the processor multiplies."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        makers = {"fp32": _fp32}
        if can_multiply(torch.bfloat16):
            makers["bf16"] = _bf16
        if can_multiply(torch.int8):
            makers["int8"] = _int8
        with torch.inference_mode():
            self._products = {name: [make(*shape) for shape in SHAPES] for name, make in makers.items()}

    @torch.inference_mode()
    def gflops(self) -> dict[str, float]:
        """The best of all shapes and repeats, by precision."""
        return {name: max(map(_gflops, SHAPES, products)) for name, products in self._products.items()}


def _gflops(shape, product):
    product()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return 2 * TOKENS * shape[0] * shape[1] / min(seconds) / 1e9


def _floating(inputs, outputs, dtype):
    x = torch.randn(TOKENS, inputs, dtype=dtype)
    weight = mkldnn._reorder_linear_weight(torch.randn(outputs, inputs, dtype=dtype), TOKENS)
    return lambda: mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _fp32(inputs, outputs):
    return _floating(inputs, outputs, torch.float32)


def _bf16(inputs, outputs):
    return _floating(inputs, outputs, torch.bfloat16)


def _int8(inputs, outputs):
    x = torch.randint(0, 255, (TOKENS, inputs), dtype=torch.uint8)
    weight = onednn.qlinear_prepack(torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8), [TOKENS, inputs])
    scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int64)
    return lambda: onednn.qlinear_pointwise(x, 1.0, 0, weight, scales, zeros, None, 1.0, 0, torch.uint8, "none", [], "")
