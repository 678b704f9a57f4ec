"""Hugging Face eager: what everybody has."""

from __future__ import annotations

import torch
from transformers import AutoModelForSequenceClassification

PACKAGES = ("torch", "transformers")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Engine:
    """The model as it comes, with torch's fused attention."""

    def __init__(self, model_dir, folder, threads, precision):  # noqa: ARG002
        torch.set_num_threads(threads)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model_dir, dtype=DTYPES[precision], attn_implementation="sdpa"
        ).eval()

    def inputs(self, batch):
        """Tensors over the arrays' memory."""
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    @torch.inference_mode()
    def __call__(self, inputs):
        """The logits."""
        return self.model(**inputs).logits.float().numpy()
