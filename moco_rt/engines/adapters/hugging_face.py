"""Hugging Face eager: what everybody has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor

from moco_rt.engines.batch import Batch

PACKAGES = ("torch", "transformers")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(model_dir: Path, **options: Any) -> Any:
    """The model in a directory, of the class that its configuration names."""
    config = transformers.AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
    loader = getattr(transformers, config.architectures[0])
    return loader.from_pretrained(model_dir, trust_remote_code=False, **options).eval()


def load_fused(model_dir: Path, **options: Any) -> Any:
    """The same with torch's fused attention, where Hugging Face has it for the class."""
    try:
        return load(model_dir, attn_implementation="sdpa", **options)
    except ValueError:  # DeBERTa
        return load(model_dir, **options)


class Engine:
    """The model as it comes."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        torch.set_num_threads(threads)
        self.model = load_fused(model_dir, dtype=DTYPES[precision])

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors over the arrays' memory, numbers that are not whole in the model's dtype."""
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        return {
            name: values.to(self.model.dtype) if values.is_floating_point() else values
            for name, values in tensors.items()
        }

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Tensor]) -> np.ndarray:
        """The logits."""
        return cast("np.ndarray", self.model(**inputs).logits.float().numpy())
