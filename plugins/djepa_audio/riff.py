"""What libsndfile leaves out of WAV files: whether they are cut short, and comments of any length.

A WAV file is a RIFF file: after twelve bytes of header, chunks of a name (4 bytes), a length (4 bytes, little-endian) and
that many bytes, padded to an even number. The samples are in the chunk "data"; a chunk "LIST" of type "INFO" holds texts,
among them the comment, "ICMT". libsndfile stops at the end of the file whatever "data" says, and drops texts above 2 kB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

HEADER = 12
UNKNOWN = 0x7FFF_0000  # from here on a length says that the writer, into a pipe, did not know it
MAX_CHUNKS = 1000      # that are looked at: zeros would be one every eight bytes
MAX_NOTE = 16 << 20    # bytes of a comment that are read at most

Chunk = tuple[bytes, int, int]  # name, where its content begins, length


def chunks(file: IO[bytes], start: int, end: int) -> Iterator[Chunk]:
    """The chunks between two places of a file; the last may say that it is longer."""
    for _ in range(MAX_CHUNKS):
        if start + 8 > end:
            break
        file.seek(start)
        name, length = struct.unpack("<4sI", file.read(8))
        yield name, start + 8, length
        start += 8 + length + length % 2


def is_cut_short(file: IO[bytes]) -> bool:
    """Whether samples are missing at the end, by what the header says."""
    end = file.seek(0, 2)
    return any(start + length > end and length < UNKNOWN
               for name, start, length in chunks(file, HEADER, end) if name == b"data")


def comment(file: IO[bytes]) -> str:
    """The comment; "" where there is none."""
    end = file.seek(0, 2)
    for name, start, length in chunks(file, HEADER, end):
        if name == b"LIST" and file.seek(start) is not None and file.read(4) == b"INFO":
            for text, place, size in chunks(file, start + 4, min(start + length, end)):
                if text == b"ICMT" and size <= MAX_NOTE:
                    file.seek(place)
                    return file.read(size).rstrip(b"\0").decode("utf-8", "replace")
    return ""


def with_comment(wav: bytes, text: str) -> bytes:
    """A WAV file with a comment after its samples."""
    content = text.encode() + b"\0"
    content = b"INFO" + struct.pack("<4sI", b"ICMT", len(content)) + content + b"\0" * (len(content) % 2)
    whole = wav + b"\0" * (len(wav) % 2) + struct.pack("<4sI", b"LIST", len(content)) + content
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
