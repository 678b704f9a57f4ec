"""Run a model once over texts, or images, and keep what its sub-layers computed."""

from __future__ import annotations

import hashlib
import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from moco_rt.analysis.columns import Column, PackedColumn
from moco_rt.analysis.frame import MLFrame
from moco_rt.analysis.frame_files import FrameWriter
from moco_rt.architectures import (
    IMAGES,
    TEXTS,
    Architecture,
    architecture_of,
    check_classifier,
    check_single_label,
    load_image_processor,
    load_tokenizer,
    takes_images,
    unwrap,
    warn_where_untrained,
)
from moco_rt.architectures.compressed.shortening import leave_out
from moco_rt.architectures.conversion import to_dtype
from moco_rt.architectures.device_batch import batch_of
from moco_rt.architectures.sites import all_sites
from moco_rt.encoding import Encoded
from moco_rt.inputs.batching import by_length, pad
from moco_rt.inputs.images import check_column, process_images, take_images
from moco_rt.inputs.texts import TextInput, Texts, take_texts
from moco_rt.inputs.tokenization import encode, length_limit
from moco_rt.quantization.hf_quantizer import is_int8

_log = logging.getLogger(__name__)

_FEATURES = ("cls", "mean", "tokens")
# Rows are sorted by length inside a chunk: many rows make batches of one length, but their tokens are held in memory.
_CHUNK_ROWS = 512
_CHUNK_BYTES = 1 << 29
_BATCH_ROWS = 64


def capture(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    *,
    sites: str | Sequence[str],
    features: str | Sequence[str] = ("cls",),
    max_length: int | None = None,
    out: str | Path | None = None,
    columns: str | Sequence[str] | None = None,
) -> MLFrame:
    """Capture features of a model's intermediate representations, with its logits, its predictions and `row_id`.

    `row_id` is a number that rows of the same tokens, or of the same pixels, share: batches of other texts may give
    their features other last bits.

    Streams to disk chunk by chunk; the rows of the frame are in the order of the texts. Texts are truncated as the
    tokenizer truncates.

    Args:
        model: a Hugging Face `...ForSequenceClassification` or `...ForImageClassification`, or a pipeline or one of our
            models around it.
        tokenizer: its tokenizer, or its image processor; None: that of the pipeline, or loaded from where the model
            came from.
        texts: texts, pairs, or rows with named columns, in whatever holds them, see `list_texts`; an iterator is read
            as it is captured, anything else is checked before. For a model that takes them, images, see its `predict`.
        sites: such as `encoder.0.attention`, or the model's own module paths, `bert.encoder.layer.0.attention`;
            with none the frame has logits, predictions and `row_id` only.
        features: `cls` and `mean`, columns (rows, D) float32; `tokens`, a packed column. Columns are named
            `{site}.{feature}`, or `{site}` where `tokens` is the only feature.
        max_length: in tokens; None: what model and tokenizer allow.
        out: directory of the frame, which must not exist; None: a temporary one that lives as long as the frame.
        columns: names the column that holds the text, or the two that hold a pair; None: `text`, and where there is one
            `text2` or `text_pair`.

    Raises:
        TypeError: model is not a classifier, or texts is a single text or holds something else.
        ValueError: unknown site or feature, no texts, one that is not valid Unicode, or max_length leaves no room for a
            text.
        FileExistsError: out exists.
    """
    images = takes_images(unwrap(model)[0])
    model, tokenizer = unwrap(model, tokenizer, "image_processor" if images else "tokenizer")
    if tokenizer is None:
        tokenizer = (load_image_processor if images else load_tokenizer)(model)
    check_classifier(model, IMAGES if images else TEXTS)
    model = to_dtype(model, None)
    architecture = architecture_of(model)
    warn_where_untrained(architecture)
    check_single_label(model.config)
    taken = _columns(architecture, sites, features)
    rows: Iterable[Any]
    encoder: _Texts | _Images
    if images:
        if max_length is not None:
            raise ValueError(f"max_length must be None: the model takes images (got {max_length})")
        rows = take_images(texts, check_column(columns))
        encoder = _Images(architecture, tokenizer)
    else:
        rows = take_texts(texts, columns)
        encoder = _Texts(architecture, tokenizer, length_limit(tokenizer, architecture.max_seqlen, max_length))
    if is_int8(model):
        _log.warning(
            "capture runs the model's own modules: in int8 they are slow, and round otherwise than a peek does"
        )
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        if out is not None:
            return _capture(encoder, rows, taken, Path(out))
        # The frame maps its files: they can go at once, what is mapped stays until the frame is dropped.
        with tempfile.TemporaryDirectory(prefix="moco_rt-") as directory:
            return _capture(encoder, rows, taken, Path(directory) / "frame")
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Texts:
    """Texts of a chunk to batches with embeddings."""

    architecture: Architecture
    tokenizer: Any
    max_length: int
    kind = "text"

    def batches(self, texts: list[TextInput]) -> Iterator[tuple[list[int], list[int], Tensor, Tensor]]:
        """Yield the places of a batch's texts, shortest first, their ids, embeddings (rows, S, D) and mask."""
        rows = encode(self.tokenizer, texts, self.max_length)
        for places in by_length(rows, _BATCH_ROWS):
            ids = [_row_id(*_told_apart_by(rows[place])) for place in places]
            inputs = pad(rows.take(np.array(places)), self.architecture.device)
            input_ids, mask = self.architecture.real_tokens(inputs["input_ids"], inputs["attention_mask"])
            hidden = self.architecture.embed(input_ids, inputs.get("token_type_ids"))
            yield places, ids, hidden, mask


