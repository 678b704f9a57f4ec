"""Every step of the packed encoder against the same step of Hugging Face's BERT."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from parity import assert_within_twice_the_error, make_inputs

from moco_rt._C import (
    AttentionSpec,
    DisentangledBias,
    DistanceBias,
    EmbeddingSpec,
    FeedForwardSpec,
    HeadSpec,
    LayerSpec,
    NormSpec,
    PackedBatch,
    SubLayerNorms,
    TransformerClassifier,
    can_multiply,
)
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.quantization.int8_linear import Int8Linear

#: hidden size, heads, intermediate size
SIZES = [(32, 2, 128), (60, 3, 100), (24, 12, 50), (36, 1, 70), (384, 12, 1530)]
#: Lengths of rows. Two threads share out the panels of fewer than 256 tokens, and the tokens of more; from 2048 on
#: in larger chunks. Attention takes about 1024 tokens at a time, queries by 32, keys by 64, the last ones by 16.
LENGTHS = {
    "one token": [1],
    "few": [15, 1, 16, 17, 63, 64, 65],
    "mixed": [1, 128, 15, 16, 300, 17, 63, 64, 65, 127, 129],
    "longest": [512],
    "several times": [512, 512, 1, 300, 512, 300],
    "many rows": [70] * 30,
    "more rows than are peeked at a time": [3] * 300,
}
every_size = pytest.mark.parametrize(("hidden", "heads", "intermediate"), SIZES)
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture
def set_threads():
    """torch.set_num_threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(set_threads):
    set_threads(2)


@pytest.fixture(params=[torch.float32, torch.bfloat16, "int8"], ids=str)
def make_bert(request, tiny_bert):
    """A BERT in each dtype, its weights so small that attention spreads over many tokens."""

    def make(hidden=32, heads=2, intermediate=128, layers=1, **config):
        spread = {"initializer_range": hidden**-0.5, "max_position_embeddings": 512}
        model = tiny_bert(layers, hidden, heads, intermediate_size=intermediate, **{**spread, **config})
        return in_int8(model) if request.param == "int8" else model.to(request.param)

    if not can_multiply(torch.int8 if request.param == "int8" else request.param):
        pytest.skip(f"the processor does not multiply {request.param}")
    return make


def in_int8(model):
    """With inputs divided by anything from 1 / 2 to 2."""
    generator = torch.Generator().manual_seed(0)
    smooth = {}
    for linears in architecture_of(model).linear_groups():
        inputs = next(iter(linears.values())).in_features
        smooth |= dict.fromkeys(linears, 2 ** (2 * torch.rand(inputs, generator=generator) - 1))
    return int8_copy(model, smooth)


def encoder_of(model):
    return architecture_of(model).encoder(model.dtype)


def random_rows(lengths, hidden, dtype):
    """A random hidden state (length, D) for each row."""
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randn(length, hidden, generator=generator).to(dtype) for length in lengths]


def pack(rows):
    """A batch of these rows, padded with NaN."""
    batch = PackedBatch(make_inputs([len(row) for row in rows])["attention_mask"])
    batch.unpad(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.nan))
    return batch


@torch.no_grad()
def check(ours, model, step):
    """`ours` must be step(model, dtype) to twice the error that plain torch makes in the model's own dtype.

    In int8 a number that differs in its last bit may become another byte. That is a step of quantisation, so errors are
    held against those that quantising tokens makes: none may exceed the largest, and together, against the same numbers
    not quantised, they may be a twentieth larger than the reference's.
    """
    exact = step(copy.deepcopy(model).double(), torch.float64)
    not_quantised = step(in_floats(model).double(), torch.float64)
    made_by_quantising = exact - not_quantised
    if made_by_quantising.abs().max() <= 1e-9:
        return assert_within_twice_the_error(ours, step(model, model.dtype), exact)
    assert (ours.double() - exact).abs().max() <= made_by_quantising.abs().max()
    assert (ours.double() - not_quantised).norm() <= 1.05 * made_by_quantising.norm()
    return None


def check_rows(ours, model, step, rows):
    """The same for step(model, row), (1, length, D) -> (1, any, D), row by row: they differ in length."""
    check(ours, model, lambda model, dtype: torch.cat([step(model, row[None].to(dtype))[0] for row in rows]))


def attention(model, hidden):
    return model.bert.encoder.layer[0].attention(hidden)[0]


def attention_of_first(model, hidden):
    return attention(model, hidden)[:, :1]


