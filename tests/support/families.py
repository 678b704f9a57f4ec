"""Checks that hold for every model family; each family's test file says for which of its models."""

from __future__ import annotations

import copy

import torch
from parity import assert_within_twice_the_error, make_inputs
from transformers import pipeline

from moco_rt import EarlyExitTextClassificationModel, LinearCondition, quantize
from moco_rt._C import PackedBatch
from moco_rt.architectures import architecture_of
from moco_rt.architectures.conversion import int8_copy

#: Shorter and longer than a block of keys and a tile of queries.
LENGTHS = [17, 1, 33, 40, 2, 64, 129, 200, *range(3, 33)]
TEXTS = ["good film", "a bad film but good", "the film was not bad but not good", "a"]


@torch.no_grad()
def logits_of(model, inputs):
    """What Hugging Face's own forward answers."""
    return model(**inputs).logits


def assert_packed_is_right(model, inputs):
    """The packed backend errs at most twice as much as Hugging Face in the model's dtype."""
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    exact = logits_of(copy.deepcopy(model).double(), inputs)
    assert_within_twice_the_error(fast(**inputs).logits, logits_of(model, inputs), exact)


def assert_float32_is_near(model, inputs):
    """In float32 logits are within 1e-4, and labels the same."""
    expected = logits_of(model, inputs)
    found = EarlyExitTextClassificationModel(model, backend="packed")(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def assert_reference_is_hugging_faces(model, inputs):
    """The reference backend answers to the bit what Hugging Face's own forward answers."""
    fast = EarlyExitTextClassificationModel(model, backend="reference")
    assert torch.equal(fast(**inputs).logits, logits_of(model, inputs))


def assert_int8_is_near(model, inputs):
    """The kernels are as near to float32 as the reference of the same int8 model, which quantises in float64."""
    small = int8_copy(model)
    fast, reference = (EarlyExitTextClassificationModel(small, backend=name) for name in ("packed", "reference"))
    float_logits = logits_of(model, inputs)
    by_quantising = (reference(**inputs).logits - float_logits).norm()
    assert (fast(**inputs).logits - float_logits).norm() <= 1.2 * by_quantising


def assert_peeks_are_what_attention_leaves(model, inputs):
    """A peek leaves in a row's pooled token what attention leaves there, and touches no other."""
    architecture = architecture_of(model)
    encoder = architecture.encoder(model.dtype)
    ids, mask = architecture.real_tokens(inputs["input_ids"], inputs["attention_mask"])
    batch = PackedBatch(mask, pooled=architecture.pooled_token)
    batch.take_ids(ids, inputs.get("token_type_ids"))
    encoder.embed(batch)
    tolerance = 8e-2 if model.dtype == torch.bfloat16 else 1e-5
    for layer in range(encoder.num_layers):
        before = batch.hidden.clone()
        found = encoder.peek(layer, batch).hidden.clone()
        assert torch.equal(batch.hidden, before)
        encoder.attention(layer, batch)
        torch.testing.assert_close(found, batch.cls().hidden, atol=tolerance, rtol=tolerance)
        encoder.feed_forward(layer, batch)


def assert_rows_keep_their_bits(model):
    """A row's logits have the same bits alone and in a batch, on one thread and on three."""
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    inputs = make_inputs(LENGTHS)
    together = fast(**inputs).logits
    for row, length in enumerate(LENGTHS):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        assert torch.equal(fast(**alone).logits[0], together[row])
    threads = torch.get_num_threads()
    try:
        for other in (1, 3):
            torch.set_num_threads(other)
            assert torch.equal(fast(**inputs).logits, together)
    finally:
        torch.set_num_threads(threads)


def assert_rows_leave_alike(model, site, feature):
    """Rows leave where the reference lets them leave."""
    inputs, condition = make_inputs(LENGTHS), _condition(model, site, feature)
    outputs = []
    for backend in ("packed", "reference"):
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        fast.add_rule(condition, 1, site)
        outputs.append(fast(**inputs))
    assert torch.equal(outputs[0].exit_site, outputs[1].exit_site)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)


def assert_a_saved_model_loads_to_the_same_bits(model, folder, site):
    """A model that was saved with an exit answers as before."""
    fast = EarlyExitTextClassificationModel(model, backend="packed")
    fast.add_rule(_condition(model, site), 1, site)
    fast.save_pretrained(folder)
    again = EarlyExitTextClassificationModel.from_pretrained(folder)
    inputs = make_inputs(LENGTHS)
    expected, found = fast(**inputs), again(**inputs)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.exit_site, expected.exit_site)
    assert (found.exit_site >= 0).any()


def assert_it_is_quantised_and_answers_in_a_pipeline(model, tokenizer):
    """`quantize` takes the model, and transformers' pipeline gives the labels of `predict`."""
    small = quantize(model, TEXTS * 8, tokenizer=tokenizer)
    fast = EarlyExitTextClassificationModel(small)
    assert fast.backend == "packed"
    answers = pipeline("text-classification", model=fast, tokenizer=tokenizer)(TEXTS, batch_size=len(TEXTS))
    labels = fast.predict(TEXTS, tokenizer=tokenizer).labels.tolist()
    assert [answer["label"] for answer in answers] == [small.config.id2label[label] for label in labels]


def _condition(model, site, feature="cls"):
    """A condition by which some rows of the usual batch leave at a site, and others stay."""
    for seed in range(20):
        weight = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed)).numpy()
        condition = LinearCondition(weight, 0.0, 0.0, feature=feature, bound=0.01)
        fast = EarlyExitTextClassificationModel(model, backend="reference")
        fast.add_rule(condition, 1, site)
        if 3 < (fast(**make_inputs(LENGTHS)).exit_site >= 0).sum() < len(LENGTHS) - 3:
            return condition
    raise AssertionError("every condition holds for all rows, or for none")
