"""What exits would look at, recorded: Hugging Face's hidden states, in the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaForSequenceClassification

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.architectures.sites import all_sites
from moco_rt.inputs import batching
from moco_rt.studies.recording import record

LAYERS = 3
SITES = all_sites(LAYERS)
LENGTHS = [9, 1, 17, 33, 4, 64, 2, 15, 16, 40, 9, 9, 1]
backends = pytest.mark.parametrize("backend", ["packed", "reference"])


def make_rows(lengths=LENGTHS, seed=0):
    """Tokenised pairs of texts."""
    rng = np.random.default_rng(seed)
    return [
        {"input_ids": rng.integers(5, 100, n).tolist(), "token_type_ids": [int(i > n // 2) for i in range(n)]}
        for n in lengths
    ]


@pytest.fixture(scope="module")
def model(tiny_bert):
    return tiny_bert(LAYERS, labels=3)


@torch.no_grad()
def from_hugging_face(model, row):
    """One row's features at every site, and its logits, by a forward of its own without padding."""
    after_attention = []
    hooks = [
        layer.attention.register_forward_hook(lambda _, __, output: after_attention.append(output[0][0].float()))
        for layer in model.bert.encoder.layer
    ]
    output = model(**{name: torch.tensor([values]) for name, values in row.items()}, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    states = [state[0].float() for state in output.hidden_states]
    found = {"embeddings": torch.cat([states[0][0], states[0].mean(0)])}
    for i in range(LAYERS):
        entering = states[i].mean(0)
        found[f"encoder.{i}.attention"] = torch.cat([after_attention[i][0], entering])
        found[f"encoder.{i}.output"] = torch.cat([states[i + 1][0], entering])
    return found, output.logits[0].float()


@backends
def test_features_and_logits_are_hugging_faces_in_the_order_of_the_rows(model, backend):
    rows = make_rows()
    recorded = record(EarlyExitTextClassificationModel(model, backend=backend), rows, SITES)
    assert list(recorded.features) == list(SITES)
    assert recorded.logits.shape == (len(rows), 3)
    assert recorded.lengths.tolist() == LENGTHS
    arrays = [*recorded.features.values(), recorded.logits]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert {array.shape for array in recorded.features.values()} == {(len(rows), 64)}
    for place, row in enumerate(rows):
        expected, logits = from_hugging_face(model, row)
        np.testing.assert_allclose(recorded.logits[place], logits, rtol=0, atol=1e-4)
        for site in SITES:
            np.testing.assert_allclose(recorded.features[site][place], expected[site], rtol=0, atol=1e-4)


@backends
@pytest.mark.parametrize("sites", [["embeddings"], ["encoder.1.attention", "encoder.0.attention"], []], ids=str)
def test_only_the_sites_that_were_asked_for_are_recorded(model, backend, sites):
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    rows = make_rows()
    all_of_them, some = record(fast, rows, SITES), record(fast, rows, sites)
    assert list(some.features) == sites
    np.testing.assert_allclose(some.logits, all_of_them.logits, rtol=0, atol=1e-5)
    for site in sites:
        np.testing.assert_allclose(some.features[site], all_of_them.features[site], rtol=0, atol=1e-5)


@backends
def test_batches_do_not_show(model, monkeypatch, backend):
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    rows = make_rows()
    whole = record(fast, rows, SITES)
    monkeypatch.setattr(batching, "BATCH_TOKENS", 20)
    pieces = record(fast, rows, SITES)
    atol = 0 if backend == "packed" else 1e-5  # packed: to the bit
    np.testing.assert_allclose(pieces.logits, whole.logits, rtol=0, atol=atol)
    for site in SITES:
        np.testing.assert_allclose(pieces.features[site], whole.features[site], rtol=0, atol=atol)


@backends
def test_the_models_exits_take_no_part_and_stay(model, backend):
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    rows = make_rows()
    before = record(fast, rows, SITES)
    fast.add_rule(LinearCondition(np.ones(32), 0.0, -1e30, 0.01), 1, "embeddings")
    after = record(fast, rows, SITES)
    np.testing.assert_array_equal(after.logits, before.logits)
    assert len(fast.policy.exits) == 1


def test_what_computes_in_another_dtype_is_recorded_in_float32(tiny_bert, packed_dtype):
    model = tiny_bert(LAYERS, labels=3, dtype=packed_dtype)
    recorded = record(EarlyExitTextClassificationModel(model, backend="packed"), make_rows(), ["embeddings"])
    assert recorded.features["embeddings"].dtype == recorded.logits.dtype == np.float32
    # Its numbers are those of its dtype: the first token is no mean of several.
    cls = torch.from_numpy(recorded.features["embeddings"][:, :32])
    assert torch.equal(cls.to(packed_dtype).float(), cls)


def test_labels_are_the_likeliest_classes_and_rows_can_be_taken(model):
    recorded = record(EarlyExitTextClassificationModel(model), make_rows(), ["embeddings"])
    assert recorded.labels.tolist() == recorded.logits.argmax(1).tolist()
    both = recorded.features["embeddings"]
    np.testing.assert_array_equal(recorded.feature("embeddings", "cls"), both[:, :32])
    np.testing.assert_array_equal(recorded.feature("embeddings", "cls+mean"), both)
    some = recorded.take(slice(2, 6))
    assert some.lengths.tolist() == LENGTHS[2:6]
    np.testing.assert_array_equal(some.logits, recorded.logits[2:6])
    np.testing.assert_array_equal(some.features["embeddings"], recorded.features["embeddings"][2:6])
    assert np.shares_memory(some.logits, recorded.logits)


@backends
def test_token_ids_are_recorded_in_the_order_of_the_rows(model, monkeypatch, backend):
    monkeypatch.setattr(batching, "BATCH_TOKENS", 40)
    fast, rows = EarlyExitTextClassificationModel(model, backend=backend), make_rows()
    recorded = record(fast, rows, ["tokens", "embeddings"])
    assert list(recorded.features) == ["embeddings"]
    assert [row["input_ids"].tolist() for row in recorded.tokens] == [row["input_ids"] for row in rows]
    plain = record(fast, rows, ["embeddings"])
    assert plain.tokens is None
    np.testing.assert_array_equal(recorded.logits, plain.logits)
    some = recorded.take(slice(2, 6))
    assert [row["input_ids"].tolist() for row in some.tokens] == [row["input_ids"] for row in rows[2:6]]
    assert some.batch().ids.tolist() == [token for row in rows[2:6] for token in row["input_ids"]]
    assert some.copy().batch().ids.tolist() == some.batch().ids.tolist()
    assert not np.shares_memory(some.copy().tokens.ids, recorded.tokens.ids)
    assert recorded.batch(np.array([5, 1])).ids.tolist() == rows[5]["input_ids"] + rows[1]["input_ids"]


@backends
def test_tokens_that_no_answer_depends_on_are_not_recorded(tiny_classifier, backend):
    """A decoder's row ends with its last token that is not padding's."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = tiny_classifier(
        LlamaForSequenceClassification, num_key_value_heads=1, pad_token_id=7, num_labels=3, **sizes
    )
    fast = EarlyExitTextClassificationModel(model, backend=backend)
    recorded = record(fast, [{"input_ids": [5, 7, 6, 7, 7]}, {"input_ids": [9, 8]}], ["tokens"])
    assert [row["input_ids"].tolist() for row in recorded.tokens] == [[5, 7, 6], [9, 8]]


def test_ngrams_are_those_of_the_rows_that_are_asked_for(model):
    recorded = record(EarlyExitTextClassificationModel(model), make_rows(), ["tokens"])
    ngrams, counts = recorded.ngrams(np.array([5, 1]), 64)
    assert counts.tolist() == [2 * LENGTHS[5] - 1, 1]
    first, second = (recorded.ngrams(np.array([place]), 64)[0] for place in (5, 1))
    assert torch.equal(ngrams, torch.cat([first, second]))
