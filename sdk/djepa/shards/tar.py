"""The members of a tar archive and where they lie in it, so that each can be read without the others."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from djepa.errors import MediaError

BLOCK = 512
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # by their first bytes


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path there.
        offset, size: where its content lies, in bytes.
    """

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """The files of an uncompressed tar archive, in their order; folders are passed over.

    Raises:
        MediaError: the archive is missing, compressed, damaged or cut short; or a member is a link, a device, or has a name
            that leads out of the archive. The message names the archive and the member.
    """
    try:
        length, start = path.stat().st_size, _start(path)
    except OSError as error:
        raise MediaError(f"Cannot read the shard {str(path)!r}: {error.strerror}.") from error
    for first, name in COMPRESSED.items():
        if start.startswith(first):
            raise MediaError(f"{str(path)!r} is compressed ({name}), so that no member can be read without all before it. "
                             f"Unpack it: what it holds is mostly compressed already.")
    last, end = "the beginning", 0
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                last, end = repr(info.name), _end(info)
                if end > length:
                    raise _cut_short(path, info.name, end, length)
                if not info.isdir():
                    yield _checked(path, info)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        what = f"is damaged or cut short after {last}" if end else "is no tar archive"
        raise MediaError(f"{str(path)!r} {what} ({error}). Fetch it again, or make it anew.") from error
    _check_end(path, last, end)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _end(info: tarfile.TarInfo) -> int:
    """Where the content of a member ends, with what fills its last block."""
    return info.offset_data + -(-info.size // BLOCK) * BLOCK if info.isreg() else info.offset_data


def _checked(path: Path, info: tarfile.TarInfo) -> Member:
    if not info.isreg() or info.sparse is not None:
        kind = "a link" if info.islnk() or info.issym() else "no plain file"
        raise MediaError(f"{str(path)!r}: its member {info.name!r} is {kind}; only plain files are read.")
    if info.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", info.name) or "\0" in info.name:
        raise MediaError(f"{str(path)!r}: its member {info.name!r} has a name that leads out of the archive; it is not read.")
    return Member(info.name, info.offset_data, info.size)


def _cut_short(path: Path, name: str, end: int, length: int) -> MediaError:
    return MediaError(f"{str(path)!r} is cut short: its member {name!r} goes up to byte {end:,}, and the file has {length:,}. "
                      f"Fetch it again, or make it anew.")


def _check_end(path: Path, last: str, end: int) -> None:
    """A whole archive ends with a block of zeros; `tarfile` ends without a word at whatever it does not understand."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
    if block != bytes(BLOCK):
        what = "is cut short" if len(block) < BLOCK else "is damaged"
        raise MediaError(f"{str(path)!r} {what} after {last} (byte {end:,}): there should be the mark of its end. Fetch it "
                         f"again, or make it anew.")
