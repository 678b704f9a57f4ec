"""A model's own forward: what stands beside a row in a batch does not change its answer, whatever the family."""

from __future__ import annotations

import copy

import pytest
import torch
from parity import make_inputs
from transformers import (
    BigBirdForSequenceClassification,
    ConvBertForSequenceClassification,
    FNetForSequenceClassification,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    MegatronBertForSequenceClassification,
    MobileBertForSequenceClassification,
    RemBertForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
    YosoForSequenceClassification,
)

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.encoding import EncodedTexts

LENGTHS = [9, 3, 17, 3, 40, 1, 40, 9]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
#: Families that mix tokens without a mask, and one that masks padding.
KINDS = {
    ConvBertForSequenceClassification: {"embedding_size": 32},
    FNetForSequenceClassification: {},
    MobileBertForSequenceClassification: {"embedding_size": 32, "intra_bottleneck_size": 16},
    YosoForSequenceClassification: {},
    RemBertForSequenceClassification: {"input_embedding_size": 16},
}


@pytest.fixture
def make(tiny_classifier):
    return lambda kind, **options: tiny_classifier(kind, **SIZES, **KINDS.get(kind, {}), **options)


@torch.no_grad()
def assert_rows_are_answered_as_alone(fast, inputs):
    """Padded and end to end each row has the logits that Hugging Face gives it alone."""
    ids = [row[mask].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)]
    alone = torch.cat([fast.model(torch.tensor([row])).logits for row in ids])
    ends = EncodedTexts.of([{"input_ids": row} for row in ids])
    for found in (fast(**inputs), fast.forward_packed(ends)):
        torch.testing.assert_close(found.logits, alone, atol=1e-5, rtol=0)


@pytest.fixture
def calls_of():
    """`calls_of(model)` lists the shapes of the ids with which a model is called from now on."""

    def watch(model):
        shapes = []
        model.register_forward_pre_hook(
            lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
        )
        return shapes

    return watch


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_answered_as_alone_in_any_batch(make, kind):
    fast = EarlyExitTextClassificationModel(make(kind), backend="whole")
    for seed in range(2):
        assert_rows_are_answered_as_alone(fast, make_inputs(LENGTHS, seed=seed))
    assert_rows_are_answered_as_alone(fast, make_inputs([5, 5]))


