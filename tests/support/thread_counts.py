"""Threads that a call of torch starts: those of a parallel loop of its own, which then spin for milliseconds."""

from __future__ import annotations

import threading
from pathlib import Path

import torch


def assert_no_threads_of_torch(call):
    """The call must not enter a parallel loop of torch: OpenMP gives each caller's thread others of its own."""
    alive = []  # their numbers, not how many: those of earlier tests may end meanwhile

    def count():
        alive.append({thread.name for thread in Path("/proc/self/task").iterdir()})

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
    before, after, with_torch = alive
    assert after <= before
    assert not with_torch <= after, "exp no longer is a parallel loop of torch"
