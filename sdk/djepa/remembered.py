"""Numbers that take long to find and do not change, such as the lengths of thousands of files, kept between runs.

They lie in the user's cache folder (`$XDG_CACHE_HOME/djepa`, by default `~/.cache/djepa`), which may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from djepa.errors import StorageError
from djepa.files import atomic_file


def cache_folder() -> Path:
    """The folder of the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "djepa"


def remembered(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What `compute` gives, found anew only for another key; kept if that can be done.

    Args:
        key: everything that decides the result.
        compute: gives an array of numbers.
    """
    path = cache_folder() / "numbers" / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or damaged
        return np.load(path, allow_pickle=False)
    found = compute()
    with suppress(StorageError), atomic_file(path) as temporary:
        np.save(temporary, found, allow_pickle=False)
    return found
