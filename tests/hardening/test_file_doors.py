"""Files that somebody has damaged or forged: they are read, or refused in one line, and nothing else happens."""

from __future__ import annotations

import os
from functools import cache
from unittest import mock

import file_doors
import numpy as np
import pytest
from mutations import mutated

from moco_rt.policies import fingerprints

#: How many changed files each reader meets; `make harden` tries many more.
INPUTS = int(os.environ.get("MOCO_FUZZ_INPUTS", "40"))
SEED = int(os.environ.get("MOCO_FUZZ_SEED", "0"))
REFUSALS = (ValueError, FileNotFoundError, FileExistsError)


@pytest.fixture(scope="module")
def doors(tmp_path_factory, one_thread):  # noqa: ARG001
    """All doors; the weights of their models, which never change, are summed up once."""
    with mock.patch.object(fingerprints, "fingerprint", cache(fingerprints.fingerprint)):
        yield file_doors.doors(tmp_path_factory.mktemp("doors"))


def refusal(door):
    """What a door says of a file that it does not take; None: it takes it."""
    try:
        door.read()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("name", file_doors.NAMES)
def test_a_changed_file_is_read_or_refused_in_one_line(doors, name):
    door = doors[name]
    whole = door.file.read_bytes()
    assert refusal(door) is None
    generator = np.random.default_rng([SEED, file_doors.NAMES.index(name)])
    try:
        for number in range(INPUTS):
            data = mutated(whole, generator)
            door.file.write_bytes(data)
            error = refusal(door)
            said = f"input {number}, seed {SEED}: {data[:200]!r}"
            assert error is None or type(error) in REFUSALS, (said, error)
            assert error is None or ("\n" not in str(error) and len(str(error)) < 2000), (said, error)
    finally:
        door.file.write_bytes(whole)
    assert refusal(door) is None
