"""One run, one trainer: a lock on the folder, which ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from djepa.errors import StorageError, UsageError

LOCK = ".lock"
PATIENCE = 3.0  # seconds for a process that was killed, and the workers it leaves behind, to be gone


class RunLock:
    """Holds the lock of a run's folder while a block runs.

    A record lock (not flock), which is not inherited by processes that load data, and which network file systems know.

    Args:
        run: the folder; it is made.

    Raises:
        UsageError: another process holds it; the message names that one.
        StorageError: the folder cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / LOCK
        self._descriptor = -1

    def __enter__(self) -> RunLock:
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"Cannot write into the run folder {str(self.run)!r}: {error.strerror or error}. Choose another "
                               f"place with --out.") from error
        deadline = time.monotonic() + PATIENCE
        while not self._locked():
            if time.monotonic() > deadline:
                owner = self._owner()
                os.close(self._descriptor)
                raise UsageError(f"{str(self.run)!r} is being trained by another process{owner}. Wait for it, or stop it: on "
                                 f"SIGTERM it saves and ends.")
            time.sleep(0.1)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with suppress(OSError):  # the disk may have become read-only
            self.path.unlink()  # while it is held, so that nobody else has it
        os.close(self._descriptor)

    def _locked(self) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except PermissionError:
            return False
        except OSError:  # a file system without locks
            return True
        if self._is_current():
            return True
        os.close(self._descriptor)  # its owner has unlinked it in the meantime: this one locks nothing
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        return False

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _owner(self) -> str:
        try:
            owner = json.loads(os.pread(self._descriptor, 4096, 0))
            return f" ({owner['pid']} on {owner['host']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""
