"""A small model with a certified path on disk, and servers of it."""

from __future__ import annotations

import contextlib

import pytest
import torch
from path_samples import with_path
from server_samples import running

from moco_rt import EarlyExitTextClassificationModel
from moco_rt.server.run import make_worker_app
from moco_rt.server.settings import Settings


@pytest.fixture(scope="session")
def folder(tiny_bert, word_tokenizer, tmp_path_factory):
    """A model of three classes whose rows leave by a made-up path."""
    fast = EarlyExitTextClassificationModel(tiny_bert(3, labels=3, id2label={0: "bad", 1: "middling", 2: "höchst gut"}))
    fast.tokenizer = word_tokenizer
    with_path(fast)
    where = tmp_path_factory.mktemp("fast")
    fast.save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def reranker_folder(tiny_bert, word_tokenizer, tmp_path_factory):
    """A model with one label, without a policy."""
    where = tmp_path_factory.mktemp("reranker")
    tiny_bert(2, labels=1).save_pretrained(where)
    word_tokenizer.save_pretrained(where)
    return where


@pytest.fixture
def serve():
    """`serve(folder, **settings)`: a client of a server that stops with the test."""
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        yield lambda folder, **settings: stack.enter_context(
            running(make_worker_app(Settings(str(folder), **settings)))
        )
    torch.set_num_threads(threads)