def test_a_head_that_tells_nothing_apart_does_not_hide_what_padding_changes(make):
    model = make(FNetForSequenceClassification)
    weight = model.classifier.weight.detach().clone()
    torch.nn.init.zeros_(model.classifier.weight)
    fast = EarlyExitTextClassificationModel(model, backend="whole")
    fast(**make_inputs(LENGTHS))
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
    assert_rows_are_answered_as_alone(fast, make_inputs(LENGTHS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_what_masks_padding_is_called_once_for_a_batch(make, calls_of, dtype):
    model = make(MegatronBertForSequenceClassification, dtype=dtype)
    fast, calls = EarlyExitTextClassificationModel(model, backend="whole"), calls_of(model)
    fast(**make_inputs([7, 7]))
    assert calls == [(2, 7)]
    fast(**make_inputs([9, 2, 8]))
    assert calls[1:] == [(1, 2), (1, 18), (3, 9)]
    fast(**make_inputs([18, 2, 8]))
    assert calls[4:] == [(3, 18)]
    fast(**make_inputs([19, 2]))
    assert calls[5:] == [(1, 2), (1, 38), (2, 19)]


def test_what_reads_padding_is_called_once_for_each_length(make, calls_of):
    model = make(FNetForSequenceClassification)
    fast, calls = EarlyExitTextClassificationModel(model, backend="whole"), calls_of(model)
    for _ in range(2):
        fast(**make_inputs([9, 2, 9, 8]))
    assert calls == [(1, 2), (1, 18), *[(1, 2), (1, 8), (2, 9)] * 2]


def test_what_cannot_be_padded_is_run_by_lengths(make):
    """A model whose tables have no place for the id of padding, for instance."""
    model = make(MegatronBertForSequenceClassification)
    fast = EarlyExitTextClassificationModel(model, backend="whole")
    fast._backend._forward._pad_id = -1
    assert_rows_are_answered_as_alone(fast, make_inputs(LENGTHS))


def test_a_look_at_padding_leaves_no_hook_on_the_model(make, monkeypatch):
    """Another thread may look at the model meanwhile."""
    model = make(MegatronBertForSequenceClassification)
    fast = EarlyExitTextClassificationModel(model, backend="whole")
    seen = []
    called = type(model.bert.encoder).forward

    def forward(self, *inputs, **options):
        seen.append([part for part in model.modules() if part._forward_hooks])
        return called(self, *inputs, **options)

    monkeypatch.setattr(type(model.bert.encoder), "forward", forward)
    fast(**make_inputs([9, 2, 8]))
    assert seen == [[], [], []]


@torch.no_grad()
def test_bigbird_answers_long_rows_alike_before_and_after_short_ones(make):
    """Its own forward gives up block-sparse attention for good at the first row that is short."""
    options = {
        "max_position_embeddings": 256,
        "block_size": 4,
        "num_random_blocks": 1,
        "attention_type": "block_sparse",
    }
    model = make(BigBirdForSequenceClassification, **options)
    long, short, both = make_inputs([60]), make_inputs([8]), make_inputs([60, 8])
    expected, given = model(**long).logits, copy.deepcopy(model)
    full = copy.deepcopy(model)
    full.bert.set_attention_type("original_full")
    assert not torch.allclose(full(**long).logits, expected, atol=1e-5)
    fast = EarlyExitTextClassificationModel(model)
    for inputs in (short, long, both, long):
        found = fast(**inputs).logits
        if inputs is not short:
            torch.testing.assert_close(found[:1], given(**{name: t[:1] for name, t in inputs.items()}).logits)
    assert fast._backend._forward._tried_width > 60
    kinds = [part.attention_type for part in model.modules() if hasattr(part, "attention_type")]
    assert len(set(kinds)) == 1


def test_a_token_that_the_model_does_not_have_is_still_refused_as_such(make):
    fast = EarlyExitTextClassificationModel(make(MegatronBertForSequenceClassification), backend="whole")
    inputs = make_inputs([9, 2])
    inputs["input_ids"][1, 0] = 100
    for _ in range(2):
        with pytest.raises(IndexError, match="out of range"):
            fast(**inputs)
    assert_rows_are_answered_as_alone(fast, make_inputs(LENGTHS))


def xlnet(_):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 100, "pad_token_id": 0}
        return XLNetForSequenceClassification(XLNetConfig(**sizes)).eval()


#: Models whose tokenizers may pad on the left; whether Hugging Face answers rows so padded as it answers them alone.
LEFT = {
    "Llama": (lambda make: make(LlamaForSequenceClassification, num_key_value_heads=2), True),
    "XLNet": (xlnet, True),
    "GPT-2": (lambda make: make(GPT2ForSequenceClassification), False),
    "RemBERT": (lambda make: make(RemBertForSequenceClassification), False),
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("pairs", [False, True])
@torch.no_grad()
def test_rows_that_are_padded_on_the_left_are_answered_as_alone(make, name, pairs):
    """Among a row that is padded on the right."""
    make_model, as_alone = LEFT[name]
    fast = EarlyExitTextClassificationModel(make_model(make), backend="whole")
    right = make_inputs(LENGTHS, pairs=pairs)
    left = {name: tensor.clone() for name, tensor in right.items()}
    for row, length in enumerate(LENGTHS[:-1]):
        for tensor in left.values():
            tensor[row] = tensor[row].roll(tensor.shape[1] - length)
    found = fast(**left)
    assert torch.equal(found.logits, fast(**right).logits)
    if as_alone and not pairs:
        own = fast.model(**left).logits
        torch.testing.assert_close(found.logits[:-1], own[:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", [[1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], ids=str)
def test_masks_with_gaps_are_still_refused(make, mask):
    fast = EarlyExitTextClassificationModel(make(RemBertForSequenceClassification), backend="whole")
    with pytest.raises(ValueError, match="attention_mask must "):
        fast(torch.ones(1, 4, dtype=torch.long), torch.tensor([mask]))
