"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from djepa.errors import StorageError, UsageError
from djepa.files import atomic_file, atomic_folder, leftovers

# Stops for good in the middle of writing: before anything was synchronized, or while that is done.
STOPPING = """
import sys, time
import djepa.files

def stop(*_):
    print("now", flush=True)
    time.sleep(60)

writer, path, moment = sys.argv[1:]
if moment == "synchronizing":
    djepa.files._sync = stop
with getattr(djepa.files, writer)(path) as temporary:
    (temporary if writer == "atomic_file" else temporary / "weights").write_text("half of the content")
    if moment == "writing":
        stop()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "er" / "file.png"
    with atomic_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".png"  # some writers choose the format by it
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content" and names(path.parent) == ["file.png"]


def test_a_file_that_was_there_is_replaced_at_once(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_everything_as_it_was(tmp_path, error):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for writer, name in ((atomic_file, "file"), (atomic_file, "another"), (atomic_folder, "folder"), (atomic_folder, "other")):
        with pytest.raises(type(error)), writer(tmp_path / name) as temporary:
            (temporary / "x" if writer is atomic_folder else temporary).write_text("half")
            raise error
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == []
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("content")
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "content" and names(path.parent) == ["folder"]


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_what_was_written_is_renamed_and_not_copied(tmp_path, writer):
    with writer(tmp_path / "thing") as temporary:
        (temporary if writer is atomic_file else temporary / "x").touch()
        written = temporary.stat().st_ino
    assert (tmp_path / "thing").stat().st_ino == written


def test_a_folder_that_was_there_is_replaced(tmp_path):
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / content).touch()
    assert names(path) == ["new"] and names(tmp_path) == ["folder"]


@pytest.mark.parametrize("name", [".", "..", "/"])
@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_place_without_a_name_of_its_own_is_refused(tmp_path, monkeypatch, writer, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no name"), writer(name):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_place_below_a_file_is_refused_by_name(tmp_path, writer):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught, writer(tmp_path / "file" / "below"):
        pass
    assert repr(str(tmp_path / "file" / "below")) in str(caught.value) and caught.value.exit_code == 1


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_full_disk_is_said_and_leaves_what_was_there(small_disk, writer):
    disk = small_disk(64)
    with writer(disk / "thing") as temporary:
        (temporary if writer is atomic_file else temporary / "a").write_bytes(b"old" * 4096)
    with pytest.raises(StorageError, match="No space left on device"), writer(disk / "thing") as temporary:
        (temporary if writer is atomic_file else temporary / "a").write_bytes(b"new" * 32768)
    kept = disk / "thing" if writer is atomic_file else disk / "thing" / "a"
    assert names(disk) == ["thing"] and kept.read_bytes() == b"old" * 4096


@pytest.mark.parametrize("moment", ["writing", "synchronizing"])
@pytest.mark.parametrize("writer", ["atomic_file", "atomic_folder"])
def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path, writer, moment):
    child = subprocess.Popen([sys.executable, "-c", STOPPING, writer, tmp_path / "thing", moment], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"now\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert not (tmp_path / "thing").exists()
    leftover, = tmp_path.iterdir()
    assert leftover.name.startswith(".thing.") and leftovers(tmp_path) == [leftover]
