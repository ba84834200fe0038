"""One folder, one trainer."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from djepa.errors import StorageError, UsageError
from djepa.train import locking
from djepa.train.locking import RunLock

HOLD = """
import sys, time
from pathlib import Path
from djepa.train.locking import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_it_is_named(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    with pytest.raises(UsageError, match=rf"being trained by another process \({holder.pid} on "), RunLock(tmp_path / "run"):
        pass
    assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == holder.pid


def test_it_ends_with_a_process_that_is_killed_and_one_that_waits_gets_it(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    begin = time.monotonic()
    with RunLock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == os.getpid()
    assert time.monotonic() - begin < locking.PATIENCE


def test_it_is_gone_when_it_is_given_back(tmp_path, holder):
    holder.communicate("\n")
    assert list((tmp_path / "run").iterdir()) == []
    for _ in range(2):
        with RunLock(tmp_path / "run"):
            assert (tmp_path / "run" / ".lock").exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_place_that_is_none_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file.*--out"), RunLock(tmp_path / "file" / "run"):
        pass
