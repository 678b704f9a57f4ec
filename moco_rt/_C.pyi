from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Weight and bias of a linear layer, (outputs, inputs) and (outputs), or of a LayerNorm.
Affine = tuple[Tensor, Tensor]

#: An `Int8Linear`'s weight (outputs / 16, inputs / 4, 16, 4), bias, scale and smooth.
Int8Affine = tuple[Tensor, Tensor, Tensor, Tensor]

def cpu_isa() -> str:
    """The instruction set of the kernels in use: generic, avx2, avx512, avx512_vnni, avx512_bf16 or amx.

    The environment variable MOCO_MAX_ISA keeps it to a lesser processor's, one of these names; amx is used where it is
    named alone. Any other value: ValueError.
    """

def can_multiply(dtype: torch.dtype) -> bool:
    """Whether the processor multiplies weights of this dtype: float32 and int8 always, bfloat16 where it can."""

def products_of(dtype: torch.dtype) -> str:
    """Which kernels multiply weights of this dtype: those of an instruction set, as in `cpu_isa`, oneDNN's, or none."""

def density(weights: Affine | Int8Affine, dtype: torch.dtype) -> float:
    """The share of a linear layer's weights that is multiplied, 1 where no zeros are left out.

    dtype: of tokens, float32 or bfloat16.
    """

def linear(x: Tensor, weights: Affine | Int8Affine, skip_zeros: bool = True) -> Tensor:
    """A linear layer by itself, as the model's layers compute it: (tokens, outputs) in x's dtype.

    x: (tokens, inputs) float32, or bfloat16 where the processor multiplies that.
    skip_zeros: weights most of which are zeros are stored, and multiplied, without them.
    """

def attention(
    qkv: Tensor, cu_seqlens: Sequence[int], int16: bool = False, before: int = -1, behind: int = -1
) -> Tensor:
    """Attention by itself, as the model's layers compute it: softmax(q k^T / sqrt(d)) v, (tokens, heads, d).

    qkv: (tokens, 3, heads, d) float32, or bfloat16 where the processor multiplies that; d is even.
    cu_seqlens: where each row begins, and the number of tokens.
    int16: with whole numbers, as models in int8 do.
    before, behind: see `AttentionSpec`.
    """

def received_attention(
    qkv: Tensor, cu_seqlens: Sequence[int], int16: bool = False, before: int = -1, behind: int = -1
) -> Tensor:
    """Attention that each token receives: the sum of softmax(q k^T / sqrt(d)) over heads and queries, (tokens) float32.

    For the arguments see `attention`.
    """

def parallel_threads() -> int:
    """How many threads work together in a parallel loop of the extension that waits for all of them.

    At most torch.get_num_threads(), and no more than there are cores in the affinity mask and the CPU quotas of the
    process; fewer where another caller has the threads, or they have not begun within a second.
    """

def quota_cores(cgroups: str, root: str) -> float:
    """For tests: the least CPU quota, in cores, of cgroups under `root`; `cgroups` is a file like /proc/self/cgroup."""

def has_brgemm() -> bool:
    """For tests: whether the torch of this process has the products of tiles that a processor with AMX is given."""

def lost_threads() -> bool:
    """True in the child of a fork() by a thread that had worked with the extension on several threads.

    Torch's own parallel loops would hang there on more than one thread; those of the extension do not.
    """

def refuse_in_parallel(tasks: int) -> None:
    """For tests: the last task of a parallel loop is refused with a ValueError."""

def start_profile() -> None:
    """From here on, time what the extension does."""

def stop_profile() -> dict[str, float]:
    """Seconds since start_profile by part, summed over threads; `extension`: of the calling thread, all in all."""