def _told_apart_by(row: Encoded) -> Iterator[ArrayLike]:
    """Yield the ids of a row, and its types where they are not all 0, as beside rows that have none."""
    yield row["input_ids"]
    types = row.get("token_type_ids")
    if types is not None and np.any(types):
        yield types


@dataclass(frozen=True)
class _Images:
    """Images of a chunk to batches with embeddings."""

    architecture: Architecture
    image_processor: Any
    kind = "image"

    @property
    def max_length(self) -> int:
        return self.architecture.max_seqlen

    def batches(self, images: list[Any]) -> Iterator[tuple[list[int], list[int], Tensor, Tensor]]:
        """Yield the places of a batch's images, their ids, embeddings (rows, S, D) and a mask of ones."""
        size = self.architecture.image_size
        assert size is not None
        for start in range(0, len(images), _BATCH_ROWS):
            places = list(range(start, min(len(images), start + _BATCH_ROWS)))
            pixels = process_images(self.image_processor, [images[place] for place in places], size[0])
            if pixels.shape[1:] != size:
                got = tuple(pixels.shape[1:])
                raise ValueError(f"image_processor must make images of {size}, as the model takes them (got {got})")
            hidden = self.architecture.embed(pixels.to(self.architecture.device), None)
            ids = [_row_id(image) for image in pixels.cpu().numpy()]
            yield places, ids, hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.long)


