"""Texts to labels with one engine, from strings to class numbers, as it runs in its worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moco_rt.engines.registry import adapter, precision, versions
from moco_rt.engines.session import memory


class TextSession:
    """A loaded engine of others, with Hugging Face's tokenizer before it: sorted by length, in padded batches."""

    def __init__(self, name: str, model_dir: Path, folder: Path, threads: int, max_length: int, batch_rows: int):
        from transformers import AutoTokenizer

        module, options = adapter(name)
        self.versions = versions(module)
        self._engine = module.Engine(model_dir, folder, threads, precision(name), **options)
        self._tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        self._max_length, self._batch_rows = max_length, batch_rows

    def facts(self) -> dict[str, Any]:
        """Return the versions of what answers, and resident memory in MiB at its peak."""
        return {"versions": self.versions, "mib_peak": memory("VmHWM")}

    def label(self, texts: Sequence[Any]) -> tuple[float, NDArray[np.int64]]:
        """Return seconds from texts to labels, and the labels: (N,) int64."""
        start = time.perf_counter()
        rows = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)
        order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable")
        labels = np.empty(len(order), np.int64)
        for first in range(0, len(order), self._batch_rows):
            places = order[first : first + self._batch_rows]
            padded = self._tokenizer.pad({name: [values[i] for i in places] for name, values in rows.items()})
            batch = {name: np.array(values, np.int64) for name, values in padded.items()}
            labels[places] = self._engine(self._engine.inputs(batch)).argmax(axis=1)
        return time.perf_counter() - start, labels


class FastTextSession:
    """A model that `accelerate` has saved, or any classifier, from a folder, with our own way from texts to ids.

    Args:
        folder: the model.
        threads: of torch and the kernels.
        dtype: to compute in; None: its own, and its policy's.
        tokenizer: the folder of its tokenizer; None: the same.
        max_length: in tokens; None: what policy, model and tokenizer allow.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        dtype: Any = None,
        tokenizer: Path | None = None,
        max_length: int | None = None,
    ):
        import torch
        from transformers import AutoTokenizer

        import moco_rt

        torch.set_num_threads(threads)
        self.versions = {"moco_rt": moco_rt.__version__}
        self._model = moco_rt.EarlyExitTextClassificationModel.from_pretrained(folder, dtype=dtype)
        if tokenizer is not None:
            self._model.tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        self._max_length = max_length

    def facts(self) -> dict[str, Any]:
        """Return the versions of what answers, and resident memory in MiB at its peak."""
        return {"versions": self.versions, "mib_peak": memory("VmHWM")}

    def label(self, texts: Sequence[Any]) -> tuple[float, NDArray[np.int64]]:
        """Return seconds from texts to labels, and the labels: (N,) int64."""
        start = time.perf_counter()
        labels = self._model.predict(texts, max_length=self._max_length).labels
        seconds = time.perf_counter() - start
        assert labels is not None
        return seconds, labels.numpy()
