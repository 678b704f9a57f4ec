"""CTranslate2: its encoder, which drops padding itself; the classifier's last layer in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from moco_rt.engines.adapters import hugging_face
from moco_rt.engines.batch import Batch

PACKAGES = ("ctranslate2", "transformers")
COMPUTE_TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def convert(model_dir: Path, folder: Path, batches: Sequence[Batch], precision: str) -> None:  # noqa: ARG001
    """Write the encoder, and the last layer beside it."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_model(self, *arguments: Any, **options: Any) -> Any:
            model = super().load_model(*arguments, **options)
            model.config.position_embedding_type = "absolute"  # it asks for what transformers 5 no longer has
            return model

    Converter(str(model_dir)).convert(str(folder / "encoder"))
    last = hugging_face.load(model_dir).classifier
    np.savez(folder / "classifier.npz", weight=last.weight.detach().numpy(), bias=last.bias.detach().numpy())


class Engine:
    """One encoder over all threads."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        import ctranslate2

        self._encoder = ctranslate2.Encoder(
            str(folder / "encoder"), compute_type=COMPUTE_TYPES[precision], intra_threads=threads
        )
        self._classifier = dict(np.load(folder / "classifier.npz"))

    def inputs(self, batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
        """Lists of tokens without padding."""
        lengths = batch["attention_mask"].sum(axis=1)
        ids, types = (
            [row[:length].tolist() for row, length in zip(batch[name], lengths, strict=True)]
            for name in ("input_ids", "token_type_ids")
        )
        return ids, types

    def __call__(self, inputs: tuple[list[list[int]], list[list[int]]]) -> np.ndarray:
        """The logits."""
        ids, types = inputs
        pooled = np.asarray(self._encoder.forward_batch(ids, token_type_ids=types).pooler_output)
        return cast("np.ndarray", pooled @ self._classifier["weight"].T + self._classifier["bias"])
