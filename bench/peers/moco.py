"""moco_rt without exits."""

from __future__ import annotations

from moco_rt import EarlyExitTextClassificationModel
from peers import hugging_face

PACKAGES = ("moco-rt", "torch", "transformers")


class Engine(hugging_face.Engine):
    """The model accelerated by one of the backends."""

    def __init__(self, model_dir, folder, threads, precision, backend):
        super().__init__(model_dir, folder, threads, precision)
        self.model = EarlyExitTextClassificationModel(self.model, backend=backend, dtype=hugging_face.DTYPES[precision])
