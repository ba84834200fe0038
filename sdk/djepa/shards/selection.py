"""Which shards are meant by a folder, a pattern or a list."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from djepa.errors import UsageError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def shards_of(root: str | Sequence[str]) -> list[Path]:
    """The shards of a folder (its `*.tar`, sorted), of a path with {000..123}, {a,b} or * in it, or of a list of such.

    Raises:
        UsageError: a shard is missing, named twice, or lies elsewhere than in a file.
    """
    asked = [root] if isinstance(root, str) else list(root)
    found = [path for one in asked for path in _one(one)]
    if not found:
        raise UsageError("root: the list of shards is empty.")
    twice = sorted({str(path) for path in found if found.count(path) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise UsageError(f"root: the shard {twice[0]!r} is named more than once.")
    return found


def _one(text: str) -> list[Path]:
    if "://" in text or text.startswith("pipe:"):
        raise UsageError(f"root: {text!r} is no file. Shards are read where they lie; fetch them first (nothing is run, and "
                         f"nothing is fetched while training).")
    if Path(text).expanduser().is_dir():
        found = sorted(path for path in Path(text).expanduser().glob("*.tar") if not path.name.startswith("."))
        if not found:
            raise UsageError(f"root: the folder {text!r} holds no shards (*.tar).")
        return found
    return [path for one in _braces(text) for path in _matching(one)]


def _matching(text: str) -> list[Path]:
    path = str(Path(text).expanduser())
    found = [Path(one) for one in sorted(glob.glob(path))] if glob.has_magic(path) else [Path(path)]
    missing = [one for one in found if not one.is_file()]
    if missing or not found:
        raise UsageError(f"root: there is no shard {str(missing[0]) if missing else text!r}.")
    return found


def _braces(text: str) -> Iterator[str]:
    """All that `a{00..12}b` and `a{x,y}b` stand for, in order."""
    ranged, choice = _RANGE.search(text), _CHOICE.search(text)
    match = min((one for one in (ranged, choice) if one), key=lambda one: one.start(), default=None)
    if match is None:
        yield text
        return
    if match is ranged:
        first, last = match[1], match[2]
        options = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        options = match[1].split(",")
    for option in options:
        yield from _braces(text[: match.start()] + option + text[match.end() :])
