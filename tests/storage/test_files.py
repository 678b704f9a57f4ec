"""Files and folders that are replaced whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys

import pytest

from moco_rt.storage import complete_replacing, replacing_file, replacing_folder
from moco_rt.storage.files import locked


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(file, error):
    file.write_text("new")
    raise error


def test_a_file_is_replaced_when_all_is_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with replacing_file(file) as fresh:
        fresh.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_where_writing_fails_the_old_file_stays(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_file(file) as fresh:
        write_and_fail(fresh, KeyboardInterrupt())
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_a_process_that_ended_left_is_removed_and_what_another_one_writes_stays(tmp_path):
    file = tmp_path / "file"
    (tmp_path / ".file.0123abcd.partial").write_text("left")
    with replacing_file(file) as first:
        first.write_text("first")
        with replacing_file(file) as second:
            second.write_text("second")
            assert first.exists()
    assert file.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_a_folder_gets_all_new_files_and_loses_the_stale_ones(tmp_path):
    for name in ("kept", "stale-1", "same"):
        (tmp_path / name).write_text("old")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "old").touch()
    with replacing_folder(tmp_path, ("stale-*", "same", "missing")) as fresh:
        (fresh / "same").write_text("new")
        (fresh / "given").mkdir()
        assert (tmp_path / "same").read_text() == "old"
    assert names(tmp_path) == ["given", "kept", "same"]
    assert names(tmp_path / "given") == []
    assert (tmp_path / "same").read_text() == "new"


@pytest.mark.parametrize(("new", "left"), [("words-a", ["words-a"]), ("other", ["other", "words-a", "words-b"])])
def test_files_that_belong_together_go_where_some_of_them_are_new(tmp_path, new, left):
    for name in ("words-a", "words-b", "stale"):
        (tmp_path / name).write_text("old")
    with replacing_folder(tmp_path, ("stale",), ("words-*",)) as fresh:
        (fresh / new).write_text("new")
    assert names(tmp_path) == left
    assert (tmp_path / new).read_text() == "new"


def test_where_writing_fails_the_old_folder_stays(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="full"), replacing_folder(tmp_path, ("file",)) as fresh:
        write_and_fail(fresh / "file", OSError("full"))
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_what_a_process_that_ended_had_decided_is_done(tmp_path, moved):
    """It had moved none, one or both of the new files."""
    (tmp_path / "stale").write_text("old")
    (tmp_path / "a").write_text("old")
    saved = tmp_path / ".saved"
    (saved / ".old").mkdir(parents=True)
    (saved / ".list.json").write_text(json.dumps({"new": ["a", "b"], "going": ["stale"]}))
    for place, name in enumerate(("a", "b")):
        (saved / name if place >= moved else tmp_path / name).write_text("new")
    complete_replacing(tmp_path)
    assert names(tmp_path) == ["a", "b"]
    assert {(tmp_path / name).read_text() for name in ("a", "b")} == {"new"}
    complete_replacing(tmp_path)
    assert names(tmp_path) == ["a", "b"]


def test_folders_of_processes_that_ended_are_removed(tmp_path):
    (tmp_path / ".saving-left").mkdir()
    (tmp_path / ".saving-left" / "file").touch()
    with replacing_folder(tmp_path) as fresh:
        (fresh / "file").touch()
        with replacing_folder(tmp_path) as other:
            (other / "other").touch()
        assert fresh.exists()
    assert names(tmp_path) == ["file", "other"]


def test_of_two_that_save_into_a_folder_one_comes_after_the_other(tmp_path):
    """The first has decided, and has not moved its files, when the second has written its own."""
    with replacing_folder(tmp_path, ("both", "first", "second")) as fresh:
        saved = tmp_path / ".saved"
        (saved / ".old").mkdir(parents=True)
        (saved / ".list.json").write_text(json.dumps({"new": ["both", "first"], "going": []}))
        for name in ("both", "first"):
            (saved / name).write_text("first")
        for name in ("both", "second"):
            (fresh / name).write_text("second")
    assert names(tmp_path) == ["both", "second"]
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"second"}


#: Saves into a folder, and writes a file, again and again.
SAVES = """
import sys
from pathlib import Path
from moco_rt.storage import replacing_file, replacing_folder
from moco_rt.storage.files import locked
folder, name = Path(sys.argv[1]), sys.argv[2]
for _ in range(100):
    with replacing_folder(folder / "models", ("only-*",)) as fresh:
        for file in ("both", f"only-{name}"):
            (fresh / file).write_text(name)
    with replacing_file(folder / "file") as fresh:
        fresh.write_text(name)
"""


def test_no_process_loses_what_it_saves_where_others_do_the_same(tmp_path):
    tasks = [subprocess.Popen([sys.executable, "-c", SAVES, str(tmp_path), name]) for name in "abc"]
    assert [task.wait(120) for task in tasks] == [0, 0, 0]
    last = (tmp_path / "models" / "both").read_text()
    assert names(tmp_path / "models") == ["both", f"only-{last}"]
    assert names(tmp_path) == ["file", "models"]


def test_a_file_that_took_the_place_of_one_to_be_held_is_not_taken_for_it(tmp_path, monkeypatch):
    """Else who removes what others left would remove a lock that somebody holds."""
    path, other, flock = tmp_path / "lock", tmp_path / "other", fcntl.flock

    def replaced_first(descriptor, operation):
        other.touch()
        other.replace(path)
        flock(descriptor, operation)

    path.touch()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", replaced_first)
        with pytest.raises(FileNotFoundError, match="another file in its place"), locked(path):
            raise AssertionError("is never held")
    assert path.exists()
    with locked(path), pytest.raises(BlockingIOError), locked(path):
        raise AssertionError("is held already")


def test_files_are_locked_where_only_writers_may_lock_them(tmp_path, monkeypatch):
    """Network file systems lock ranges of bytes in place of files."""
    flock = fcntl.flock

    def of_ranges(descriptor, operation):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        (flock if is_folder else fcntl.lockf)(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", of_ranges)
    with replacing_folder(tmp_path / "folder") as fresh:
        (fresh / "file").touch()
    assert names(tmp_path / "folder") == ["file"]
    with replacing_file(tmp_path / "file") as fresh:
        fresh.write_text("new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_lock_that_a_process_that_ended_left_stops_nobody(tmp_path):
    (tmp_path / ".saving-lock").touch()
    for _ in range(2):
        with replacing_folder(tmp_path) as fresh:
            (fresh / "file").touch()
        assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", ".", "", "a/b"])
@pytest.mark.parametrize("kind", ["new", "going"])
def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path, one_line_error, kind, name):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / ".saved" / ".old").mkdir(parents=True)
    outside.write_text("not ours")
    file = folder / ".saved" / ".list.json"
    file.write_text(json.dumps({"new": [], "going": [], kind: [name]}))
    with one_line_error(ValueError, f"{file} must be whole (got names that are no files of this folder)"):
        complete_replacing(folder)
    assert outside.read_text() == "not ours"


def test_a_broken_list_and_links_are_refused(tmp_path, one_line_error):
    saved, elsewhere = tmp_path / ".saved", tmp_path / "elsewhere"
    elsewhere.mkdir()
    saved.mkdir()
    (saved / ".old").symlink_to(elsewhere)
    (saved / ".list.json").write_text("[")
    with one_line_error(ValueError, "must hold JSON"):
        complete_replacing(tmp_path)
    (saved / ".list.json").write_text('{"new": [], "going": ["elsewhere"]}')
    with one_line_error(ValueError, "got a link to another folder"):
        complete_replacing(tmp_path)
    assert elsewhere.is_dir()
