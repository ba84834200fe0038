"""A folder of media files as data: each sub-folder a class, found in the same order on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from djepa.errors import MediaError, UsageError

Labelled = tuple[str, int | None]  # a file, and the number of its class or None where there are no classes


def scan(root: Path, extensions: tuple[str, ...], what: str) -> tuple[list[str], list[Labelled]]:
    """The classes below a folder, and all its files with the number of their class.

    Each sub-folder is a class and gives it its name; files lie anywhere below it. Then a file beside the sub-folders belongs
    to no class and is left out. Without sub-folders there are no classes. Hidden files and folders are skipped, and so is
    what has another extension. Everything is sorted by name.

    Args:
        root: the folder.
        extensions: of the files, in lower case and with their dots.
        what: they are, in the plural, for messages: "pictures".

    Raises:
        UsageError: the folder is missing, holds no such files, or has a class without any.
    """
    if not root.is_dir():
        raise UsageError(f"root: there is no folder {str(root)!r}.")
    classes = sorted(item.name for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    files: list[Labelled]
    if classes:
        found = {name: list(_files(root / name, extensions)) for name in classes}
        empty = [name for name in classes if not found[name]]
        if empty and len(empty) < len(classes):
            raise UsageError(f"root: each sub-folder of {str(root)!r} is a class, but these hold no {what}: "
                             f"{', '.join(empty[:10])}. Fill or remove them.")
        files = [(file, label) for label, name in enumerate(classes) for file in found[name]]
    else:
        files = [(file, None) for file in _files(root, extensions)]
    if not files:
        raise UsageError(f"root: there are no {what} ({', '.join(extensions)}) in {str(root)!r}.")
    return classes, files


def fingerprint(root: Path, files: Sequence[Labelled]) -> str:
    """A text that is another one when the files are: of their names, classes, sizes and times of the last change.

    Raises:
        MediaError: a file is gone.
    """
    digest = hashlib.sha256()
    for file, label in files:
        try:
            stat = os.stat(file)
        except OSError as error:
            raise MediaError(f"{file!r} is gone ({error.strerror}).") from error
        digest.update(f"{os.path.relpath(file, root)}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(folder: Path, extensions: tuple[str, ...]) -> Iterator[str]:
    """All files of these extensions below a folder, sorted folder by folder."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(extensions):
                yield os.path.join(parent, name)