def in_floats(model, within=""):
    """A copy whose int8 layers, or those within a module, multiply with the same numbers but quantise no token."""
    found = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if isinstance(layer, Int8Linear) and name.startswith(within):
            dense = torch.nn.Linear(*layer.unpacked().T.shape, dtype=model.dtype)
            dense.weight.data = (layer.unpacked() * layer.scale[:, None] / layer.smooth).to(model.dtype)
            dense.bias.data = layer.bias.to(model.dtype)
            found.set_submodule(name, dense)
    return found


def with_dense_queries_keys_and_values(model):
    """What a peek computes: it multiplies with int8 weights, but does not quantise what they multiply."""
    return in_floats(model, within="bert.encoder.layer.0.attention.self.")


def embed(encoder, batch, ids, types):
    batch.take_ids(ids, types)
    encoder.embed(batch)


def feed_forward(model, hidden):
    return model.bert.encoder.layer[0].feed_forward_chunk(hidden)


# How exact each step is


@every_size
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_embed_is_within_twice_the_error_of_plain_torch(make_bert, hidden, heads, intermediate, pairs):
    model = make_bert(hidden, heads, intermediate)
    inputs = make_inputs(LENGTHS["mixed"], pairs=pairs)
    batch = PackedBatch(inputs["attention_mask"])
    embed(encoder_of(model), batch, inputs["input_ids"], inputs.get("token_type_ids"))
    ids = (inputs["input_ids"], inputs.get("token_type_ids"))
    real = inputs["attention_mask"].bool()
    check(batch.hidden, model, lambda model, _: model.bert.embeddings(*ids)[real])


@every_size
@every_length
def test_attention_is_within_twice_the_error_of_plain_torch(make_bert, hidden, heads, intermediate, lengths):
    model = make_bert(hidden, heads, intermediate)
    rows = random_rows(lengths, hidden, model.dtype)
    batch = pack(rows)
    encoder_of(model).attention(0, batch)
    check_rows(batch.hidden, model, attention, rows)


@every_size
@every_length
def test_peek_is_within_twice_the_error_of_plain_torch(make_bert, hidden, heads, intermediate, lengths):
    model = make_bert(hidden, heads, intermediate)
    rows = random_rows(lengths, hidden, model.dtype)
    cls = encoder_of(model).peek(0, pack(rows))
    check_rows(cls.hidden, with_dense_queries_keys_and_values(model), attention_of_first, rows)


@every_size
@every_length
def test_feed_forward_is_within_twice_the_error_of_plain_torch(make_bert, hidden, heads, intermediate, lengths):
    model = make_bert(hidden, heads, intermediate)
    rows = random_rows(lengths, hidden, model.dtype)
    batch = pack(rows)
    encoder_of(model).feed_forward(0, batch)
    check_rows(batch.hidden, model, feed_forward, rows)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_activations_are_within_twice_the_error_of_plain_torch(make_bert, activation, scale):
    """From numbers around zero, where they are almost straight, to their flat ends."""
    model = make_bert(hidden_act=activation)
    rows = [row * scale for row in random_rows([100], 32, model.dtype)]
    batch = pack(rows)
    encoder_of(model).feed_forward(0, batch)
    check_rows(batch.hidden, model, feed_forward, rows)


@every_size
@pytest.mark.parametrize("rows", [1, 33, 300])
@pytest.mark.parametrize("labels", [1, 2, 70])
def test_classify_is_within_twice_the_error_of_plain_torch(make_bert, hidden, heads, intermediate, rows, labels):
    model = make_bert(hidden, heads, intermediate, labels=labels)
    cls = torch.stack(random_rows([1] * rows, hidden, model.dtype))
    batch = PackedBatch(torch.ones(rows, 1, dtype=torch.bool))
    batch.unpad(cls)
    logits = encoder_of(model).classify(batch)
    check(logits, model, lambda model, dtype: model.classifier(model.bert.pooler(cls.to(dtype))))


def test_a_head_of_odd_size_is_within_twice_the_error_of_plain_torch(tiny_bert):
    model = tiny_bert(1, 15, 3, initializer_range=0.25)
    rows = random_rows([1, 20, 33], 15, torch.float32)
    batch = pack(rows)
    encoder = encoder_of(model)
    cls = encoder.peek(0, batch)
    encoder.attention(0, batch)
    check_rows(cls.hidden, model, attention_of_first, rows)
    check_rows(batch.hidden, model, attention, rows)


