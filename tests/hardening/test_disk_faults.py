"""A disk that is full or read-only, or a process that is killed, at any write: nothing that was there is lost."""

from __future__ import annotations

import os
import shutil

import file_work
import pytest
from disk_faults import outcomes

#: At how many calls of a kind of work each fault is tried; `make harden` tries all.
MOST = int(os.environ.get("MOCO_FAULTS", "3"))

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the disk that fails")


@pytest.mark.parametrize("name", file_work.WORKS)
def test_nothing_is_lost_whatever_call_fails(name, tmp_path):
    undisturbed, *disturbed = outcomes(name, tmp_path, MOST)
    before, after = undisturbed["before"], undisturbed["after"]
    assert undisturbed["said"] is None
    assert before != after
    assert {one["fault"] for one in disturbed} == {"killed", "full", "read-only"}
    for one in disturbed:
        assert file_work.WORKS[name].unfinished or one["found"] in (before, after), one
        # One line says why; the next run ends where an undisturbed one does.
        assert one["said"] is None or "\n" not in one["said"], one
        assert one["again"] == after, one
        assert one["said_again"] is None or one["found"] == after, one
        if one["fault"] == "read-only":
            assert one["said"] is not None
            assert one["found"] == before, one