class PackedBatch:
    """A batch without padding: rows laid end to end, on the CPU.

    attention_mask: (B, S), integer or bool, right-padded, a real token in every row.
    pooled: the token that answers for its row, `first` or `last`.
    """

    def __init__(self, attention_mask: Tensor, *, pooled: str = "first") -> None: ...
    @staticmethod
    def of_lengths(lengths: Tensor, *, pooled: str = "first") -> PackedBatch:
        """A batch of rows of these lengths in tokens: (rows) integer, at least 1 each."""

    @property
    def rows(self) -> int: ...
    @property
    def total_tokens(self) -> int: ...
    @property
    def max_seqlen(self) -> int: ...
    @property
    def cu_seqlens(self) -> Tensor:
        """(rows + 1) int32: the first token of each row, then total_tokens."""

    @property
    def row_ids(self) -> Tensor:
        """(rows) int32: the place of each row in the batch as it came in."""

    def take_ids(self, input_ids: Tensor, token_type_ids: Tensor | None) -> None:
        """Takes the ids by which tokens are embedded, and their segments: (rows, S) or, end to end, (total_tokens).

        The batch keeps and compacts them until it is embedded.
        """

    @property
    def ids(self) -> Tensor:
        """(total_tokens) int64; ValueError before take_ids and after the batch was embedded."""

    @property
    def hidden(self) -> Tensor:
        """(total_tokens, D), a view: the next unpad or compact writes over it."""

    def unpad(self, padded: Tensor) -> None:
        """Takes hidden states from padded: (rows, S, D)."""

    def pad(self) -> Tensor:
        """(rows, max_seqlen, D), zeros behind each row."""

    def attention_mask(self) -> Tensor:
        """(rows, max_seqlen) int64."""

    def keep_mean(self) -> None:
        """Keeps the rows' mean as it is now for the feature cls+mean, here and in batches of pooled tokens."""

    def pool(self, feature: str, *, tokens: int | None = None) -> Tensor:
        """(rows, D) float32; for cls+mean (rows, 2 * D), the mean being the one kept.

        For flat (rows, tokens * D), the first tokens of each row (all), zeros behind them.
        """

    def cls(self) -> PackedBatch:
        """The pooled token of every row, as a batch of its own."""

    def compact(self, keep: Tensor) -> None:
        """Keeps the rows with keep: (rows) bool, in their order; in place."""

    def keep_tokens(self, scores: Tensor, share: float) -> None:
        """Keeps of each row a share of the tokens that it began with, rounded up, in their order.

        The pooled token stays, and those with the largest scores, (tokens) float32, of equal ones the first.
        """

    def keep_rows_of(self, survivors: PackedBatch) -> None:
        """Keeps the rows that are in survivors, which is what compaction left of a batch of the same rows."""

class Results:
    """The logits of a batch's rows and where each row left, in the order the rows came in."""

    def __init__(self, rows: int, classes: int, *, dtype: torch.dtype) -> None: ...
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

