"""Real texts as rows of tokens, by law of length, random images, and rows as padded batches."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from common import SHARED

from moco_rt.engines import Batch
from peers.models import tokenizer_dir

IMAGES = "images"
#: Real lengths, lengths all the same (so many tokens cut from real reviews, no padding), and images of ViT's size.
LAWS = ("sst2", "imdb-256", "imdb-512", "16", "64", "128", "256", "512", IMAGES)
#: A cell holds at most so many.
MOST_ROWS, MOST_BATCHES = 2048, 64
CALIBRATION_ROWS = 300
#: An image takes as much room as ten thousand sentences.
MOST_IMAGES, CALIBRATION_IMAGES = 128, 16
IMAGE_SIZE, PATCH_SIZE = 224, 16


@dataclass(frozen=True)
class Image:
    """Random pixels, as float32 (3, height, width), whose length is that of the row of tokens that they become."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return (IMAGE_SIZE // PATCH_SIZE) ** 2 + 1


Row = list[int] | Image


@functools.cache
def texts(path: str) -> list[str]:
    """All texts of a file, shuffled: the files are not."""
    with (SHARED / "data" / path).open(encoding="utf-8") as lines:
        everything = [json.loads(line)["text"] for line in lines]
    return [everything[i] for i in np.random.default_rng(0).permutation(len(everything))]


@functools.cache
def rows(model: str, law: str) -> list[Row]:
    """Up to MOST_ROWS rows at random."""
    if law == IMAGES:
        return _images(MOST_IMAGES, seed=0)
    if law == "sst2":
        return _encode(model, texts("sst2/dev.jsonl"), 512)
    reviews, limit = texts("imdb/test.jsonl"), int(law.rpartition("-")[2])
    if law.startswith("imdb-"):
        return _encode(model, reviews[:MOST_ROWS], limit)
    long_enough = []
    for start in range(0, len(reviews), MOST_ROWS):
        long_enough += [row for row in _encode(model, reviews[start : start + MOST_ROWS], limit) if len(row) == limit]
        if len(long_enough) >= MOST_ROWS:
            break
    return long_enough[:MOST_ROWS]


def _images(count: int, seed: int) -> list[Row]:
    generator = np.random.default_rng(seed)
    return [Image(generator.standard_normal((3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)) for _ in range(count)]


def calibration_batches(model: str, names: Sequence[str]) -> list[Batch]:
    """Single rows like those the model is meant for, of which none is measured."""
    if "pixel_values" in names:
        return [pad([image], names) for image in _images(CALIBRATION_IMAGES, seed=1)]
    path, limit = ("imdb/unlabelled.jsonl", 256) if model.endswith("imdb") else ("sst2/test.jsonl", 64)
    return [pad([row], names) for row in _encode(model, texts(path)[:CALIBRATION_ROWS], limit)]


def _encode(model: str, of: Sequence[str], limit: int) -> list[Row]:
    return _tokenizer(model)(list(of), truncation=True, max_length=limit)["input_ids"]


@functools.cache
def _tokenizer(model: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_dir(model))


def cut(of: Sequence[Row], batch_rows: int) -> list[list[Row]]:
    """Full batches of rows sorted by length, spread over the lengths however many of them are taken from the front."""
    number = min(len(of) // batch_rows, MOST_BATCHES)
    shortest_first = sorted(of[: number * batch_rows], key=len)
    batches = [shortest_first[i * batch_rows : (i + 1) * batch_rows] for i in range(number)]
    return [batches[i] for i in spread(number)]


def spread(number: int) -> Iterator[int]:
    """All places, the middle one first, then those in the middle of what is left on either side, and so on."""
    gaps = [(0, number)]
    for start, end in gaps:
        if start < end:
            middle = (start + end) // 2
            gaps += [(start, middle), (middle + 1, end)]
            yield middle


def pad(of: Sequence[Row], names: Sequence[str]) -> Batch:
    """As Hugging Face takes it: the arrays of these names, texts padded on the right with [PAD] = 0 to the longest."""
    if isinstance(of[0], Image):
        return {"pixel_values": np.stack([image.pixels for image in of])}
    lengths = np.array([len(row) for row in of])
    ids = np.zeros((len(of), lengths.max()), dtype=np.int64)
    for place, row in enumerate(of):
        ids[place, : len(row)] = row
    mask = np.arange(lengths.max()) < lengths[:, None]
    arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    return {name: arrays[name] for name in names}
