"""ONNX Runtime: exported, fused by its transformers optimizer, for int8 quantised dynamically."""

from __future__ import annotations

import warnings

PACKAGES = ("onnxruntime", "onnx", "torch", "transformers")
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def convert(model_dir, folder, batches, precision, *, reduce_range=False):
    """Write model.onnx; with a reduced range int8 weights have 7 bits.

    The optimizer fuses attention only where it is Hugging Face's eager form, written by the TorchScript exporter.
    """
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(model_dir, attn_implementation="eager").eval()
    exported, fused = str(folder / "exported.onnx"), str(folder / "model.onnx")
    dynamic = {name: {0: "rows", 1: "tokens"} for name in NAMES}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(torch.from_numpy(batches[0][name]) for name in NAMES),
            exported,
            input_names=list(NAMES),
            output_names=["logits"],
            dynamic_axes=dynamic | {"logits": {0: "rows"}},
            dynamo=False,
        )
    config = model.config
    optimized = optimize_model(
        exported, model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    if not optimized.get_fused_operator_statistics()["Attention"]:
        raise RuntimeError("attention was not fused")
    optimized.save_model_to_file(fused)
    if precision == "int8":
        untyped = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # it cannot infer the types behind fused operators
        quantize_dynamic(
            fused,
            fused,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options=untyped,
        )


class Engine:
    """A session with all graph optimisations, which are its default."""

    def __init__(self, model_dir, folder, threads, precision, *, reduce_range=False):  # noqa: ARG002
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def inputs(self, batch):
        """The arrays as they are."""
        return batch

    def __call__(self, inputs):
        """The logits."""
        return self._session.run(None, inputs)[0]