class OffRamp:
    """A small classifier: one layer, or two with a ReLU between, all in float32.

    score: max_prob or entropy, of softmax(logits / temperature), with a threshold for each class. With one threshold
    sides, the probability that every label is on the right side of its level, prod_c sigmoid(|logits_c / temperature -
    levels_c|); odds, the same with the log-odds of softmax(logits / temperature), where a class whose level is infinite
    is not compared; and deviation, 1 / (1 + the largest standard deviation) of C estimates by 2 * C outputs, the second
    half of which are logarithms of standard deviations. With a single output it estimates a number: `logits`.
    levels: (C) of sides and odds, else none.
    """

    def __init__(
        self, layers: Sequence[Affine], *, score: str, temperature: float, levels: Sequence[float] = ...
    ) -> None: ...
    def logits(self, x: Tensor) -> Tensor:
        """(rows, outputs) float32. x: (rows, inputs); a row has the same bits whatever it is scored with."""

    def score(self, x: Tensor) -> Tensor:
        """(2, rows) float32: scores, the higher the surer, and predicted classes. x: (rows, inputs).

        Where no single class is predicted, 0 stands for it.
        """

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `score` returns, and what rows leave with, (rows, C) float32.

        Log-probabilities; of sides logits / temperature, of deviation the estimates.
        """

class BagOfTokens:
    """A classifier of rows by their token ids: bias + sum over n-grams of table[bucket] / sqrt(their number).

    table: (buckets, outputs) float32, buckets a power of two. bias: (outputs) float32. score, temperature and levels
    are those of an OffRamp.
    """

    def __init__(
        self, table: Tensor, bias: Tensor, *, temperature: float, score: str = ..., levels: Sequence[float] = ...
    ) -> None: ...
    def score(self, batch: PackedBatch) -> Tensor:
        """(2, rows) float32: scores, and predicted classes, of a batch that holds ids."""

    def answer(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """What `score` returns, and what rows leave with, (rows, C) float32; see `OffRamp.answer`."""

def ngram_buckets(batch: PackedBatch, buckets: int) -> Tensor:
    """The buckets of the n-grams of all rows, end to end: int64, 2 n - 1 of a row of n tokens.

    For every token its own bucket and, but for the first of a row, that of the pair with the token before it.
    """

class Exits:
    """The exits of one site, the site-th of the model.

    count_streaks: False where no off-ramp of the whole model has a patience above 1; then none is added here.
    """

    def __init__(self, site: int, classes: int, *, count_streaks: bool = True) -> None: ...
    def add_linear(
        self, rule_id: int, logits: Tensor, *, feature: str, weight: Tensor, bias: float, threshold: float
    ) -> None:
        """Fires where feature @ weight + bias > threshold, all in float32; weight: (size).

        logits: (C) float32, with which its rows leave.
        """

    def add_off_ramp(
        self,
        rule_id: int,
        *,
        feature: str,
        off_ramp: OffRamp,
        thresholds: Sequence[float],
        patience: int,
        log_odds: Sequence[float] = ...,
    ) -> None:
        """Fires where the score is above the threshold of the predicted class; rows leave with its log-probabilities.

        patience: so many off-ramps in a row, this one included, must predict that class. thresholds: (C), by predicted
        class; (1) where it predicts no single class. log_odds: (2 C), by predicted class the slope and the shift of the
        line by which its log-odds are replaced as a row leaves; none: they stay.
        """

    def add_bag(
        self, rule_id: int, *, bag: BagOfTokens, thresholds: Sequence[float], log_odds: Sequence[float] = ...
    ) -> None:
        """Fires where the score is above the threshold of the predicted class; rows leave with its log-probabilities.

        The batch must hold ids. thresholds, log_odds: as of an off-ramp.
        """

    def add_callable(self, rule_id: int, logits: Tensor) -> None:
        """A rule that is the caller's: it fires where the answer given to apply says so.

        logits: (C) float32, with which its rows leave.
        """

    def apply(
        self,
        batch: PackedBatch,
        results: Results,
        fires: Sequence[Tensor] = ...,
        *,
        features: Sequence[tuple[str, Tensor]] = ...,
    ) -> int:
        """Rows leave by the first rule that fires, the rest is compacted; how many left.

        In the dtype of the results, too, the predicted class's log-probability is the largest: where others round to
        the same number they are taken one step down.
        fires: (rows) bool for each add_callable, in their order.
        features: by name, (rows, size) float32, what rules read of a batch that was pooled elsewhere, and its mean.
        A score that is not finite never fires, nor does
        a flat rule on rows longer than it was fitted on.
        """

class NormSpec:
    """LayerNorm, (size) each; rms: RMSNorm, which subtracts no mean."""

    def __init__(self, weights: Affine, eps: float, *, rms: bool = False) -> None: ...

class EmbeddingSpec:
    """Tables (any, E), the norm of their sum, and the projection E -> D, each where there is one.

    scale: of words, before the others are added.
    padding_idx: where given, positions count from padding_idx + 1 and skip that token.
    """

    def __init__(
        self,
        *,
        words: Tensor,
        norm: NormSpec | None = None,
        positions: Tensor | None = None,
        types: Tensor | None = None,
        projection: Affine | None = None,
        padding_idx: int | None = None,
        scale: float = 1.0,
    ) -> None: ...

class PatchEmbeddingSpec:
    """A linear layer over the patches of an image, (D, channels * height * width of a patch), and positions.

    first_tokens: (k, D), tokens that stand before the patches.
    positions: (k + patches, D).
    image_size: channels, height, width.
    patch_size: height, width.
    """

    def __init__(
        self,
        *,
        projection: Affine,
        first_tokens: Tensor,
        positions: Tensor,
        image_size: Sequence[int],
        patch_size: Sequence[int],
    ) -> None: ...

class DistanceBias:
    """Numbers that are added to scores after q k^T / sqrt(d), by head and distance.

    values: (heads, 2 * positions - 1) float32, of key - query from -(positions - 1) on.
    """

    def __init__(self, values: Tensor) -> None: ...

class DisentangledBias:
    """Products that are added to scores: of queries with keys of a distance, of keys with queries of a distance.

    The sum of the products, q k^T included, is divided by sqrt(d times their number).

    buckets: (2 * positions - 1) int64, which key or query of these a distance has, of query - key from
        -(positions - 1) on.
    keys, queries: (any, D), projected as those of tokens are.
    """

    def __init__(self, buckets: Tensor, *, keys: Tensor | None = None, queries: Tensor | None = None) -> None: ...

class AttentionSpec:
    """Self-attention with its output layer.

    kv_heads: of keys and values, each shared by heads / kv_heads heads; None: as many as heads.
    query_norm, key_norm: of every head, before it is turned.
    before, behind: a query attends to so many keys before its own token and behind it; -1: to all.
    rope: cos and sin of rotary positions, (positions, n) float32 each: of each head the first 2 n dims are turned, i
        with n + i.
    bias: what is added to scores.
    keep: the share of a row's tokens, as many as it began with, that go on behind it; see `PackedBatch.keep_tokens`.
    """

    def __init__(
        self,
        *,
        query: Affine | Int8Affine,
        key: Affine | Int8Affine,
        value: Affine | Int8Affine,
        output: Affine | Int8Affine,
        heads: int,
        kv_heads: int | None = None,
        before: int = -1,
        behind: int = -1,
        query_norm: NormSpec | None = None,
        key_norm: NormSpec | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
        bias: DistanceBias | DisentangledBias | None = None,
        keep: float = 1.0,
    ) -> None: ...

class FeedForwardSpec:
    """down(activation(up(x))); with a gate down(activation(gate(x)) * up(x)).

    activation: gelu, gelu_new, relu, silu or tanh.
    """

    def __init__(
        self,
        *,
        up: Affine | Int8Affine,
        down: Affine | Int8Affine,
        activation: str,
        gate: Affine | Int8Affine | None = None,
    ) -> None: ...

class SubLayerNorms:
    """hidden = after(hidden + output(sub-layer(before(hidden)))), each where there is one."""

    def __init__(
        self, *, before: NormSpec | None = None, output: NormSpec | None = None, after: NormSpec | None = None
    ) -> None: ...

class LayerSpec:
    """One layer: its two sub-layers and the norms around them."""

    def __init__(
        self,
        *,
        attention: AttentionSpec,
        around_attention: SubLayerNorms,
        feed_forward: FeedForwardSpec,
        around_feed_forward: SubLayerNorms,
    ) -> None: ...

class HeadSpec:
    """The classifier: output(norm(activation(dense(pooled)))), each where there is one: an encoder alone has none.

    final_norm: of tokens, before they are pooled.
    dense, activation, norm: each where it is given.
    pooling: `token`, the batch's pooled one, `mean`, the mean of all, or `dense_mean`, the mean of what dense and
        activation make of each.
    """

    def __init__(
        self,
        *,
        output: Affine | None = None,
        dense: Affine | None = None,
        activation: str = "",
        norm: NormSpec | None = None,
        final_norm: NormSpec | None = None,
        pooling: str = "token",
    ) -> None: ...

class TransformerClassifier:
    """A transformer with its classifier, over packed rows; every step works in place.

    dtype: float32 or bfloat16, of hidden states and of products whose weights are not int8; sums, softmax and norms
    are float32.
    order: which of the layers is run at each place; None: each once.
    """

    def __init__(
        self,
        embeddings: EmbeddingSpec | PatchEmbeddingSpec,
        layers: Sequence[LayerSpec],
        head: HeadSpec,
        *,
        dtype: torch.dtype,
        order: Sequence[int] | None = None,
    ) -> None: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def check_ids(self, batch: PackedBatch) -> None:
        """IndexError where the batch's ids are not in the model's tables, as `embed` raises it."""

    def embed(self, batch: PackedBatch) -> None:
        """Hidden states of the batch from the ids that it took; it then holds them no more."""

    def embed_images(self, batch: PackedBatch, pixel_values: Tensor) -> None:
        """Hidden states of the batch from pixel_values: (rows, channels, height, width) floating point.

        Every row of the batch has as many tokens as `PatchEmbeddingSpec.positions`.
        """

    @property
    def reads_one_token(self) -> bool:
        """Whether `classify` reads no token but a row's pooled one."""

    def folds_keys(self, layer: int) -> bool:
        """Whether `peek` needs no keys and values in a layer.

        That is where keys are linear in tokens and the first token attends to all of them.
        """

    def densities(self, layer: int) -> tuple[float, float, float, float]:
        """The shares of the weights that are multiplied in a layer's products, 1 where no zeros are left out.

        In this order: queries, keys and values, 1 before the layer was first run for all tokens; attention's output;
        both of the feed-forward network. Zeros that fill up lists count.
        """

    def attention(self, layer: int, batch: PackedBatch) -> None:
        """Self-attention, its output product, residual and norms."""

    def feed_forward(self, layer: int, batch: PackedBatch) -> None:
        """The products of the feed-forward network, residual and norms."""

    def peek(self, layer: int, batch: PackedBatch) -> PackedBatch:
        """A batch of every row's pooled token, in the state that attention would leave it in; batch stays as it is.

        Where `folds_keys`, no key and no value of another token is computed for it.
        """

    def finish(self, batch: PackedBatch) -> None:
        """The norm behind the last layer, of all tokens, where there is one; `classify` does without."""

    def classify(self, batch: PackedBatch) -> Tensor:
        """(rows, C) in the model's dtype; where `reads_one_token`, batch may have no other."""

class HeldObjects:
    """The values of dictionaries, by which it is seen, within microseconds, where others take their places."""

    def __init__(self, dicts: Sequence[dict[str, Any]]) -> None: ...
    def replaced(self) -> bool:
        """Whether any of them is not the very object that it was, or there are more or fewer."""

def sizes_of(dicts: list[dict[Any, Any]]) -> bytes:
    """How many each of these dictionaries holds, to be compared with a later answer."""

def places_of(tensors: list[Tensor], counting: list[Tensor]) -> bytes:
    """The addresses of tensors, and how often those that count it were written, to be compared with a later answer."""