@pytest.mark.parametrize("sharp", [4.0, 30.0])
def test_sharp_attention_is_within_twice_the_error_of_plain_torch(tiny_bert, sharp):
    """Where most weights are 0, or none but one is left; scores of some 1000 would overflow without their maximum."""
    model = tiny_bert(1, initializer_range=32**-0.5, max_position_embeddings=512)
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.query.weight.mul_(sharp)
    rows = random_rows(LENGTHS["mixed"], 32, torch.float32)
    batch = pack(rows)
    encoder_of(model).attention(0, batch)
    check_rows(batch.hidden, model, attention, rows)


# What peek is


@every_length
def test_peek_is_what_attention_leaves_in_the_first_token(make_bert, lengths):
    model = make_bert(60, 3)
    encoder = encoder_of(model)
    batch = pack(random_rows(lengths, 60, model.dtype))
    before = batch.hidden.clone()
    cls = encoder.peek(0, batch)
    assert torch.equal(batch.hidden, before)
    assert (cls.rows, cls.total_tokens) == (len(lengths), len(lengths))
    assert torch.equal(cls.row_ids, batch.row_ids)
    encoder.attention(0, batch)
    # int8: a peek does not quantise what it multiplies
    tolerance = 8e-2 if is_int8(model) or model.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(cls.hidden, batch.cls().hidden, atol=tolerance, rtol=0)


# Rows do not know of each other


def run(encoder, inputs):
    """What every step leaves: [(rows, S, any)], the padding zero."""
    batch = PackedBatch(inputs["attention_mask"])
    embed(encoder, batch, inputs["input_ids"], inputs.get("token_type_ids"))
    states = [batch.pad()]
    for layer in range(encoder.num_layers):
        states.append(encoder.peek(layer, batch).hidden[:, None].clone())
        encoder.attention(layer, batch)
        states.append(batch.pad())
        encoder.feed_forward(layer, batch)
        states.append(batch.pad())
    return [*states, encoder.classify(batch)[:, None]]


def take(inputs, rows):
    """These rows of a batch, padded to the longest of them."""
    longest = int(inputs["attention_mask"][rows].sum(1).max())
    return {name: tensor[rows, :longest] for name, tensor in inputs.items()}


@pytest.mark.parametrize("size", [(60, 3, 100), (24, 12, 50), (128, 4, 512)], ids=str)
def test_a_row_has_the_same_bits_alone_in_any_batch_in_any_order_and_on_any_threads(make_bert, set_threads, size):
    model = make_bert(*size, layers=2)
    encoder = encoder_of(model)
    lengths = [1, 15, 16, 17, 31, 32, 33, 64, 65, 130, 300]
    inputs = make_inputs([*lengths, *[40] * 45], pairs=True)  # 2504 tokens
    everyone = list(range(len(inputs["input_ids"])))
    set_threads(1)
    expected = run(encoder, inputs)
    batches = [everyone, everyone[::-1], [10, 0, 9, 3], [3, 10, 4], [2, 2, 0], *([row] for row in range(len(lengths)))]
    for threads in (2, 1):
        set_threads(threads)
        for rows in batches:
            for state, whole in zip(run(encoder, take(inputs, rows)), expected, strict=True):
                assert torch.equal(state, whole[rows, : state.shape[1]])


@pytest.mark.parametrize("step", ["attention", "feed_forward", "peek", "classify"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_numbers_that_are_not_finite_stay_in_their_row(make_bert, step, value):
    model = make_bert(60, 3)
    encoder = encoder_of(model)
    rows = random_rows([64, 300, 7, 1, 65, 20], 60, model.dtype)
    expected = step_by_rows(encoder, step, rows)
    for broken, token in ((1, 0), (1, 299), (3, 0)):
        damaged = [row.clone() for row in rows]
        damaged[broken][token] = value
        for row, state in enumerate(step_by_rows(encoder, step, damaged)):
            assert row == broken or torch.equal(state, expected[row])


def step_by_rows(encoder, step, rows):
    """What a step leaves, row by row."""
    batch = pack(rows)
    if step == "classify":
        return encoder.classify(batch)
    if step == "peek":
        return encoder.peek(0, batch).hidden
    getattr(encoder, step)(0, batch)
    return batch.hidden.split(batch.cu_seqlens.diff().tolist())


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "tanh"])
def test_nan_in_a_token_is_seen_in_whatever_reads_it(packed_dtype, activation):
    encoder = make_encoder(activation=activation, head=activation, dtype=packed_dtype)
    rows = [torch.ones(length, 4, dtype=packed_dtype) for length in (3, 70)]
    rows[1][0, 2] = math.nan
    _, logits = step_by_rows(encoder, "classify", rows)
    assert logits.isnan().all()
    _, states = step_by_rows(encoder, "feed_forward", rows)
    assert states.isnan().any(1).tolist() == [True] + [False] * 69
    rows[1] = rows[1].flip(0)  # now in the last token
    for step in ("attention", "peek"):
        _, states = step_by_rows(encoder, step, rows)
        assert states.isnan().all()


