"""torchao: PyTorch's own x86 quantizer, compiled by inductor to oneDNN's int8 products."""

from __future__ import annotations

from pathlib import Path

import torch
import torch._inductor.config
from torch.export import Dim

from moco_rt.engines.adapters import hugging_face

PACKAGES = ("torchao", "torch", "transformers")


class Engine(hugging_face.Engine):
    """Dynamic int8: faster here than `quantize_` with Int8DynamicActivationInt8WeightConfig."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        super().__init__(model_dir, folder, threads, "fp32")
        config = self.model.config
        # Two rows of three tokens: no size of which torch would make a constant.
        example = {name: torch.ones(2, 3, dtype=torch.int64, device="cpu") for name in ("input_ids", "attention_mask")}
        if getattr(config, "type_vocab_size", 0):
            example["token_type_ids"] = torch.zeros(2, 3, dtype=torch.int64, device="cpu")
        sizes = {0: Dim("rows", max=4096), 1: Dim("tokens", max=config.max_position_embeddings)}
        exported = torch.export.export(self.model, (), kwargs=example, dynamic_shapes=dict.fromkeys(example, sizes))
        quantizer = X86InductorQuantizer()
        quantizer.set_global(get_default_x86_inductor_quantization_config(is_dynamic=True))
        prepared = prepare_pt2e(exported.module(), quantizer)
        prepared(**example)
        torch._inductor.config.freezing = True
        self.model = torch.compile(convert_pt2e(prepared), dynamic=True)
