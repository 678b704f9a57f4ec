"""OpenVINO: converted from PyTorch, for int8 quantised by NNCF on calibration texts."""

from __future__ import annotations

PACKAGES = ("openvino", "nncf", "torch", "transformers")
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # for int8: what stays floating-point


def convert(model_dir, folder, batches, precision):
    """Write model.xml."""
    import openvino
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(model_dir, attn_implementation="sdpa").eval()
    example = {name: torch.from_numpy(values) for name, values in batches[0].items()}
    converted = openvino.convert_model(model, example_input=example)
    if precision == "int8":
        import nncf

        converted = nncf.quantize(converted, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)


class Engine:
    """One stream over all threads."""

    def __init__(self, model_dir, folder, threads, precision):  # noqa: ARG002
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
        self._request = compiled.create_infer_request()

    def inputs(self, batch):
        """The arrays as they are."""
        return batch

    def __call__(self, inputs):
        """The logits."""
        return self._request.infer(inputs, share_inputs=True)[0]
