from collections.abc import Sequence

import torch
from torch import Tensor

def cpu_isa() -> str:
    """The instruction set of the kernels in use: generic, avx2 or avx512."""

def parallel_threads() -> int:
    """How many threads a parallel loop of the extension really runs on."""

class PackedBatch:
    """A batch without padding: rows laid end to end.

    attention_mask: (B, S), integer or bool, right-padded, a real token in every row.
    """

    def __init__(self, attention_mask: Tensor) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...
    @property
    def max_seqlen(self) -> int: ...
    @property
    def cu_seqlens(self) -> Tensor:
        """(rows + 1) int32 on the CPU: the first token of each row, then total_tokens."""

    @property
    def row_ids(self) -> Tensor:
        """(rows) int32 on the CPU: the place of each row in the batch as it came in."""

    @property
    def hidden(self) -> Tensor:
        """(total_tokens, D), a view: the next unpad or compact writes over it."""

    def unpad(self, padded: Tensor) -> None:
        """Takes hidden states from padded: (rows, S, D)."""

    def pad(self) -> Tensor:
        """(rows, max_seqlen, D), zeros behind each row."""

    def attention_mask(self) -> Tensor:
        """(rows, max_seqlen) int64, on the device of the hidden states."""

    def pool(self, feature: str, *, tokens: int | None = None) -> Tensor:
        """(rows, D) float32; for flat (rows, tokens * D), the first tokens of each row (all), zeros behind them."""

    def compact(self, keep: Tensor) -> None:
        """Keeps the rows with keep: (rows) bool, in their order; in place on the CPU."""

class Results:
    """What a batch's rows end with, in the order they came in."""

    def __init__(self, rows: int, classes: int, *, dtype: torch.dtype, device: torch.device) -> None: ...
    @property
    def logits(self) -> Tensor:
        """(B, C)."""

    @property
    def exit_site(self) -> Tensor:
        """(B) int64; -1 = ran to the end."""

    @property
    def exit_rule(self) -> Tensor:
        """(B) int64; -1 = ran to the end."""

    def write_last(self, batch: PackedBatch, logits: Tensor) -> None:
        """Logits (rows, C) of the rows still in batch."""

class Exits:
    """The exits of one site, the site-th of the model, each with the logits (C) its rows leave with."""

    def __init__(self, site: int, classes: int) -> None: ...
    def add_linear(
        self, rule_id: int, logits: Tensor, *, feature: str, weight: Tensor, bias: float, threshold: float
    ) -> None:
        """Fires where feature @ weight + bias > threshold, all in float32; weight: (size), on the batch's device."""

    def add_callable(self, rule_id: int, logits: Tensor) -> None:
        """A rule that is the caller's: it fires where the answer given to apply says so."""

    def apply(self, batch: PackedBatch, results: Results, fires: Sequence[Tensor] = ...) -> int:
        """Rows whose first firing rule is r leave with r's logits, the rest is compacted; how many left.

        fires: (rows) bool for each add_callable, in their order. A score that is not finite never fires, nor does
        a flat rule on rows longer than it was fitted on.
        """
