"""A file that takes the place of another at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(file: Path) -> Iterator[Path]:
    """A path beside a file, to write to: when the block ends, what is there takes the file's place.

    Readers find the old file or the new one, never half of it; where the block fails they keep the old one.
    """
    for left in file.parent.glob(f".{file.name}.*.partial"):  # by a process that has ended
        with contextlib.suppress(OSError), locked(left):
            left.unlink()
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        fresh.touch()
        with locked(fresh):
            yield fresh
        fresh.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file or a folder that no other process holds; a process that ends lets go of it.

    Raises:
        BlockingIOError: another one holds it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
