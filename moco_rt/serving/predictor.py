"""Predictor: columns of texts to columns of labels, in whatever process a framework for many machines runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from moco_rt._C import lost_threads
from moco_rt.architectures.conversion import Dtype
from moco_rt.inputs.columns import SECOND_TEXTS, TEXT, read_columns
from moco_rt.inputs.file_formats import FileFormat
from moco_rt.inputs.texts import TextInput, list_texts
from moco_rt.runtime.outputs import Prediction
from moco_rt.serving.label_rows import LabelRows
from moco_rt.serving.loading import answer_at_once, load_answering

#: Rows that are answered at a time: sorted by length among themselves, and few enough that memory stays small.
_ROWS = 4096


class Predictor:
    """A model by its directory, which is loaded where and when it is first called: it can be pickled before and after.

    It takes a dict of columns and returns it with `label`, `prob` and `exit` (or `score` in place of the first two),
    so Ray Data's `map_batches`, Spark's `mapInPandas` and `datasets.Dataset.map` take it as it is.

    Args:
        directory: what `accelerate` wrote, or any classifier; it must be there on every machine.
        threads: of torch and the kernels, in the process that calls it; None: as many as they are.
        dtype: to compute in; None: the policy's.
        max_length: in tokens; None: what policy, model and tokenizer allow.

    Raises:
        OSError: there is no such directory.
        ValueError: threads is below 1.

    Example:
        >>> predictor = moco_rt.Predictor("fast", threads=2)
        >>> predictor({"text": np.array(["a fine film"])})["label"]
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        threads: int | None = None,
        dtype: Dtype | None = None,
        max_length: int | None = None,
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1 (got {threads})")
        if not Path(directory).is_dir():
            raise OSError(f"directory must hold a model (got {directory}, which is no directory)")
        self._directory = Path(directory).absolute()  # other processes may stand in other folders
        self._threads, self._dtype, self._max_length = threads, dtype, max_length
        # Whoever caches answers by what is pickled must not take another model's, such as `datasets`.
        self._files = _files_of(self._directory)
        self._forget()

    def _forget(self) -> None:
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The arguments it was made with: a copy in another process loads the model for itself."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_loading", "_loaded")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Label rows.

        Args:
            batch: columns of N rows by name, of which `text`, and `text2` or `text_pair` where texts are pairs, are
                read: arrays, lists or series. Where the second is None the row is a single text.

        Returns:
            All columns, and `label` (N,) of names, `prob` (N,) float32, the label's, and `exit` (N,) of names of sites,
            None where a row ran to the end; of a cascade also `tier` (N,). Where a model has no labels it is `score`
            (N,) float32 in place of label and prob; where several hold at once both are lists.

        Raises:
            TypeError: a text is something else, or a column is one value, as of a row by itself.
            ValueError: there is no column `text`, the second is not as long, a text is not valid Unicode, or a column
                has the name of one that is added: what stands in it would be lost.
        """
        answer, names = self._load()
        columns = dict(batch)
        for name in names:
            if name in columns:
                rename = f"got one: rename it, such as to true_{name}"
                raise ValueError(f"batch must have no column {name}, where the answer's goes ({rename})")
        texts = _texts_of(columns)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(texts), _ROWS):
            rows += answer(texts[start : start + _ROWS])
        return columns | {name: _column([row[name] for row in rows]) for name in names}

    def _load(self) -> _Loaded:
        with self._loading:
            if self._loaded is None:
                if self._threads is not None and not lost_threads():  # see moco_rt.fork
                    torch.set_num_threads(self._threads)
                model = load_answering(self._directory, self._dtype)
                names = LabelRows(model, FileFormat.JSONL).columns
                self._loaded = _Loaded(answer_at_once(model, self._max_length), names)
            return self._loaded


class _Loaded(NamedTuple):
    """A loaded model: its answers to texts, and the names of the columns that they make."""

    answer: Callable[[Sequence[TextInput]], Prediction]
    names: Sequence[str]


def _texts_of(columns: Mapping[str, Any]) -> list[TextInput]:
    """Return texts or pairs of the columns that hold them; none where there is no column at all."""
    if not columns:
        return []
    if TEXT not in columns:
        raise ValueError(f"batch must have a column {TEXT} (got {', '.join(map(str, columns))})")
    lengths = [_length(name, columns[name]) for name in (TEXT, *SECOND_TEXTS) if name in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"batch must have as many second texts as texts (got {lengths[-1]} and {lengths[0]})")
    return list_texts(read_columns(columns, columns, None)) if lengths[0] else []


def _length(name: str, column: Any) -> int:
    """Return the number of rows of a column; a single text has characters in their place."""
    if isinstance(column, str | bytes) or not hasattr(column, "__len__") or getattr(column, "ndim", 1) == 0:
        raise TypeError(
            f"batch must have columns of many rows, as batched=True hands them over "
            f"(got one {type(column).__name__} as {name})"
        )
    return len(column)


def _column(values: list[Any]) -> Any:
    """Return values as an array: of numbers where all are, else of objects."""
    if values and all(isinstance(value, float) for value in values):
        return np.array(values, np.float32)
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # lists stay lists, also where all are as long
        column[place] = value
    return column


def _files_of(directory: Path) -> list[tuple[str, int, int]]:
    """Return path, size and time of the files that a model is loaded from, those of a cascade's tiers, too."""
    found = []
    for file in directory.rglob("*"):
        path = file.relative_to(directory)
        if any(part.startswith(".") for part in path.parts) or not file.is_file():  # what others write meanwhile
            continue
        about = file.stat()
        found.append((path.as_posix(), about.st_size, about.st_mtime_ns))
    return sorted(found)
