"""ONNX Runtime: exported, fused by its transformers optimizer, for int8 quantised dynamically or weight by weight."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoConfig

from moco_rt.engines.adapters import hugging_face
from moco_rt.engines.batch import Batch

PACKAGES = ("onnxruntime", "onnx", "torch", "transformers")
#: Names of dimensions that change from batch to batch, by input.
_DYNAMIC = {"pixel_values": {0: "rows"}}
_DYNAMIC_TEXT = {0: "rows", 1: "tokens"}
#: The family whose attention its optimizer knows. Others get what it fuses everywhere, such as norms and GELU.
_BERT = "bert"
_BLOCK, _INT8_PRODUCTS = 32, 4


def convert(
    model_dir: Path,
    folder: Path,
    batches: Sequence[Batch],
    precision: str,
    *,
    reduce_range: bool = False,
    by_blocks: bool = False,
) -> None:
    """Write model.onnx.

    With a reduced range int8 weights have 7 bits; by blocks they have a scale for every 32 of them (MatMulNBits).
    """
    fused = str(folder / "model.onnx")
    export(model_dir, folder / "exported.onnx", batches[0])
    _fuse(model_dir, folder / "exported.onnx", fused, separate=by_blocks)
    if by_blocks:
        _quantize_by_blocks(fused)
    elif precision == "int8":
        _quantize(fused, reduce_range)


def export(model_dir: Path, file: Path, batch: Batch, opset: int | None = None) -> None:
    """Export a model; the optimizer fuses attention only where it is Hugging Face's eager form, by TorchScript.

    Args:
        model_dir: the model.
        file: what is written.
        batch: names the inputs.
        opset: the version of ONNX's operators; None: the newest.
    """
    model = hugging_face.load(model_dir, attn_implementation="eager")
    model.config.use_cache = False
    # Names are given to inputs in the order of the model's arguments; tokenizers have one of their own.
    names = [name for name in inspect.signature(model.forward).parameters if name in batch]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (),
            str(file),
            kwargs={name: torch.from_numpy(batch[name]) for name in names},
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: _DYNAMIC.get(name, _DYNAMIC_TEXT) for name in names} | {"logits": {0: "rows"}},
            dynamo=False,
            opset_version=opset,
        )


def _fuse(model_dir: Path, exported: Path, fused: str, *, separate: bool) -> None:
    """Fuse what can be fused; separate: queries, keys and values stay three products, which can be quantised."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    options = FusionOptions(_BERT)
    options.use_multi_head_attention = separate
    optimized = optimize_model(
        str(exported),
        model_type=_BERT,
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
    )
    counts = optimized.get_fused_operator_statistics()
    if config.model_type == _BERT and not counts["Attention"] + counts["MultiHeadAttention"]:
        raise RuntimeError("attention was not fused")
    optimized.save_model_to_file(fused)


def _quantize(file: str, reduce_range: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    untyped = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # it cannot infer the types behind fused operators
    quantize_dynamic(
        file,
        file,
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        extra_options=untyped,
    )


def _quantize_by_blocks(file: str) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(file), bits=8, block_size=_BLOCK, accuracy_level=_INT8_PRODUCTS)
    quantizer.process()
    quantizer.model.save_model_to_file(file)


class Engine:
    """A session with all graph optimisations, which are its default."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str, **_: Any):  # noqa: ARG002
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def inputs(self, batch: Batch) -> Batch:
        """The arrays as they are."""
        return batch

    def __call__(self, inputs: Batch) -> np.ndarray:
        """The logits."""
        return cast("np.ndarray", self._session.run(None, inputs)[0])
