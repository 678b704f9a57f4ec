"""`model.predict`: texts in, labels out, in the order of the texts and as `forward` gives them one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, LinearCondition
from moco_rt.inputs import batching, prefetch
from moco_rt.inputs.prefetch import prefetch_encoded
from moco_rt.inputs.texts import check_text, check_texts

WORDS = ["a", "the", "film", "good", "bad", "not", "was", "but"]
backends = pytest.mark.parametrize("backend", ["packed", "reference"])


def make_texts(count, seed=0):
    """Random texts of 0 to 30 words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, 31))) for _ in range(count)]


@pytest.fixture
def make_fast(tiny_bert):
    """A model of three labels on either backend; rows leave it at two sites, unless it takes no rules."""

    def make(backend, exits=True, **config):
        model = tiny_bert(layers=3, **{"labels": 3, **config})
        fast = EarlyExitTextClassificationModel(model, backend=backend)
        weight = torch.randn(32, generator=torch.Generator().manual_seed(0)).numpy()
        if exits:
            fast.add_rule(LinearCondition(weight, 0.0, 3.0, 0.01), 1, "encoder.0.attention")
            fast.add_rule(LinearCondition(-weight, 0.0, 13.0, 0.01, "mean"), 2, "encoder.1.output")
        return fast

    return make


def assert_as_forward(fast, tokenizer, texts, found, **options):
    """What predict found must be what forward says of each text alone."""
    classes = fast.config.num_labels
    assert (found.labels.shape, found.probs.shape) == ((len(texts),), (len(texts), classes))
    assert found.labels.dtype == found.exit_site.dtype == found.exit_rule.dtype == torch.int64
    assert found.probs.dtype == torch.float32
    for place, text in enumerate(texts):
        pair = (text,) if isinstance(text, str) else text
        output = fast(**tokenizer(*pair, return_tensors="pt", **options))
        torch.testing.assert_close(found.probs[place], output.logits[0].float().softmax(0), atol=1e-5, rtol=0)
        assert found.labels[place] == output.logits.argmax()
        assert found.exit_site[place] == output.exit_site
        assert found.exit_rule[place] == output.exit_rule


@backends
@pytest.mark.parametrize(("exits", "sites"), [(False, 1), (True, 3)], ids=["no rule", "rules"])
def test_every_text_gets_what_forward_gives_it_alone_in_the_order_of_the_texts(
    make_fast, word_tokenizer, backend, exits, sites
):
    fast = make_fast(backend, exits)
    texts = make_texts(60)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    assert len(set(found.exit_site.tolist())) == sites
    assert_as_forward(fast, word_tokenizer, texts, found)


@backends
@pytest.mark.parametrize("texts", [["good film"], [""], ("bad", "good")], ids=str)
def test_texts_may_be_few_and_empty(make_fast, word_tokenizer, backend, texts):
    fast = make_fast(backend)
    assert_as_forward(fast, word_tokenizer, list(texts), fast.predict(texts, tokenizer=word_tokenizer))


@backends
@pytest.mark.parametrize(("texts", "tokens"), [(1, 1), (7, 50), (8, 10**6), (50, 40), (51, 33), (1000, 100)])
def test_chunks_and_batches_do_not_show(make_fast, word_tokenizer, monkeypatch, backend, texts, tokens):
    fast = make_fast(backend)
    rows = make_texts(50)
    expected = fast.predict(rows, tokenizer=word_tokenizer)
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", texts)
    monkeypatch.setattr(batching, "BATCH_TOKENS", tokens)
    found = fast.predict(rows, tokenizer=word_tokenizer)
    torch.testing.assert_close(found.probs, expected.probs, atol=1e-5, rtol=0)
    for name in ("labels", "exit_site", "exit_rule"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_packed_answers_have_the_same_bits_in_chunks_of_any_size(make_fast, word_tokenizer, monkeypatch):
    fast = make_fast("packed")
    rows = make_texts(50)
    expected = fast.predict(rows, tokenizer=word_tokenizer).probs
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 11)
    monkeypatch.setattr(batching, "BATCH_TOKENS", 64)
    assert torch.equal(fast.predict(rows, tokenizer=word_tokenizer).probs, expected)


@backends
@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_of_texts_are_labelled(make_fast, word_tokenizer, monkeypatch, backend, kind):
    monkeypatch.setattr(word_tokenizer, "model_input_names", ["input_ids", "token_type_ids", "attention_mask"])
    fast = make_fast(backend)
    pairs = [kind(pair) for pair in zip(make_texts(20, seed=1), make_texts(20, seed=2), strict=True)]
    found = fast.predict(pairs, tokenizer=word_tokenizer)
    assert_as_forward(fast, word_tokenizer, pairs, found)
    swapped = fast.predict([kind(reversed(pair)) for pair in pairs], tokenizer=word_tokenizer)
    assert not torch.allclose(swapped.probs, found.probs)


@backends
def test_texts_are_truncated_to_max_length(make_fast, word_tokenizer, backend):
    fast = make_fast(backend)
    texts = make_texts(30)
    found = fast.predict(texts, tokenizer=word_tokenizer, max_length=8)
    assert_as_forward(fast, word_tokenizer, texts, found, max_length=8, truncation=True)


