"""Loops of the extension run on threads of their own: as many as there are cores for, and the answers do not change."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
import time

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import parallel_threads, quota_cores, refuse_in_parallel

#: How long the stress test goes on; ten minutes before a release.
STRESS_SECONDS = 60 * float(os.environ.get("MOCO_STRESS_MINUTES", "0.05"))
CALLERS = 4
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: How many threads a loop may have on this machine.
MOST = max(1, math.ceil(min(CORES, quota_cores("/proc/self/cgroup", "/sys/fs/cgroup"))))
several_cores = pytest.mark.skipif(MOST < 2, reason="the process has one core")


@pytest.fixture(autouse=True)
def _keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def calls(tiny_bert):
    """A model and batches of which some are worth several threads, each with its logits on one thread."""
    model = EarlyExitTextClassificationModel(tiny_bert(2, 128, 4), backend="packed")
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    for rows, tokens in ((1, 1), (1, 20), (3, 64), (40, 33)):
        ids = torch.randint(5, 100, (rows, tokens), generator=generator)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found.append((batch, model(**batch).logits.clone()))
    torch.set_num_threads(before)
    return model, found


def in_threads(work, number):
    """Run work(place) in so many threads at once; what they raised."""
    raised = []

    def run(place):
        try:
            work(place)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_callers_in_threads_get_the_same_bits_whatever_the_number_of_threads(calls):
    model, batches = calls
    end = time.monotonic() + STRESS_SECONDS

    def work(place):
        chosen = random.Random(place)
        while time.monotonic() < end:
            # torch keeps a number for each thread: a new thread takes the last one that was set anywhere.
            torch.set_num_threads(chosen.choice([1, 2, 3, 8]))
            if place == CALLERS:
                in_threads(lambda _: model(**batches[-1][0]), 1)
                continue
            batch, expected = chosen.choice(batches)
            assert torch.equal(model(**batch).logits, expected)

    assert in_threads(work, CALLERS + 1) == []


@several_cores
def test_a_loop_has_as_many_threads_as_torch_but_not_more_than_cores():
    time.sleep(0.1)  # until callers of other tests are forgotten, which would have cores of their own
    for asked in (1, 2, 1, 64, 2):
        torch.set_num_threads(asked)
        assert parallel_threads() == min(asked, MOST)


def test_callers_at_once_share_the_threads_and_none_waits_for_another():
    torch.set_num_threads(2)
    seen = []
    assert in_threads(lambda _: seen.append(parallel_threads()), CALLERS) == []
    assert all(1 <= threads <= 2 for threads in seen)


def test_what_loops_of_several_callers_throw_reaches_its_own_caller(one_line_error):
    def work(place):
        torch.set_num_threads(2)
        for tasks in range(10 + place, 200, CALLERS):
            with one_line_error(ValueError, f"refuse_in_parallel: task must be below {tasks - 1} (got {tasks - 1})"):
                refuse_in_parallel(tasks)

    assert in_threads(work, CALLERS) == []


def run_python(script):
    """Run a script in a process of its own; what it printed."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_has_nothing_to_do_uses_no_processor_time():
    spent = run_python("""
import time, torch
torch.set_num_threads(2)
from moco_rt._C import parallel_threads
parallel_threads()
time.sleep(0.1)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
""")
    assert float(spent) < 0.1  # a thread that waits awake would use 0.5 s


@pytest.mark.parametrize("seconds", [0, 0.1], ids=["awake", "asleep"])
def test_a_process_ends_while_its_threads_wait(seconds):
    run_python(f"""
import time, torch
torch.set_num_threads(2)
from moco_rt._C import parallel_threads
parallel_threads()
time.sleep({seconds})
""")


def groups(folder, cgroups, files):
    """Write a file like /proc/self/cgroup and the files below /sys/fs/cgroup; the quota that is found."""
    (folder / "cgroup").write_text(cgroups)
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return quota_cores(str(folder / "cgroup"), str(folder / "fs"))


@pytest.mark.parametrize(
    ("cgroups", "files", "cores"),
    [
        ("0::/\n", {}, float("inf")),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, float("inf")),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "400000 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("4:cpuacct,cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "5000\n", "cpu/a/cpu.cfs_period_us": "10000\n"}, 0.5),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "1\n"}, float("inf")),
        ("nonsense\n\n:\n", {"cpu.max": "what\n"}, float("inf")),
    ],
)
def test_cpu_quotas_of_cgroups_are_found(tmp_path, cgroups, files, cores):
    assert groups(tmp_path, cgroups, files) == cores


def test_without_cgroups_there_is_no_quota(tmp_path):
    assert quota_cores(str(tmp_path / "none"), str(tmp_path)) == float("inf")
