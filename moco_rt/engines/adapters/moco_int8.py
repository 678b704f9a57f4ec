"""moco_rt without exits, in int8, quantised on calibration texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from moco_rt.engines.adapters import hugging_face
from moco_rt.engines.batch import Batch
from moco_rt.runtime.classifiers.choice import class_of
from moco_rt.tuning.quantize import quantize_on

PACKAGES = ("moco-rt", "torch", "transformers")


def convert(model_dir: Path, folder: Path, batches: Sequence[Batch], precision: str) -> None:  # noqa: ARG001
    """Write the quantised model."""
    model = hugging_face.load(model_dir, dtype=torch.float32)
    tensors = [{name: torch.from_numpy(values) for name, values in batch.items()} for batch in batches]
    quantize_on(model, tensors).save_pretrained(folder)


class Engine(hugging_face.Engine):
    """The quantised model, as it was stored."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        torch.set_num_threads(threads)
        self.model = class_of(folder).from_pretrained(folder, backend="packed")
