"""Work that changes files, done again and again on a disk that fails at one of its calls.

`python disk_faults.py NAME FOLDER MOST` runs with `faulty_disk.c` preloaded. In a forked child for each fault it does
the work of that name (see `file_work`) and writes down what a user finds afterwards, a JSON object a line.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

SOURCE = Path(__file__).with_name("faulty_disk.c")
#: As `enum Mode` of the C file.
COUNT, KILLED, FULL, READ_ONLY = range(4)
FAULTS = {"killed": KILLED, "full": FULL, "read-only": READ_ONLY}


def outcomes(name, folder, most):
    """Do work with every fault, at so many calls at most, evenly spread; what came of each.

    Args:
        name: of the work.
        folder: an empty one.
        most: calls for each fault.
    """
    library = folder / "faulty_disk.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", SOURCE, "-o", library, "-ldl"], check=True)
    places = [str(place) for place in sys.path if place]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": ":".join(places)}
    command = [sys.executable, __file__, name, str(folder / "work"), str(most)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(name, folder, most):
    """Write an outcome a line; the first says what stands there before and after undisturbed work."""
    import file_work
    import torch

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    disk = ctypes.CDLL(os.environ["LD_PRELOAD"])
    work = file_work.WORKS[name]()
    started = folder.with_name("started")
    work.begin(started)
    before = _look(work, started)
    calls, said, after = _try(work, started, folder, disk, COUNT, 0)
    _write_line({"fault": None, "calls": calls, "said": said, "before": before, "after": after})
    for fault, mode in FAULTS.items():
        step = max(1, -(-calls // most))
        for at in [0] if mode == READ_ONLY else sorted({*range(0, calls, step), calls - 1}):
            _, said, found = _try(work, started, folder, disk, mode, at)
            _, said_again, again = _try(work, folder, folder, disk, COUNT, 0)
            about = {"fault": fault, "at": at, "said": said, "found": found}
            _write_line({**about, "said_again": said_again, "again": again})


def _try(work, started, folder, disk, mode, at):
    """Work in a child, on a copy of what stood there; the number of calls, what it raised, what is found."""
    if started != folder:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(started, folder)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, folder, disk, mode, at, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    ended = {"calls": None, "said": None} if os.WIFSIGNALED(status) else json.loads(text)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        ended["said"] = f"signal {os.WTERMSIG(status)}"
    return ended["calls"], ended["said"], _look(work, folder)


def _child(work, folder, disk, mode, at, writing):
    said = None
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the outcomes are written there
    disk.faulty_disk_watch(str(folder).encode(), mode, ctypes.c_long(at))
    try:
        work.run(folder)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        if not isinstance(error, work.refusals):
            said = traceback.format_exc()
    calls = disk.faulty_disk_calls()
    disk.faulty_disk_watch(b"", COUNT, ctypes.c_long(0))
    os.write(writing, json.dumps({"calls": calls, "said": said}).encode())
    os._exit(0)


def _look(work, folder):
    """What a user finds: a word or two of the work, or what is raised."""
    try:
        return work.look(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _write_line(about):
    sys.stdout.write(json.dumps(about) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
