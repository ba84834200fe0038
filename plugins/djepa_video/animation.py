"""Frames out of animated pictures (GIF, WebP), and when these are shown.

Both formats store how long each frame lasts, in steps too coarse for most frame rates, and their writers drop frames that are
like the one before. Of files this library wrote, the note says how many frames there were and at which rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO

import numpy as np

# Each import makes one format known to Pillow; what is not imported here is not read.
from PIL import GifImagePlugin, Image, ImageFile, WebPImagePlugin  # noqa: F401

from djepa.errors import MediaError
from djepa_video.clip import Clip, Frames, check_size
from djepa_video.note import Note

EXIF_IFD, EXIF_COMMENT = 0x8769, 0x9286
EXIF_ASCII = b"ASCII\0\0\0"  # the eight bytes that say how a comment is encoded
STEP = {"gif": 10, "webp": 1}       # milliseconds: the unit in which durations are stored
SHORTEST = {"gif": 20, "webp": 11}  # milliseconds: what is shorter, browsers show for 100
UNTIMED = 100                       # milliseconds that a frame without a duration is shown for


class AnimationClip(Clip):
    """A clip that Pillow reads."""

    def __init__(self, path: Path, image: ImageFile.ImageFile) -> None:
        count = getattr(image, "n_frames", 1)
        check_size(path, image.height, image.width, count)
        shown = _durations(image, count)
        note = _note(image)
        wanted = durations(note.fps, note.num_frames, (image.format or "").lower()) if note.fps and note.num_frames else []
        starts = list(accumulate(shown[:-1], initial=0))
        still = count == 1 and not image.info.get("duration")  # all that is left of equal frames in a webp
        if wanted and (still or sum(wanted) == sum(shown)):
            fps, times = note.fps or 0.0, np.arange(len(wanted)) / (note.fps or 0.0)
            begin = list(accumulate(wanted[:-1], initial=0))
            self._stored = (np.searchsorted(starts, begin, side="right") - 1).tolist()
            duration = len(wanted) / fps
        else:
            fps, times, duration = 1000.0 * count / sum(shown), np.array(starts) / 1000.0, sum(shown) / 1000.0
            self._stored = list(range(count))
        super().__init__(path, times, duration, fps, (image.height, image.width), note.channels or 3, note.meta)

    def _decode(self, numbers: Sequence[int], grey: bool) -> Frames:
        with _opened(self.path) as image:
            found: Frames = {}
            for number in numbers:
                image.seek(self._stored[number])
                found[number] = np.asarray(_flat(image, grey))
            return found


def is_animation(start: bytes) -> bool:
    """Whether a file that begins with these 16 bytes is of a format that is read here."""
    return start.startswith((b"GIF87a", b"GIF89a")) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def probe(path: Path) -> AnimationClip:
    """Look into an animated picture; a still one is a clip of one frame.

    Raises:
        MediaError: it is damaged, cut short or too large.
    """
    with _opened(path) as image:
        return AnimationClip(path, image)


def durations(fps: float, num_frames: int, extension: str) -> list[int]:
    """How long each frame is stored to last (ms) so that a clip runs at this rate, as exactly as the format can say."""
    step = STEP[extension]
    ends = [round(1000.0 / step * number / fps) * step for number in range(num_frames + 1)]
    return [max(end - begin, SHORTEST[extension]) for begin, end in pairwise(ends)]


def exif_comment(text: str) -> bytes:
    """An EXIF block with a comment."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[EXIF_COMMENT] = EXIF_ASCII + text.encode("ascii")
    return exif.tobytes()


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file with its header read.

    Not through `Image.open`, which only warns of pictures that are refused here.
    """
    with path.open("rb") as file:
        try:
            start = file.read(16)
            if _is_cut_short(file, start):
                raise MediaError(f"{str(path)!r} is cut short: its end is missing.")
            file.seek(0)
            yield Image.OPEN["WEBP" if start.startswith(b"RIFF") else "GIF"][0](file, "")
        except MediaError:
            raise
        except Exception as error:  # given damaged data, decoders raise nearly anything
            raise MediaError(f"Cannot read {str(path)!r}: the animation is damaged or cut short "
                             f"({str(error) or type(error).__name__}).") from error


def _is_cut_short(file: IO[bytes], start: bytes) -> bool:
    """Whether the end is missing, which Pillow overlooks where a frame ends just there."""
    length = file.seek(0, os.SEEK_END)
    if start.startswith(b"RIFF"):
        return 8 + int.from_bytes(start[4:8], "little") > length
    file.seek(-1, os.SEEK_END)
    return file.read(1) not in (b";", b"\0")  # some writers fill up with zeros


def _durations(image: ImageFile.ImageFile, count: int) -> list[int]:
    """How long each frame lasts (ms); all are decoded for it."""
    shown = []
    for number in range(count):
        image.seek(number)
        image.load()
        shown.append(int(image.info.get("duration") or UNTIMED))
    return shown


def _note(image: ImageFile.ImageFile) -> Note:
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        return Note.parsed(comment.decode("ascii", "replace"))
    try:
        comment = image.getexif().get_ifd(EXIF_IFD).get(EXIF_COMMENT)
    except Exception:  # frames beside a damaged EXIF block are still frames
        return Note()
    text = comment.removeprefix(EXIF_ASCII).decode("ascii", "replace") if isinstance(comment, bytes) else ""
    return Note.parsed(text)


def _flat(image: Image.Image, grey: bool) -> Image.Image:
    """The frame without palette or transparency, which is laid on white."""
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), over)
    return image.convert("L" if grey else "RGB")
