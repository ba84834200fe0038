"""How an MP3 file begins: decoders skip what they do not understand, and with the first frame go the length and the pace.

After any ID3v2 tags and zeros come frames, each with a header of four bytes that says how long it is. The first one often
holds no sound but the number of all others.
"""

from __future__ import annotations

from typing import IO

MAX_PADDING = 1 << 16  # zeros between a tag and the first frame, at most

# Kilobits a second by the header's index from 1, and samples a second by the header's index, at MPEG 1, 2 and 2.5.
_BIT_RATES = {1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
              2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def begins_with_a_frame(file: IO[bytes]) -> bool:
    """Whether the first frame is where it should be, and another one, or the end of the file, where it says that it ends."""
    start = _after_tags(file)
    length = frame_length(_at(file, start, 4))
    if length is None:
        return False
    following = _at(file, start + length, 4)
    return len(following) < 4 or following[:3] == b"TAG" or frame_length(following) is not None


def frame_length(header: bytes) -> int | None:
    """How many bytes a frame of layer III takes, its header included; None where this is the header of none.

    >>> frame_length(bytes.fromhex("fffb9064"))  # MPEG 1, 128 kbit/s, 44.1 kHz
    417
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:  # eleven ones, and layer III
        return None
    version, bit_rate, sample_rate, padding = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in _SAMPLE_RATES or not 1 <= bit_rate <= 14 or sample_rate == 3:
        return None
    mpeg = 1 if version == 3 else 2
    return 144_000 // mpeg * _BIT_RATES[mpeg][bit_rate - 1] // _SAMPLE_RATES[version][sample_rate] + padding


def _after_tags(file: IO[bytes]) -> int:
    place = _after_zeros(file, 0)
    while (tag := _at(file, place, 10))[:3] == b"ID3" and len(tag) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        place = _after_zeros(file, place + 10 + size + (10 if tag[5] & 0x10 else 0))  # a footer
    return place


def _after_zeros(file: IO[bytes], place: int) -> int:
    found = _at(file, place, MAX_PADDING)
    return place + len(found) - len(found.lstrip(b"\0"))


def _at(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)
