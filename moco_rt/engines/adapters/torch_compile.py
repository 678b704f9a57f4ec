"""torch.compile: inductor with frozen weights, which lets it prepack them for oneDNN."""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor.config

from moco_rt.engines.adapters import hugging_face

PACKAGES = hugging_face.PACKAGES


class Engine(hugging_face.Engine):
    """Compiled once for all shapes (and once more for a single row, which torch always specialises)."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):
        super().__init__(model_dir, folder, threads, precision)
        torch._inductor.config.freezing = True
        self.model = torch.compile(self.model, dynamic=True)
