"""Recordings: the features that exits would read, recorded by the very loop that will run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from moco_rt._C import PackedBatch, Results, ngram_buckets
from moco_rt.architectures.device_batch import AnyBatch
from moco_rt.architectures.sites import TOKENS
from moco_rt.encoding import EncodedTexts
from moco_rt.inputs.batching import by_lengths
from moco_rt.runtime.classifiers.base import EarlyExitClassifier


@dataclass(frozen=True)
class Recordings:
    """Features, logits and lengths of N rows.

    Attributes:
        features: site -> feature `cls+mean`, (N, 2 * D) float32.
        logits: (N, C) float32 logits of the model that was recorded, run to its end.
        lengths: (N,) int64 tokens.
        given: (N, C) float32 logits of the model whose answers count: often the same one.
        tokens: the rows' token ids, as a batch has them at the site `tokens`; None: not recorded.
        dtype: of the logits that the model itself gives: what rows leave with is rounded to it.
    """

    features: dict[str, NDArray[np.float32]]
    logits: NDArray[np.float32]
    lengths: NDArray[np.int64]
    given: NDArray[np.float32]
    tokens: EncodedTexts | None = None
    dtype: torch.dtype = torch.float32

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the model whose answers count: (N,) int64."""
        labels: NDArray[np.int64] = self.given.argmax(axis=1)
        return labels

    def feature(self, site: str, name: str) -> NDArray[np.float32]:
        """Return the feature `cls` or `cls+mean` at a site: (N, size) float32."""
        both = self.features[site]
        return both if name == "cls+mean" else np.ascontiguousarray(both[:, : both.shape[1] // 2])

    def batch(self, places: NDArray[np.int64] | slice = slice(None)) -> PackedBatch:
        """Return the token ids of all rows, or of those at some places, as the batch that a bag of tokens scores."""
        assert self.tokens is not None, "the site `tokens` was not recorded"
        rows = self.tokens[places] if isinstance(places, slice) else self.tokens.take(places)
        batch = PackedBatch.of_lengths(torch.from_numpy(rows.lengths))
        batch.take_ids(torch.from_numpy(rows.ids), None)
        return batch

    def ngrams(self, places: NDArray[np.int64] | slice, buckets: int) -> tuple[Tensor, Tensor]:
        """Return the buckets of the n-grams of rows at some places, end to end, and how many each row has.

        Returns:
            (G,) and (rows,) int64.
        """
        batch = self.batch(places)
        return ngram_buckets(batch, buckets), 2 * batch.cu_seqlens.long().diff() - 1

    def take(self, rows: slice | NDArray[np.int64]) -> Recordings:
        """Return some of the rows, by a slice as views."""
        features = {site: values[rows] for site, values in self.features.items()}
        tokens = self.tokens
        if tokens is not None:
            tokens = tokens[rows] if isinstance(rows, slice) else tokens.take(rows)
        return Recordings(features, self.logits[rows], self.lengths[rows], self.given[rows], tokens, self.dtype)

    def finite(self) -> Recordings:
        """Return the rows of which all logits are finite numbers: nothing can be learnt of others.

        Raises:
            ValueError: there is none.
        """
        usable = np.isfinite(np.hstack([self.logits, self.given])).all(axis=1)
        if usable.all():
            return self
        if not usable.any():
            raise ValueError(f"model must answer some rows with finite numbers (got none in {len(self.logits)} rows)")
        return self.take(np.flatnonzero(usable))

    def copy(self) -> Recordings:
        """Return a copy, which keeps nothing alive that these are a view of."""
        features = {site: values.copy() for site, values in self.features.items()}
        tokens = None if self.tokens is None else self.tokens.take(np.arange(len(self.tokens)))
        return Recordings(features, self.logits.copy(), self.lengths.copy(), self.given.copy(), tokens, self.dtype)


class _Recorder:
    """A stand-in for the exits of a site: it keeps the feature that they would read and lets no row leave."""

    can_peek = True
    needs_mean = True

    def __init__(self, seen: NDArray[np.float32]):
        self._seen = seen
        self.places: Sequence[int] = ()

    def apply(self, batch: AnyBatch, results: Results) -> int:  # noqa: ARG002
        self._seen[self.places] = batch.pool("cls+mean").numpy()
        return 0


class _TokenRecorder:
    """A stand-in for the exits at `tokens`: it keeps the ids that a bag would read and lets no row leave."""

    can_peek = False
    needs_mean = False

    def __init__(self, rows: int):
        self._seen: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * rows
        self.places: Sequence[int] = ()

    def apply(self, batch: AnyBatch, results: Results) -> int:  # noqa: ARG002
        rows = batch.ids.to(torch.int32).tensor_split(batch.cu_seqlens[1:-1].long())
        for place, row in zip(self.places, rows, strict=True):
            self._seen[place] = row.numpy()
        return 0

    def rows(self) -> EncodedTexts:
        return EncodedTexts(np.concatenate(self._seen), np.array([len(row) for row in self._seen]))


def record(model: EarlyExitClassifier, rows: Sequence[Any], sites: Sequence[str], desc: str = "record") -> Recordings:
    """Record the feature `cls+mean` of rows at some sites, on the model's own backend and in its dtype.

    At the site `tokens` their token ids are recorded.

    Args:
        model: the model; its exits take no part.
        rows: N tokenised texts, or images.
        sites: names of the sites.
        desc: title of the progress bar.
    """
    size = 2 * model.policy.hidden_size
    features = {site: np.empty((len(rows), size), np.float32) for site in sites if site != TOKENS}
    recorders: dict[str, _Recorder | _TokenRecorder] = {site: _Recorder(seen) for site, seen in features.items()}
    tokens = _TokenRecorder(len(rows)) if TOKENS in sites else None
    if tokens is not None:
        recorders[TOKENS] = tokens
    logits = np.empty((len(rows), model.policy.num_classes), np.float32)
    lengths, dtype = model.lengths_of(rows), torch.float32
    with tqdm(total=len(rows), unit="row", desc=desc, delay=2, leave=False) as progress:
        for places in by_lengths(lengths):
            for recorder in recorders.values():
                recorder.places = places
            results = model.run_batch(recorders, model.batch_of([rows[i] for i in places]))
            logits[places] = results.logits.to("cpu", torch.float32).numpy()
            dtype = results.logits.dtype
            progress.update(len(places))
    return Recordings(features, logits, lengths, logits, None if tokens is None else tokens.rows(), dtype)
