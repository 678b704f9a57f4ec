"""Threads that a call of torch starts: those of a parallel loop of its own, which then spin for milliseconds."""

from __future__ import annotations

import threading
from pathlib import Path

import torch


def assert_no_threads_of_torch(call):
    """The call must not enter a parallel loop of torch: OpenMP gives each caller's thread others of its own."""
    counts = []

    def count():
        counts.append(len(list(Path("/proc/self/task").iterdir())))

    def work():
        for each in (lambda: None, call, lambda: torch.ones(200_000).exp()):
            each()
            count()

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        call()  # starts the helpers of our own kernels
        caller = threading.Thread(target=work)
        caller.start()
        caller.join()
    finally:
        torch.set_num_threads(threads)
    before, after, with_torch = counts
    assert after == before
    assert with_torch > after, "exp no longer is a parallel loop of torch"
