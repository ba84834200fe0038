"""Writing that is all or nothing: a file or folder appears under its final name only when it is complete."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from djepa.errors import StorageError, UsageError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..*)?", re.DOTALL)  # the names `_temporary_sibling` gives


def _temporary_sibling(path: Path) -> Path:
    if path.name in ("", ".."):  # the current folder, its parent, a root: nothing that could be put in place whole
        raise UsageError(f"{str(path)!r} has no name of its own to write under; say what it shall be called.")
    # A sibling, so that the final rename stays on one file system; the suffix stays last because some writers choose
    # their format by it.
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")


def leftovers(folder: Path) -> list[Path]:
    """What writers that were killed left in a folder."""
    return [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)] if folder.is_dir() else []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` on success and vanishes on failure.

    Raises:
        UsageError: the path is a place without a name of its own, such as ".".
        StorageError: the disk is full or refuses to be written.
    """
    path = Path(path)
    temporary = _temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise StorageError(f"Could not write {str(path)!r}: {error.strerror or error}. Nothing was left under that name "
                           f"that was not there before; free some space or choose another place.") from error
    finally:
        with suppress(OSError):  # where nothing could be written there may be nothing to look into either
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `path` on success, replacing what was there, and vanishes on failure.

    Raises:
        UsageError: the path is a place without a name of its own, such as ".".
        StorageError: the disk is full or refuses to be written.
    """
    path = Path(path)
    temporary = _temporary_sibling(path)
    try:
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "there is a file of that name")
        temporary.mkdir(parents=True)
        yield temporary
        for item in temporary.rglob("*"):
            _sync(item)
        _sync(temporary)
        if path.exists():
            old = _temporary_sibling(path)
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise StorageError(f"Could not write the folder {str(path)!r}: {error.strerror or error}. Nothing half-written was "
                           f"left under that name; free some space or choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