def test_threads_may_cut_texts_at_different_lengths_at_once(make_fast, word_tokenizer):
    fast, texts, limits = make_fast("packed"), make_texts(200), [3, 5, 9, 16]

    def probs(limit):
        return fast.predict(texts, tokenizer=word_tokenizer, max_length=limit).probs

    alone = [probs(limit) for limit in limits]
    with ThreadPoolExecutor(len(limits)) as threads:
        for found, expected in zip(threads.map(probs, limits * 10), alone * 10, strict=True):
            assert torch.equal(found, expected)


@backends
def test_texts_are_truncated_to_what_the_model_has_positions_for(make_fast, word_tokenizer, backend):
    fast = make_fast(backend, max_position_embeddings=16)
    texts = make_texts(30)
    for max_length in (None, 500):
        found = fast.predict(texts, tokenizer=word_tokenizer, max_length=max_length)
        assert_as_forward(fast, word_tokenizer, texts, found, max_length=16, truncation=True)


@backends
@pytest.mark.parametrize(
    "config", [{"labels": 1}, {"labels": 4, "problem_type": "multi_label_classification"}], ids=["one", "several"]
)
def test_labels_that_may_hold_at_once_have_probabilities_of_their_own(make_fast, word_tokenizer, backend, config):
    fast = make_fast(backend, exits=False, **config)
    texts = make_texts(12)
    found = fast.predict(texts, tokenizer=word_tokenizer)
    for place, text in enumerate(texts):
        logits = fast(**word_tokenizer(text, return_tensors="pt")).logits[0]
        torch.testing.assert_close(found.probs[place], logits.sigmoid(), atol=1e-5, rtol=0)
        assert found.labels[place] == logits.argmax()


def test_probabilities_are_float32_whatever_the_model_computes_in(make_fast, word_tokenizer, packed_dtype):
    found = make_fast("packed", dtype=packed_dtype).predict(make_texts(5), tokenizer=word_tokenizer)
    assert found.probs.dtype == torch.float32
    torch.testing.assert_close(found.probs.sum(1), torch.ones(5))


def test_one_str_is_not_taken_for_many_texts(make_fast, word_tokenizer, one_line_error):
    with one_line_error(TypeError, "texts must be a sequence of texts (got one str)"):
        make_fast("packed").predict("a good film", tokenizer=word_tokenizer)


@pytest.mark.parametrize("none", [[], ()], ids=str)
def test_no_texts_are_refused(make_fast, word_tokenizer, one_line_error, none):
    with one_line_error(ValueError, "texts must hold at least one text (got none)"):
        make_fast("packed").predict(none, tokenizer=word_tokenizer)


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_max_length_without_room_for_a_text_is_refused(make_fast, word_tokenizer, one_line_error, max_length):
    with one_line_error(ValueError, f"max_length must be more than the 2 special tokens (got {max_length})"):
        make_fast("packed").predict(["good"], tokenizer=word_tokenizer, max_length=max_length)


def test_short_work_says_nothing(make_fast, word_tokenizer, capfd):
    make_fast("packed").predict(make_texts(20), tokenizer=word_tokenizer)
    assert capfd.readouterr() == ("", "")


def test_what_breaks_while_texts_are_tokenised_reaches_the_caller(make_fast, word_tokenizer, monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)
    with pytest.raises(TypeError):
        make_fast("packed").predict(["good", "bad", "film", None], tokenizer=word_tokenizer)


def test_a_regression_is_refused(make_fast, word_tokenizer, one_line_error):
    fast = make_fast("packed", exits=False, labels=1, problem_type="regression")
    with one_line_error(ValueError, "model must classify (got problem_type=regression)"):
        fast.predict(["a film"], tokenizer=word_tokenizer)


# Texts as they come


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_texts_come_in_chunks_with_what_was_made_of_them(monkeypatch, chunk):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", chunk)
    found = list(prefetch_encoded(iter("abcdefg"), lambda texts: [text.upper() for text in texts]))
    assert [start for start, _, _ in found] == list(range(0, 7, chunk))
    assert "".join(text for _, texts, _ in found for text in texts) == "abcdefg"
    assert "".join(row for _, _, rows in found for row in rows) == "ABCDEFG"
    assert all(len(texts) == chunk for _, texts, _ in found[:-1])


def test_of_no_texts_nothing_comes():
    assert list(prefetch_encoded([], list)) == []


def test_one_chunk_is_encoded_ahead_and_no_more(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)
    read = []
    chunks = prefetch_encoded((read.append(text) or text for text in "abcdefgh"), list)
    assert read == []
    assert [next(chunks)[0] for _ in range(2)] == [0, 2]
    assert "".join(read) == "abcdef"


def test_an_error_while_encoding_comes_in_its_place(monkeypatch):
    monkeypatch.setattr(prefetch, "CHUNK_TEXTS", 2)

    def encode(texts):
        return [1 / len(text) for text in texts]

    chunks = prefetch_encoded(["a", "b", "", "d"], encode)
    assert next(chunks) == (0, ["a", "b"], [1.0, 1.0])
    with pytest.raises(ZeroDivisionError):
        next(chunks)


@pytest.mark.parametrize("text", ["", "a film", ("a", "b"), ["a", "b"]], ids=repr)
def test_texts_and_pairs_are_texts(text):
    check_text(text, 0)
    check_texts([text])


@pytest.mark.parametrize("text", [None, 1, b"a", ("a",), ["a", "b", "c"], {"a", "b"}], ids=repr)
def test_what_is_no_text_is_refused_by_its_place(text, one_line_error):
    words = f"texts must hold texts or pairs of texts (got {type(text).__name__} at place 7)"
    with one_line_error(TypeError, words):
        check_text(text, 7)
