"""A model in other processes: what is shared with them is not moved under the kernels' feet."""

from __future__ import annotations

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel, quantize

TEXTS = ["good film", "a bad film was not good", "the film", "but bad"] * 8


def answer(fast, queue):
    torch.set_num_threads(1)
    queue.put(fast.predict(TEXTS).probs.numpy())


@pytest.fixture(params=["float32", "int8"])
def fast(request, tiny_bert, word_tokenizer):
    model = tiny_bert(2, hidden=64)
    if request.param == "int8":
        model = quantize(model, TEXTS, tokenizer=word_tokenizer)
    fast = EarlyExitTextClassificationModel(model)
    fast.tokenizer = word_tokenizer
    return fast


def test_weights_in_shared_memory_answer_as_before(fast):
    """What torch.multiprocessing does with a model that is passed on: its weights move to memory of their own."""
    before = fast.predict(TEXTS).probs
    fast.model.share_memory()
    assert torch.equal(fast.predict(TEXTS).probs, before)
    again = EarlyExitTextClassificationModel(fast.model).predict(TEXTS, tokenizer=fast.tokenizer)
    assert torch.equal(again.probs, before)


def test_a_spawned_process_answers_the_same(fast):
    before = fast.predict(TEXTS).probs
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=answer, args=(fast, queue))
    process.start()
    found = queue.get()
    process.join()
    assert torch.equal(torch.from_numpy(found), before)
    assert torch.equal(fast.predict(TEXTS).probs, before)
