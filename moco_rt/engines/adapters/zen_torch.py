"""zentorch: AMD's backend of torch.compile, frozen, as its README advises for inference on EPYC."""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor.config

from moco_rt.engines.adapters import hugging_face

PACKAGES = ("zentorch", "torch", "transformers")


class Engine(hugging_face.Engine):
    """Compiled once for all shapes, with weights that it lays out for its own kernels."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):
        import zentorch  # noqa: F401

        super().__init__(model_dir, folder, threads, precision)
        torch._inductor.config.freezing = True
        self.model = torch.compile(self.model, backend="zentorch", dynamic=True)
