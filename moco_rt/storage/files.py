"""A file that takes the place of another at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
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

    def make() -> Path:
        fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
        fresh.touch()
        return fresh

    with held(make) as fresh:
        try:
            yield fresh
            fresh.replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise


@contextmanager
def held(make: Callable[[], Path], *, wait: bool = False) -> Iterator[Path]:
    """Make a file or a folder and hold it: no other process takes it for one that was left.

    Args:
        make: makes it, where it may be there already only if others are waited for.
        wait: for another process that holds it, to let go.
    """
    with contextlib.ExitStack() as stack:
        while True:
            path = make()
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # somebody removes it
                stack.enter_context(locked(path, wait=wait))
                break
        yield path


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file or a folder that no other process holds; a process that ends lets go of it.

    Args:
        path: is there.
        wait: for another process that holds it, to let go.

    Raises:
        BlockingIOError: another one holds it, and is not waited for.
        FileNotFoundError: it is gone, or another file has taken its place before it was held.
    """
    descriptor = _opened(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if not os.path.samestat(os.fstat(descriptor), path.stat()):
                raise FileNotFoundError(f"{path} must stay (got another file in its place)")
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child of fork may have the descriptor, too
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open what is to be held: network file systems let a file be locked only by who may write it."""
    if not path.is_dir():
        with contextlib.suppress(PermissionError):  # another user's
            return os.open(path, os.O_RDWR)
    return os.open(path, os.O_RDONLY)
