"""moco_rt without exits, in int8, quantised on calibration texts."""

from __future__ import annotations

import torch
from transformers import AutoModelForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.tuning.quantize import quantize_on
from peers import hugging_face

PACKAGES = ("moco-rt", "torch", "transformers")


def convert(model_dir, folder, batches, precision):  # noqa: ARG001
    """Write the quantised model."""
    model = AutoModelForSequenceClassification.from_pretrained(model_dir, dtype=torch.float32).eval()
    tensors = [{name: torch.from_numpy(values) for name, values in batch.items()} for batch in batches]
    quantize_on(model, tensors).save_pretrained(folder)


class Engine(hugging_face.Engine):
    """The quantised model, as it was stored."""

    def __init__(self, model_dir, folder, threads, precision):  # noqa: ARG002
        torch.set_num_threads(threads)
        self.model = EarlyExitTextClassificationModel.from_pretrained(folder, backend="packed")
