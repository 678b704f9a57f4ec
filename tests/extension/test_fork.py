"""A child of fork() answers, though it has none of its parent's threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

#: Batches large enough that every loop is worth several threads, in the extension and in torch.
PRELUDE = """
import functools, os, signal, sys, threading
import torch
from moco_rt._C import Exits, PackedBatch, Results, lost_threads, parallel_threads, refuse_in_parallel
from moco_rt._C import OffRamp
torch.set_num_threads(2)

@functools.cache
def made():
    ramp = OffRamp([(torch.randn(512, 768), torch.zeros(512)), (torch.randn(3, 512), torch.zeros(3))],
                   score="max_prob", temperature=1.0)
    return ramp, torch.ones(300, 40, 768)

def work_of_the_extension():
    batch = PackedBatch(torch.ones(300, 40, dtype=torch.int64))
    ramp, hidden = made()
    batch.unpad(hidden)
    assert ramp.score(batch.pool("mean")).shape == (2, 300)
    batch.compact(torch.arange(300) % 2 == 0)

def work():
    work_of_the_extension()
    (torch.ones(2000, 2000) + 1).sum()

def child(run):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            run()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def answers(lost, threads):
    def run():
        assert lost_threads() == lost
        work()
        assert torch.get_num_threads() == parallel_threads() == threads
    return child(run)
"""


def run(script):
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE + script]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_answers_on_one_thread_and_its_parent_goes_on_with_several():
    run("work(); assert answers(True, 1) == 0; work(); assert parallel_threads() == 2; assert not lost_threads()")


def test_a_child_of_a_child_answers():
    run("work(); assert child(lambda: sys.exit(answers(True, 1)) if answers(True, 1) else None) == 0")


def test_a_child_that_asks_for_threads_again_has_them_in_the_extension():
    run("""
work()
def more():
    torch.set_num_threads(2)
    assert parallel_threads() == 2
    work_of_the_extension()
    try:
        refuse_in_parallel(64)
    except ValueError:
        return
    assert False
assert child(more) == 0
""")


def test_where_the_parent_has_not_worked_a_child_keeps_its_threads():
    run("assert answers(False, 2) == 0")


def test_threads_of_another_thread_than_the_one_that_forks_do_not_count():
    run("thread = threading.Thread(target=work); thread.start(); thread.join(); assert answers(False, 2) == 0")
