"""moco_rt without exits."""

from __future__ import annotations

from pathlib import Path

from moco_rt.engines.adapters import hugging_face
from moco_rt.runtime.classifiers.choice import class_for

PACKAGES = ("moco-rt", "torch", "transformers")


class Engine(hugging_face.Engine):
    """The model accelerated by one of the backends."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str, backend: str):
        super().__init__(model_dir, folder, threads, precision)
        self.model = class_for(self.model)(self.model, backend=backend, dtype=hugging_face.DTYPES[precision])
