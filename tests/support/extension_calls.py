"""Random calls of the extension: most arguments fit together, some are of another shape, type or value."""

from __future__ import annotations

from itertools import pairwise

import torch

from moco_rt import _C

#: What a call may raise.
REFUSALS = (ValueError, TypeError, IndexError, RuntimeError, NotImplementedError, MemoryError)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.bool, torch.float32)
ODD_NUMBERS = (-1, 0, 1, 2, 3, 7, 2**62, -(2**63))  # no number of which a machine might just have the memory
ODD_WORDS = ("", "cls", "mean", "cls+mean", "flat", "gelu", "tanh", "entropy", "max_prob", "sides", "odds", "deviation")


class Caller:
    """Makes arguments, and calls with them.

    Args:
        generator: a NumPy random generator.

    Attributes:
        share: of arguments that do not fit.
        calls: how many were made.
        refused: how many of them raised.
    """

    def __init__(self, generator):
        self.random = generator
        self.calls = self.refused = 0
        self.share = 0.03

    def one_of(self, values):
        return values[self.random.integers(len(values))]

    def odd(self, share=None):
        return self.random.random() < (self.share if share is None else share)

    def number(self, value):
        """A number that fits, or one that does not."""
        return self.one_of(ODD_NUMBERS) if self.odd() else value

    def real(self, value):
        return self.one_of((0.0, -1.0, float("nan"), float("inf"), 1e300)) if self.odd() else value

    def reals(self, value, count):
        """So many numbers, or another count of them."""
        return [self.real(value) for _ in range(self.one_of((0, 1, 5)) if self.odd() else count)]

    def word(self, *values):
        return self.one_of(ODD_WORDS) if self.odd() else self.one_of(values)

    def floats(self, *shape):
        return self.bent(torch.from_numpy(self.random.normal(size=shape)).to(torch.float32))

    def positive(self, *shape):
        return self.bent(torch.from_numpy(self.random.uniform(0.1, 1, shape)).to(torch.float32))

    def integers(self, most, *shape):
        return self.bent(torch.from_numpy(self.random.integers(0, most, shape)))

    def some(self, rows):
        """Most of so many rows."""
        return self.bent(torch.from_numpy(self.random.random(rows) < 0.7))

    def bent(self, tensor):
        """A tensor as it is, or one with another shape, type, layout or value."""
        if not self.odd():
            return tensor
        kind = self.random.integers(9)
        if kind == 0:
            return tensor.to(self.one_of(DTYPES))
        if kind == 1:
            return tensor[..., : self.random.integers(tensor.shape[-1] + 1)] if tensor.dim() else tensor
        if kind == 2:
            return tensor.unsqueeze(0)
        if kind == 3:
            return tensor.flatten()
        if kind == 4:
            return tensor.t() if tensor.dim() == 2 else tensor[:0] if tensor.dim() else tensor
        if kind == 5:
            return torch.cat([tensor, tensor], -1)[..., ::2] if tensor.dim() else tensor
        if kind == 6 and tensor.numel():
            changed = tensor.clone()
            value = (float("nan"), float("inf"), -1e30)[self.random.integers(3)]
            place = int(self.random.integers(changed.numel()))
            changed.view(-1)[place] = value if changed.is_floating_point() else self.one_of((-1, 100, 127))
            return changed
        return tensor.expand(2, *tensor.shape) if kind == 7 else torch.empty(0, dtype=tensor.dtype)

    def call(self, function, *arguments, **options):
        """What a function returns; None: it refuses."""
        self.calls += 1
        try:
            return function(*arguments, **options)
        except REFUSALS as error:
            self.refused += 1
            if "\n" in str(error) and "incompatible" not in str(error):
                raise AssertionError(f"{function} must say why in one line (got {error})") from error
            return None

    def affine(self, outputs, inputs, form):
        if form == "int8" and outputs % 16 == 0 and inputs % 4 == 0:
            weight = self.integers(65, outputs // 16, inputs // 4, 16, 4).to(torch.int8)
            return self.bent(weight), self.floats(outputs), self.positive(outputs), self.positive(inputs)
        weight = self.floats(outputs, inputs)
        if form == "sparse" and weight.shape == (outputs, inputs):
            weight = weight * torch.from_numpy(self.random.random((outputs, inputs)) < 0.1)
        return weight, self.floats(outputs)


def call_kernels(caller):
    """Single products and attentions."""
    tokens, inputs, outputs = (int(caller.one_of((1, 2, 4, 15, 16, 33, 64))) for _ in range(3))
    weights = caller.affine(outputs, inputs, caller.one_of(("dense", "sparse", "int8")))
    caller.call(_C.linear, caller.floats(tokens, inputs), weights, bool(caller.random.integers(2)))
    caller.call(_C.density, weights, torch.float32)
    heads, size = int(caller.one_of((1, 2, 3))), int(caller.one_of((2, 4, 8, 16, 34)))
    ends = [0, *sorted({caller.number(int(each)) for each in caller.random.integers(0, tokens + 1, 3)} | {tokens})]
    options = (bool(caller.random.integers(2)), caller.number(-1), caller.number(int(caller.random.integers(-1, 9))))
    attention = caller.one_of((_C.attention, _C.received_attention))
    caller.call(attention, caller.floats(tokens, 3, heads, size), ends, *options)


def make_batch(caller):
    """A batch with ids or hidden states, and its rows, tokens and hidden size."""
    rows, tokens, size = (int(caller.one_of(each)) for each in ((1, 2, 5), (1, 2, 7, 20), (8, 16, 32)))
    lengths = torch.from_numpy(caller.random.integers(1, tokens + 1, rows))
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    pooled = caller.word("first", "last")
    if caller.random.integers(2):
        batch = caller.call(_C.PackedBatch, caller.bent(mask), pooled=pooled)
    else:
        batch = caller.call(_C.PackedBatch.of_lengths, caller.bent(lengths), pooled=pooled)
    return batch, rows, tokens, size


def call_batch(caller):
    """All that a batch does by itself."""
    batch, rows, tokens, size = make_batch(caller)
    if batch is None:
        return
    caller.call(batch.unpad, caller.floats(rows, tokens, size))
    for _ in range(int(caller.random.integers(1, 8))):
        total = batch.total_tokens
        caller.one_of(
            (
                lambda: caller.call(batch.pad),
                lambda: caller.call(batch.keep_mean),
                lambda: caller.call(batch.pool, caller.word("cls", "mean", "cls+mean")),
                lambda: caller.call(batch.pool, "flat", tokens=caller.number(tokens)),
                lambda: caller.call(batch.compact, caller.some(batch.rows)),
                lambda: caller.call(batch.keep_tokens, caller.floats(total), caller.real(caller.random.random())),  # noqa: B023
                lambda: caller.call(batch.take_ids, caller.integers(20, total), None),  # noqa: B023
                lambda: caller.call(lambda: batch.ids),
                lambda: caller.call(lambda: batch.hidden),
                lambda: caller.call(lambda: batch.attention_mask()),
                lambda: caller.call(batch.keep_rows_of, caller.call(batch.cls) or batch),
                lambda: caller.call(_C.ngram_buckets, batch, caller.number(64)),
            )
        )()


def make_ramp(caller, size, classes):
    score = caller.word("max_prob", "max_prob", "entropy", "sides", "odds", "deviation")
    hidden = int(caller.one_of((0, 4)))
    outputs = 2 * classes if score == "deviation" else classes
    sizes = [size, *([hidden] if hidden else []), outputs]
    layers = [caller.affine(after, before, "dense") for before, after in pairwise(sizes)]
    levels = caller.reals(0.1, classes) if score in ("sides", "odds") else []
    return score, caller.call(_C.OffRamp, layers, score=score, temperature=caller.real(1.5), levels=levels)


def call_exits(caller):
    """Exits of all kinds on a batch."""
    batch, rows, tokens, size = make_batch(caller)
    classes = int(caller.one_of((2, 3)))
    results = caller.call(_C.Results, caller.number(rows), classes, dtype=torch.float32)
    exits = caller.call(_C.Exits, caller.number(0), classes)
    if batch is None or exits is None or results is None:
        return
    caller.call(batch.take_ids, caller.integers(20, rows, tokens), None)
    pooled_elsewhere = caller.odd(0.3)
    if not pooled_elsewhere or caller.odd():
        caller.call(batch.unpad, caller.floats(rows, tokens, size))
        caller.call(batch.keep_mean)
    features = []
    for _ in range(int(caller.random.integers(1, 4))):
        kind = caller.random.integers(4)
        feature = caller.word("cls", "mean", "cls+mean")
        wide = 2 * size if feature == "cls+mean" else size
        if pooled_elsewhere and not caller.odd():
            features += [(feature, caller.floats(rows, wide)), ("mean", caller.floats(rows, size))]
        if kind == 0:
            options = {"weight": caller.floats(wide), "bias": caller.real(0.1), "threshold": caller.real(0.0)}
            caller.call(exits.add_linear, caller.number(0), caller.floats(classes), feature=feature, **options)
        elif kind == 1:
            score, ramp = make_ramp(caller, wide, classes)
            if ramp is not None:
                count = classes if score in ("max_prob", "entropy") else 1
                options = {"thresholds": caller.reals(0.6, count), "patience": caller.number(1)}
                caller.call(exits.add_off_ramp, caller.number(0), feature=feature, off_ramp=ramp, **options)
                caller.call(ramp.answer, caller.floats(rows, wide))
        elif kind == 2:
            table = caller.floats(caller.one_of((64, 3)), classes)
            bag = caller.call(_C.BagOfTokens, table, caller.floats(classes), temperature=caller.real(1.0))
            if bag is not None:
                caller.call(exits.add_bag, caller.number(0), bag=bag, thresholds=caller.reals(0.6, classes))
                caller.call(bag.answer, batch)
        else:
            caller.call(exits.add_callable, caller.number(0), caller.floats(classes))
    fires = [caller.some(rows) for _ in range(int(caller.random.integers(3)))]
    caller.call(exits.apply, batch, results, fires, features=features)
    caller.call(results.write_last, batch, caller.floats(batch.rows, classes))


def make_layer(caller, size, form):
    heads = int(caller.one_of((1, 2, 4)))
    wide = int(caller.one_of((16, 48)))
    norm = caller.call(_C.NormSpec, (caller.floats(size), caller.floats(size)), caller.real(1e-5), rms=caller.odd(0.2))
    norms = caller.call(_C.SubLayerNorms, **{caller.one_of(("before", "output", "after")): norm})
    products = {name: caller.affine(size, size, form) for name in ("query", "key", "value", "output")}
    turned = size // heads // 2
    options = {
        "before": caller.number(int(caller.random.integers(-1, 4))),
        "behind": caller.number(-1),
        "rope": (caller.floats(32, turned), caller.floats(32, turned)) if caller.odd(0.3) else None,
        "bias": caller.call(_C.DistanceBias, caller.floats(heads, 63)) if caller.odd(0.3) else None,
        "keep": caller.real(caller.one_of((1.0, 1.0, 0.5))),
    }
    attention = caller.call(_C.AttentionSpec, heads=caller.number(heads), **products, **options)
    gate = caller.affine(wide, size, form) if caller.odd(0.3) else None
    feed_forward = caller.call(
        _C.FeedForwardSpec,
        up=caller.affine(wide, size, form),
        down=caller.affine(size, wide, form),
        activation=caller.word("gelu", "relu", "silu", "tanh", "gelu_new"),
        gate=gate,
    )
    around = {"around_attention": norms, "around_feed_forward": norms}
    return caller.call(_C.LayerSpec, attention=attention, feed_forward=feed_forward, **around)


def call_model(caller):
    """A model made of random parts, and its steps on a batch."""
    caller.share = caller.one_of((0, 0.002, 0.01))  # of the many parts of a model
    batch, rows, tokens, size = make_batch(caller)
    form = caller.one_of(("dense", "dense", "sparse", "int8"))
    layers = [make_layer(caller, size, form) for _ in range(int(caller.random.integers(1, 3)))]
    norm = caller.call(_C.NormSpec, (caller.floats(size), caller.floats(size)), 1e-5)
    tables = {"words": caller.floats(20, size), "positions": caller.floats(24, size), "norm": norm}
    embeddings = caller.call(_C.EmbeddingSpec, **tables, padding_idx=caller.number(0) if caller.odd(0.2) else None)
    dense = {"output": caller.affine(2, size, "dense"), "dense": caller.affine(size, size, "dense")}
    pooling = caller.word("token", "mean", "dense_mean")
    head = caller.call(_C.HeadSpec, **dense, activation=caller.word("tanh", "gelu"), pooling=pooling)
    order = [caller.number(0)] * 3 if caller.odd(0.2) else None
    model = caller.call(_C.TransformerClassifier, embeddings, layers, head, dtype=torch.float32, order=order)
    if model is None or batch is None:
        return
    caller.call(batch.take_ids, caller.integers(20, rows, tokens), None)
    if not caller.odd():
        caller.call(model.embed, batch)
    for layer in range(model.num_layers):
        steps = [model.attention, model.feed_forward]
        if caller.odd(0.2):
            steps.insert(0, model.peek)
        if caller.odd(0.1):
            steps.reverse()
        for step in steps:
            caller.call(step, caller.number(layer), batch)
        if caller.odd(0.3):
            caller.call(batch.compact, caller.some(batch.rows))
    caller.call(model.finish, batch)
    caller.call(model.classify, batch)


PROGRAMS = (call_kernels, call_batch, call_exits, call_model)