def test_a_batch_that_all_rows_have_left_passes_through(make_bert):
    model = make_bert(labels=3)
    encoder = encoder_of(model)
    batch = pack(random_rows([4, 2], 32, model.dtype))
    batch.compact(torch.zeros(2, dtype=torch.bool))
    encoder.attention(0, batch)
    encoder.feed_forward(0, batch)
    cls = encoder.peek(0, batch)
    encoder.feed_forward(0, cls)
    assert (batch.rows, cls.rows) == (0, 0)
    assert batch.hidden.shape == cls.hidden.shape == (0, 32)
    assert encoder.classify(batch).shape == (0, 3)


# What is refused


@pytest.mark.parametrize("layer", [-1, 2, 2**40])
@pytest.mark.parametrize("step", ["attention", "feed_forward", "peek"])
def test_a_layer_that_is_not_there_is_refused(tiny_bert, one_line_error, step, layer):
    batch = pack(random_rows([3], 32, torch.float32))
    before = batch.hidden.clone()
    with one_line_error(IndexError, f"layer must be from 0 to 1 (got {layer})"):
        getattr(encoder_of(tiny_bert()), step)(layer, batch)
    assert torch.equal(batch.hidden, before)


IDS = torch.tensor([[5, 6, 7], [8, 9, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def changed(tensor, row, token, value):
    tensor = tensor.clone()
    tensor[row, token] = value
    return tensor


@pytest.mark.parametrize(
    ("ids", "types", "words"),
    [
        (changed(IDS, 1, 1, 100), None, "input_ids must be from 0 to 99 (got 100)"),
        (changed(IDS, 0, 0, -1), None, "input_ids must be from 0 to 99 (got -1)"),
        (IDS, changed(MASK, 0, 2, 2), "token_type_ids must be from 0 to 1 (got 2)"),
        (IDS, changed(MASK, 0, 2, -5), "token_type_ids must be from 0 to 1 (got -5)"),
    ],
    ids=["token", "negative token", "type", "negative type"],
)
def test_ids_that_the_tables_do_not_hold_are_refused(tiny_bert, one_line_error, ids, types, words):
    with one_line_error(IndexError, words):
        embed(encoder_of(tiny_bert()), PackedBatch(MASK), ids, types)


def test_rows_longer_than_the_table_of_positions_are_refused(tiny_bert, one_line_error):
    encoder = encoder_of(tiny_bert(max_position_embeddings=4))
    embed(encoder, PackedBatch(torch.ones(1, 4, dtype=torch.bool)), torch.ones(1, 4, dtype=torch.int64), None)
    with one_line_error(IndexError, "position must be from 0 to 3 (got 4)"):
        embed(encoder, PackedBatch(torch.ones(1, 5, dtype=torch.bool)), torch.ones(1, 5, dtype=torch.int64), None)


def test_what_stands_in_the_padding_is_not_looked_at(make_bert):
    encoder = encoder_of(make_bert())
    batches = [PackedBatch(MASK) for _ in range(2)]
    embed(encoder, batches[0], IDS, MASK)
    embed(encoder, batches[1], changed(IDS, 1, 2, -7), changed(MASK, 1, 2, 9))
    assert torch.equal(batches[0].hidden, batches[1].hidden)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_may_be_of_any_integer_type_strided_and_wider_than_the_batch(tiny_bert, dtype):
    encoder = encoder_of(tiny_bert())
    batches = [PackedBatch(MASK) for _ in range(2)]
    embed(encoder, batches[0], IDS, MASK)
    wide, types = (torch.cat([each, each], 1).to(dtype).t().contiguous().t() for each in (IDS, MASK))
    embed(encoder, batches[1], wide, types)
    assert torch.equal(batches[0].hidden, batches[1].hidden)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("types", [None, MASK], ids=["no types", "types"])
def test_ids_may_lie_end_to_end(make_bert, dtype, types):
    encoder, real = encoder_of(make_bert()), MASK.bool()
    padded, packed = PackedBatch(MASK), PackedBatch.of_lengths(MASK.sum(1))
    embed(encoder, padded, IDS, types)
    embed(encoder, packed, IDS[real].to(dtype), None if types is None else types[real].to(dtype))
    assert torch.equal(padded.hidden, packed.hidden)


@pytest.mark.parametrize(
    ("ids", "types", "words"),
    [
        (IDS[MASK.bool()], MASK, "take_ids: token_type_ids must have shape [5] like input_ids (got [2, 3])"),
        (IDS[:1], None, "take_ids: input_ids must have shape (2, at least 3) or (5) (got [1, 3])"),
        (IDS[:, :2], None, "take_ids: input_ids must have shape (2, at least 3) or (5) (got [2, 2])"),
        (IDS[0], None, "take_ids: input_ids must have shape (2, at least 3) or (5) (got [3])"),
        (IDS, MASK[:, :2], "token_type_ids must have shape [2, 3] like input_ids (got [2, 2])"),
    ],
    ids=["packed", "rows", "tokens", "one dim", "types"],
)
def test_ids_of_another_shape_are_refused(tiny_bert, one_line_error, ids, types, words):
    with one_line_error(ValueError, words):
        embed(encoder_of(tiny_bert()), PackedBatch(MASK), ids, types)


def every_step(encoder):
    return [
        lambda batch: encoder.attention(0, batch),
        lambda batch: encoder.feed_forward(0, batch),
        lambda batch: encoder.peek(0, batch),
        encoder.classify,
    ]


@pytest.mark.parametrize(
    ("hidden", "kind", "words"),
    [
        (torch.zeros(1, 3, 33), ValueError, "hidden must have shape [3, 32] (got [3, 33])"),
        (torch.zeros(1, 3, 32, dtype=torch.float64), TypeError, "must be torch.float32 (got torch.float64)"),
        (torch.zeros(1, 3, 32, dtype=torch.bfloat16), TypeError, "must be torch.float32 (got torch.bfloat16)"),
        (None, ValueError, "hidden states must be given by unpad first"),
    ],
    ids=["size", "double", "bfloat16", "none"],
)
def test_hidden_states_of_another_kind_are_refused(tiny_bert, one_line_error, hidden, kind, words):
    for step in every_step(encoder_of(tiny_bert())):
        batch = PackedBatch(torch.ones(1, 3, dtype=torch.bool))
        if hidden is not None:
            batch.unpad(hidden)
        with one_line_error(kind, words):
            step(batch)


#: Of distances -2 to 2.
BUCKETS = torch.tensor([0, 0, 1, 1, 1])


def make_encoder(
    hidden=4,
    *,
    inner=6,
    embedding=None,
    head="tanh",
    heads=2,
    activation="gelu",
    dtype=torch.float32,
    bias=None,
    order=None,
):
    """An encoder of one layer, all its weights 1."""

    def affine(outputs, inputs):
        return torch.ones(outputs, inputs), torch.ones(outputs)

    embedding = embedding or hidden
    square, norm = affine(hidden, hidden), NormSpec((torch.ones(hidden), torch.ones(hidden)), 1e-5)
    layer = LayerSpec(
        attention=AttentionSpec(query=square, key=square, value=square, output=square, heads=heads, bias=bias),
        around_attention=SubLayerNorms(after=norm),
        feed_forward=FeedForwardSpec(up=affine(inner, hidden), down=affine(hidden, inner), activation=activation),
        around_feed_forward=SubLayerNorms(after=norm),
    )
    tables = EmbeddingSpec(
        words=torch.ones(10, embedding),
        positions=torch.ones(8, embedding),
        norm=NormSpec((torch.ones(embedding), torch.ones(embedding)), 1e-5),
        projection=None if embedding == hidden else affine(hidden, embedding),
    )
    classifier = HeadSpec(dense=square, activation=head, output=affine(2, hidden))
    return TransformerClassifier(tables, [layer], classifier, dtype=dtype, order=order)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 3}, "heads must divide the queries' size 4 (got 3)"),
        ({"heads": 0}, "heads must divide the queries' size 4 (got 0)"),
        ({"heads": -2}, "heads must divide the queries' size 4 (got -2)"),
        ({"order": [0, 1]}, "order must name layers from 0 to 0 (got 1)"),
        ({"order": [-1]}, "order must name layers from 0 to 0 (got -1)"),
        ({"bias": DistanceBias(torch.ones(2, 6))}, "must be float32 of shape (2, 2 * positions - 1) (got [2, 6])"),
        ({"bias": DistanceBias(torch.ones(1, 7))}, "must be float32 of shape (2, 2 * positions - 1) (got [1, 7])"),
        ({"bias": DisentangledBias(BUCKETS)}, "a disentangled bias must have keys or queries (got none)"),
        ({"bias": DisentangledBias(BUCKETS[1:], keys=torch.ones(2, 4))}, "of shape (2 * positions - 1) (got [4])"),
        ({"bias": DisentangledBias(BUCKETS, queries=torch.ones(2, 5))}, "of a bias must have shape (any, 4)"),
        ({"activation": "swish"}, "activation must be one of gelu, gelu_new, relu, silu, tanh (got swish)"),
        ({"head": "softmax"}, "activation must be one of gelu, gelu_new, relu, silu, tanh (got softmax)"),
        ({"dtype": torch.float16}, "dtype must be torch.float32, or torch.bfloat16 where the processor"),
        ({"dtype": torch.float64}, "dtype must be torch.float32, or torch.bfloat16 where the processor"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(one_line_error, settings, words):
    with one_line_error(ValueError, words):
        make_encoder(**settings)


@pytest.mark.parametrize(
    "bias",
    [DistanceBias(torch.ones(2, 3)), DisentangledBias(BUCKETS[:3], keys=torch.ones(2, 4))],
    ids=["number", "keys"],
)
def test_rows_longer_than_a_bias_are_refused(one_line_error, bias):
    encoder = make_encoder(bias=bias)
    batch = PackedBatch(torch.ones(2, 3, dtype=torch.long))
    embed(encoder, batch, torch.zeros(2, 3, dtype=torch.long), None)
    with one_line_error(IndexError, "position must be from 0 to 1 (got 2)"):
        encoder.attention(0, batch)


def test_a_bucket_that_has_no_vector_is_refused(one_line_error):
    with one_line_error(IndexError, "TransformerClassifier: buckets must be from 0 to 1 (got 2)"):
        make_encoder(bias=DisentangledBias(BUCKETS + 1, keys=torch.ones(2, 4)))


@pytest.mark.parametrize(
    "settings",
    [{"hidden": 5, "heads": 1}, {"hidden": 10, "heads": 2}, {"inner": 7}, {"embedding": 3}],
    ids=["hidden size", "head size", "intermediate size", "embedding size"],
)
def test_odd_sizes_are_refused_in_bfloat16_only(one_line_error, settings):
    make_encoder(**settings)
    if not can_multiply(torch.bfloat16):
        pytest.skip("the processor does not multiply torch.bfloat16")
    with one_line_error(ValueError, "must be even"):
        make_encoder(**settings, dtype=torch.bfloat16)


def test_tables_without_types_take_no_notice_of_them():
    encoder = make_encoder()
    batches = [PackedBatch(MASK) for _ in range(2)]
    embed(encoder, batches[0], IDS, None)
    embed(encoder, batches[1], IDS, MASK * 99)
    assert torch.equal(batches[0].hidden, batches[1].hidden)


def test_an_encoder_says_what_it_is(tiny_bert, packed_dtype):
    encoder = encoder_of(tiny_bert(layers=3, labels=5, dtype=packed_dtype))
    assert (encoder.num_layers, encoder.num_classes, encoder.dtype) == (3, 5, packed_dtype)


def test_tables_stay_where_a_parameter_gets_other_memory(tiny_bert):
    """As `.to` does, while another thread still runs on the old weights."""
    model = tiny_bert(1, vocab_size=20_000)
    encoder = architecture_of(model).encoder(torch.float32)

    def embedded():
        batch = PackedBatch(torch.ones(1, 3, dtype=torch.long))
        batch.take_ids(torch.tensor([[100, 19_999, 7]]), None)
        encoder.embed(batch)
        return batch.hidden

    before, words = embedded(), model.get_input_embeddings().weight
    shape = words.shape
    words.data = torch.zeros(1)
    others = [torch.full(shape, 7.0) for _ in range(8)]  # which would lie where the table lay
    assert torch.equal(embedded(), before)
    assert len(others) == 8
