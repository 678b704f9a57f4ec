"""A folder whose files are replaced together.

Several files cannot be replaced at once. So all new ones are written into a folder `.saving-...` inside first, with a
list of what is to be done; renaming it to `.saved` decides that it will be done, whatever happens from there on. Then
the files are moved to their places. Where a process ends in between, the next one that reads or writes the folder moves
the rest. Whoever moves files holds `.saving-lock`: of several that save into a folder, one comes after the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moco_rt.storage.fields import rebuild
from moco_rt.storage.files import held, locked
from moco_rt.storage.manifest import read_json, whole

_SAVING, _SAVED = ".saving-", ".saved"
#: Is held by whoever moves files, and is there only meanwhile.
_LOCK = f"{_SAVING}lock"
#: Lists the new files and the old ones that go, inside the folder of new files.
_LIST = ".list.json"
#: Old files and folders, inside it too: they are removed with it.
_OLD = ".old"


@contextmanager
def replacing_folder(directory: str | Path, stale: Sequence[str] = (), together: Sequence[str] = ()) -> Iterator[Path]:
    """A new folder whose files, once all are written, take the place of those in `directory`.

    Nothing is written over: what maps the old files, as a model that was loaded from there may, keeps them. Where
    writing fails the old files stay; where the process ends, the old files or all of the new ones are there for
    `complete_replacing`.

    Args:
        directory: is made where it is missing; other files in it stay.
        stale: patterns of the names of old files that go where they are not among the new ones.
        together: such patterns of files that belong together: they go only where some of the new ones are such.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    complete_replacing(directory)
    _remove_abandoned(directory)
    with held(lambda: Path(tempfile.mkdtemp(prefix=_SAVING, dir=directory))) as fresh:
        try:
            yield fresh
            with _alone(directory):
                _complete(directory)  # what another process has decided since
                _write_list(fresh, directory, stale, together)
                fresh.rename(directory / _SAVED)
                _complete(directory)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def _write_list(fresh: Path, directory: Path, stale: Sequence[str], together: Sequence[str]) -> None:
    """Write which files are new and which old ones go, as things stand now."""
    names = sorted(path.name for path in fresh.iterdir())
    going = _matching(directory, stale)
    if _matching(fresh, together):
        going |= _matching(directory, together)
    (fresh / _OLD).mkdir()
    (fresh / _LIST).write_text(json.dumps({"new": names, "going": sorted(going - {*names})}), encoding="utf-8")


def _matching(directory: Path, patterns: Sequence[str]) -> set[str]:
    return {path.name for pattern in patterns for path in directory.glob(pattern)}


def complete_replacing(directory: Path) -> None:
    """Move files to their places that a process which has ended meanwhile did not.

    Raises:
        OSError: there are some, and the folder cannot be written.
        ValueError: their list is broken, or leads out of the folder: it is not by us.
    """
    if (directory / _SAVED).is_dir():
        with _alone(directory):
            _complete(directory)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other process moves files in a folder, and let none begin."""

    def make() -> Path:
        lock = directory / _LOCK
        os.close(os.open(lock, os.O_CREAT | os.O_RDWR, 0o666))
        return lock

    with held(make, wait=True) as lock:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


def _complete(directory: Path) -> None:
    """Move files to their places, in a folder that is held."""
    saved = directory / _SAVED
    if not saved.is_dir():
        return
    # Where locks do not reach another machine that does the same, either moves a file.
    with contextlib.suppress(FileNotFoundError):
        names = _read_list(saved)
        for name in names.going:
            _move(directory / name, saved / _OLD / name)
        for name in names.new:
            if (saved / name).exists():
                if (directory / name).is_dir():  # which nothing replaces
                    _move(directory / name, saved / _OLD / name)
                _move(saved / name, directory / name)
        done = directory / f"{_SAVING}{uuid.uuid4().hex[:8]}-done"
        saved.rename(done)
        shutil.rmtree(done, ignore_errors=True)


@dataclass(frozen=True)
class _List:
    """The names of the new files, and of the old ones that go."""

    new: Sequence[str]
    going: Sequence[str]


def _read_list(saved: Path) -> _List:
    """Read the list in a folder, which may come from strangers: it must move nothing but files of this folder."""
    file = saved / _LIST
    content = read_json(file)
    with whole(file):
        names = rebuild(_List, content)
        if any(name in ("", ".", "..") or Path(name).name != name for name in (*names.new, *names.going)):
            raise TypeError("names that are no files of this folder")
        if saved.is_symlink() or (saved / _OLD).is_symlink():
            raise TypeError("a link to another folder")
    return names


def _move(file: Path, place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.replace(place)


def _remove_abandoned(directory: Path) -> None:
    """Remove what processes that have ended left half-written."""
    for left in directory.glob(f"{_SAVING}*"):
        with contextlib.suppress(OSError), locked(left):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:  # a lock
                left.unlink()
