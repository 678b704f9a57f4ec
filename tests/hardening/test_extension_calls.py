"""Whatever the extension is called with, it answers or refuses in one line; nothing reads or writes where it must not.

The second half only a build with sanitizers can see: `make harden` makes one and runs this there.
"""

from __future__ import annotations

import os

import extension_calls
import numpy as np
import pytest

#: Calls of each program; `make harden` makes many more.
CALLS = int(os.environ.get("MOCO_EXTENSION_CALLS", "1500"))
SEED = int(os.environ.get("MOCO_FUZZ_SEED", "0"))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("program", extension_calls.PROGRAMS, ids=lambda program: program.__name__)
def test_calls_are_answered_or_refused(program):
    calls = refused = number = 0
    while calls < CALLS:
        caller = extension_calls.Caller(np.random.default_rng([SEED, number]))
        try:
            program(caller)
        except Exception as error:
            raise AssertionError(f"program {number} of seed {SEED}") from error
        calls, refused, number = calls + caller.calls, refused + caller.refused, number + 1
    assert 0 < refused < calls / 2
