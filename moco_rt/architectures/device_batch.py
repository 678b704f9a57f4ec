"""A batch whose hidden states lie on a GPU: rows are decided on by the CPU, which asks it for features alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from moco_rt._C import PackedBatch


class DeviceBatch:
    """The rows of a batch as a `PackedBatch`, whose hidden states stay on another device.

    Everything that is said of rows and tokens is that of a packed batch on the CPU, `on_cpu`, whose hidden states are
    numbers: of each token that is left its place among the tokens on the device. So rows leave, and tokens are left
    out, as they do on the CPU.

    Args:
        attention_mask: (B, S), as of a `PackedBatch`, on the device.
        pooled: as of a `PackedBatch`.
    """

    def __init__(self, attention_mask: Tensor, *, pooled: str = "first"):
        self.on_cpu = PackedBatch(attention_mask.cpu(), pooled=pooled)
        self._device = attention_mask.device
        self._tokens: Tensor | None = None  # (any, D): those of the last unpad
        self._mean: tuple[Tensor, Tensor] | None = None  # the rows' ids and means when they were kept

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.on_cpu.rows

    @property
    def max_seqlen(self) -> int:
        """The tokens of the longest row."""
        return self.on_cpu.max_seqlen

    @property
    def cu_seqlens(self) -> Tensor:
        """The first token of each row, then the number of tokens: (rows + 1) int32 on the CPU."""
        return self.on_cpu.cu_seqlens

    @property
    def row_ids(self) -> Tensor:
        """The place of each row in the batch as it came in: (rows) int32 on the CPU."""
        return self.on_cpu.row_ids

    @property
    def ids(self) -> Tensor:
        """The ids of the tokens, (T) int64 on the CPU."""
        return self.on_cpu.ids

    def take_ids(self, input_ids: Tensor, token_type_ids: Tensor | None) -> None:
        """Take the ids that a bag of tokens reads: (rows, S) each."""
        self.on_cpu.take_ids(input_ids.cpu(), None if token_type_ids is None else token_type_ids.cpu())

    def unpad(self, padded: Tensor) -> None:
        """Take hidden states: (rows, S, D) on the device."""
        rows, width, _ = padded.shape
        self._tokens = padded.flatten(0, 1)
        places = torch.arange(rows * width, dtype=torch.float64, device="cpu")
        self.on_cpu.unpad(places.view(rows, width, 1))

    def pad(self) -> Tensor:
        """Return hidden states (rows, max_seqlen, D) on the device, zeros behind each row."""
        padded = self._at(self.on_cpu.pad())
        return padded.masked_fill_(self.attention_mask()[:, :, None] == 0, 0)

    def attention_mask(self) -> Tensor:
        """Return the mask of `pad`: (rows, max_seqlen) int64 on the device."""
        return self.on_cpu.attention_mask().to(self._device, non_blocking=True)

    @property
    def hidden(self) -> Tensor:
        """The hidden states of the tokens that are left, (T, D) on the device."""
        return self._at(self.on_cpu.hidden)

    def keep_tokens(self, scores: Tensor, share: float) -> None:
        """Keep of each row the tokens with the largest scores, (T) float32, as a `PackedBatch` does."""
        self.on_cpu.keep_tokens(scores.cpu(), share)

    def keep_mean(self) -> None:
        """Keep the rows' mean as it is now for the feature cls+mean."""
        self._mean = self.row_ids, self._mean_now()

    def pool(self, feature: str, *, tokens: int | None = None) -> Tensor:
        """Return a feature of the rows as a `PackedBatch` does, (rows, size) float32 on the CPU."""
        return self._pooled(feature, tokens).cpu()

    def features(self, wanted: Iterable[tuple[str, int]]) -> list[tuple[str, Tensor]]:
        """Return features by name and size, on the CPU, with the mean, for which the device is waited for once.

        Of rows that have no hidden states yet there are none.

        Args:
            wanted: names of features, and their sizes: how many numbers of a row.
        """
        if self._tokens is None:
            return []
        size = self._tokens.shape[1]
        names = [*dict.fromkeys([("mean", size), *wanted])]
        each = [self._pooled(name, of_size // size) for name, of_size in names]
        parts = torch.cat(each, dim=1).cpu().split([part.shape[1] for part in each], dim=1)
        return [(name, part) for (name, _), part in zip(names, parts, strict=True)]

    def _pooled(self, feature: str, tokens: int | None) -> Tensor:
        """Return a feature on the device: (rows, size) float32."""
        if feature == "mean":
            return self._mean_now()
        if feature == "flat":
            width = self.max_seqlen if tokens is None else tokens
            padded = self.pad()[:, :width]
            return torch.nn.functional.pad(padded, (0, 0, 0, width - padded.shape[1])).flatten(1).float()
        pooled = self._at(self.on_cpu.cls().hidden).float()
        if feature == "cls":
            return pooled
        if self._mean is None:
            raise ValueError("pool: cls+mean needs the mean of an earlier keep_mean (got none)")
        rows, mean = self._mean
        kept = torch.searchsorted(rows, self.row_ids).to(self._device, non_blocking=True)
        return torch.cat([pooled, mean.index_select(0, kept)], dim=1)

    def _mean_now(self) -> Tensor:
        lengths = self.cu_seqlens.diff().to(self._device, torch.long, non_blocking=True)
        return torch.segment_reduce(self.hidden.float(), "mean", lengths=lengths, axis=0, unsafe=True)

    def _at(self, places: Tensor) -> Tensor:
        """Return the hidden states at places (..., 1): (..., D)."""
        if self._tokens is None:
            raise ValueError("DeviceBatch: hidden states must be given by unpad first (got none)")
        return self._tokens[places[..., 0].to(self._device, torch.long, non_blocking=True)]


AnyBatch = PackedBatch | DeviceBatch


def batch_of(attention_mask: Tensor, *, pooled: str = "first") -> AnyBatch:
    """Return a batch of rows by their mask, on whatever device they lie."""
    if attention_mask.device.type == "cpu":
        return PackedBatch(attention_mask, pooled=pooled)
    return DeviceBatch(attention_mask, pooled=pooled)


def on_cpu(batch: AnyBatch) -> PackedBatch:
    """Return the part of a batch that says which rows and tokens are left."""
    return batch.on_cpu if isinstance(batch, DeviceBatch) else batch