def _row_id(*values: ArrayLike) -> int:
    """Return a number of 64 bits for what the model is given of a row."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        digest.update(np.ascontiguousarray(value).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _capture(
    encoder: _Texts | _Images, rows: Iterable[Any], columns: dict[str, list[tuple[str, str]]], path: Path
) -> MLFrame:
    total = len(rows) if isinstance(rows, Sized) else None
    packed = sum(feature == "tokens" for taken in columns.values() for _, feature in taken)
    row_bytes = packed * encoder.max_length * encoder.architecture.hidden_size * np.dtype(np.float32).itemsize
    chunk_rows = min(_CHUNK_ROWS, max(_BATCH_ROWS, _CHUNK_BYTES // (row_bytes + 1)))
    with FrameWriter(path) as writer, tqdm(total=total, desc="capture", unit="row") as bar:
        for chunk in _chunks(rows, chunk_rows, encoder.kind):
            writer.append(_capture_chunk(encoder, chunk, columns, bar))
    return MLFrame.load_frame(path)


def _columns(
    architecture: Architecture, sites: str | Sequence[str], features: str | Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    """Site -> the columns (name, feature) taken there."""
    known = all_sites(architecture.num_layers)
    asked = [sites] if isinstance(sites, str) else list(sites)
    kinds = [features] if isinstance(features, str) else list(features)
    for feature in kinds:
        if feature not in _FEATURES:
            raise ValueError(f"capture: features must be of {', '.join(_FEATURES)} (got {feature!r})")
    columns: dict[str, list[tuple[str, str]]] = {}
    for name in asked:
        site = architecture.module_paths.get(name, name)
        if site not in known:
            raise ValueError(f"capture: sites must be of {', '.join(known)} (got {name!r})")
        for feature in kinds:
            column = name if kinds == ["tokens"] else f"{name}.{feature}"
            columns.setdefault(site, []).append((column, feature))
    return columns


def _chunks(items: Iterable[Any], chunk_rows: int, kind: str) -> Iterator[list[Any]]:
    rows = iter(items)
    chunk = list(itertools.islice(rows, chunk_rows))
    if not chunk:
        raise ValueError(f"{kind}s must hold at least one {kind} (got none)")
    while chunk:
        yield chunk
        chunk = list(itertools.islice(rows, chunk_rows))


@torch.no_grad()
def _capture_chunk(
    encoder: _Texts | _Images,
    rows: list[Any],
    columns: dict[str, list[tuple[str, str]]],
    bar: Any,
) -> dict[str, NDArray[Any] | PackedColumn]:
    """Every column of a chunk, in the order of its rows."""
    in_order: dict[str, dict[int, NDArray[np.float32]]] = {}  # column -> row -> its value
    row_ids = np.empty(len(rows), np.int64)
    for places, ids, hidden, mask in encoder.batches(rows):
        row_ids[places] = ids
        for name, values in _capture_batch(encoder.architecture, hidden, mask, columns).items():
            in_order.setdefault(name, {}).update(zip(places, values, strict=True))
        bar.update(len(places))

    captured = {name: [values[i] for i in range(len(rows))] for name, values in in_order.items()}
    chunk: dict[str, NDArray[Any] | PackedColumn] = {}
    for site, taken in columns.items():
        for name, feature in taken:
            values = captured[name]
            if feature == "tokens":
                cu_seqlens = np.cumsum([0, *map(len, values)], dtype=np.int64)
                chunk[name] = PackedColumn(np.concatenate(values), cu_seqlens, site, feature)
            else:
                chunk[name] = Column.of(np.stack(values), site, feature)
    logits = np.stack(captured["logits"])
    return chunk | {"logits": logits, "predictions": logits.argmax(axis=1), "row_id": row_ids}


def _capture_batch(
    architecture: Architecture, hidden: Tensor, attention_mask: Tensor, columns: dict[str, list[tuple[str, str]]]
) -> dict[str, list[NDArray[np.float32]]]:
    """Every column of a batch: a value for each row."""
    captured: dict[str, list[NDArray[np.float32]]] = {}
    batch = batch_of(attention_mask, pooled=architecture.pooled_token)
    mask = architecture.context(attention_mask, hidden)
    for site, run in architecture.steps():
        before = attention_mask
        hidden, attention_mask = leave_out(architecture, site, hidden, run(hidden, mask), attention_mask, batch)
        if attention_mask is not before:
            mask = architecture.context(attention_mask, hidden)
        if site not in columns:
            continue
        batch.unpad(hidden)
        for name, feature in columns[site]:
            if feature == "tokens":
                captured[name] = np.split(_to_numpy(batch.hidden), batch.cu_seqlens.numpy()[1:-1])
            else:
                captured[name] = list(_to_numpy(batch.pool(feature)))
    captured["logits"] = list(_to_numpy(architecture.classify(hidden, attention_mask)))
    return captured


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A copy: the batch's buffer is used again."""
    array: NDArray[np.float32] = tensor.to("cpu", torch.float32, copy=True).numpy()
    return array
