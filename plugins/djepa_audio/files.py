"""Reading sound files.

A file is recognised by its content, never by its name. Parts are read without decoding all that lies before them (except of
Ogg Vorbis, in which libsndfile's own seeking misses by up to a block). What comes out is float32 in [-1, 1]; louder values,
which lossy and floating-point files can hold, are clipped. A file that holds less than its header says is refused, where
libsndfile would return what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import MediaError, UsageError
from djepa.modality import require_file
from djepa_audio import mpeg, riff
from djepa_audio.sound import resample, with_channels

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
MAX_VALUES = 2**28     # decoded at once, all channels together: a gibibyte of float32, 100 minutes of mono at 44.1 kHz
MP3_FRAME = 1152       # samples, half of them below 32 kHz; many encoders count up to two more of these than they write
MP3_MEMORY = 16 * MP3_FRAME  # samples before a frame from which it may borrow bits
MAX_OGG_PAGE = 65_307  # bytes
BLOCK = 1 << 16        # samples decoded at a time on the way to others

NOTE_KEY = "djepa"     # of the JSON in the comment


class Recording:
    """A sound file that is open for reading; made by `opened`.

    Attributes:
        sample_rate: in Hz.
        num_frames: its length in samples of one channel.
        num_channels: of the file, which may be more than two.
        meta: what the file was written with, if by `write`, and the sample rate.
    """

    def __init__(self, path: Path, sound: soundfile.SoundFile, note: str) -> None:
        self._path, self._sound = path, sound
        self.sample_rate, self.num_frames, self.num_channels = sound.samplerate, sound.frames, sound.channels
        self.meta: dict[str, Any] = {**_parsed(note), "sample_rate": sound.samplerate}

    def read(self, channels: int | None = None, sample_rate: int | None = None, start: int = 0, num_frames: int | None = None
             ) -> Float[Tensor, "c n"]:
        """A part of the sound, all of it by default.

        Args:
            channels: 1 for their mean, 2 for stereo (a mono file twice), None for those of the file.
            sample_rate: to resample to, in Hz; None for that of the file.
            start, num_frames: the part, in samples of the file; it begins inside, and what lies beyond its end is left out.

        Raises:
            MediaError: the file is damaged or cut short, holds values that are not numbers, has channels or a rate that
                cannot be converted, or the part is too long.
        """
        assert 0 <= start < self.num_frames
        count = self.num_frames - start if num_frames is None else min(num_frames, self.num_frames - start)
        if count * self.num_channels > MAX_VALUES:
            raise MediaError(f"{str(self._path)!r} is too long: {count:,} samples of {self.num_channels} channels, and no more "
                             f"than {MAX_VALUES:,} values are decoded at once. Cut it into parts first.")
        with _damage(self._path):
            values = self._values(start, count)
        if len(values) < count - self._slack or not len(values):
            raise MediaError(f"{str(self._path)!r} is cut short: its header says {self.num_frames:,} samples, and it ends "
                             f"after {start + len(values):,}.")
        data = torch.from_numpy(np.ascontiguousarray(values.T))
        data = torch.nn.functional.pad(data, (0, count - len(values)))
        return self._converted(data, channels, sample_rate or self.sample_rate)

    @property
    def _slack(self) -> int:
        """How many samples may be missing at the end, for silence to take their place."""
        return 2 * (MP3_FRAME if self.sample_rate >= 32000 else MP3_FRAME // 2) if self._sound.format == "MP3" else 0

    def _values(self, start: int, count: int) -> np.ndarray:
        """Samples of the file, (n, c); decoded from a place before them where libsndfile would not land on them exactly."""
        before = min(start, MP3_MEMORY) if self._sound.subtype == "MPEG_LAYER_III" else 0
        if self._sound.subtype == "VORBIS":
            self._sound.seek(0)
            for first in range(0, start, BLOCK):
                self._sound.read(min(BLOCK, start - first), dtype="float32")
        else:
            self._sound.seek(start - before)
        # In one go: between two calls the decoder forgets what it needs of the frames before.
        return self._sound.read(before + count, dtype="float32", always_2d=True)[before:]

    def _converted(self, data: Tensor, channels: int | None, sample_rate: int) -> Tensor:
        if not bool(torch.isfinite(data).all()):
            raise MediaError(f"{str(self._path)!r} holds {int((~torch.isfinite(data)).sum()):,} values that are not numbers "
                             f"(NaN or infinite).")
        if channels is None and len(data) > 2:
            raise MediaError(f"{str(self._path)!r} has {len(data)} channels; sounds have 1 or 2.")
        try:
            data = with_channels(data.clamp_(-1.0, 1.0), channels or len(data))
            return resample(data, self.sample_rate, sample_rate)
        except UsageError as error:
            raise MediaError(f"Cannot convert {str(self._path)!r}. {error}") from error


@contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """A sound file with its header read, for as long as the `with` block runs.

    Raises:
        MediaError: the file is missing, empty, no sound, damaged or cut short.
    """
    require_file(path)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise MediaError(f"Cannot open {str(path)!r}: {error.strerror}.") from error
    with file:
        kind = _recognised(file, path)
        with _damage(path):
            if (kind == "WAV" and riff.is_cut_short(file)) or (kind == "OGG" and _ends_within_a_page(file)):
                raise MediaError("it ends before its header says")
            if kind == "MP3" and not mpeg.begins_with_a_frame(file):
                raise MediaError("it does not begin with a whole frame")
            note = riff.comment(file) if kind == "WAV" else None
            file.seek(0)
            # By its descriptor: a name would let libsndfile guess by the extension.
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        with sound:
            _check_length(sound.frames, path)
            yield Recording(path, sound, sound.comment if note is None else note)


def read(path: Path, channels: int | None = None) -> tuple[Float[Tensor, "c n"], dict[str, Any]]:
    """The waveform of a sound file, float32 in [-1, 1], and its metadata, `sample_rate` among them.

    Arguments and errors are those of `opened` and `Recording.read`.
    """
    with opened(path) as recording:
        return recording.read(channels), recording.meta


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever a decoder raises on damaged data, as one error that names the file."""
    try:
        yield
    except Exception as error:
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise MediaError(f"Cannot read {str(path)!r}: the sound is damaged or cut short ({reason or type(error).__name__})."
                         ) from error


def _recognised(file: IO[bytes], path: Path) -> str:
    start = file.read(16)
    if start[:4] in (b"RIFF", b"RF64") and start[8:12] == b"WAVE":
        return "WAV"
    if start[:4] in (b"fLaC", b"OggS"):
        return "FLAC" if start[:4] == b"fLaC" else "OGG"
    if start[:3] == b"ID3" or mpeg.frame_length(start) is not None:
        return "MP3"
    raise MediaError(f"{str(path)!r} is no sound of a known kind ({', '.join(FORMATS)}): it begins with {start!r}.")


def _ends_within_a_page(file: IO[bytes]) -> bool:
    """Whether an Ogg file is cut short: its last page says that it is longer than what is there."""
    file.seek(max(0, file.seek(0, 2) - MAX_OGG_PAGE))
    end = file.read(MAX_OGG_PAGE)
    page = end[end.rfind(b"OggS"):]
    segments = page[27:27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(segments)


def _check_length(num_frames: int, path: Path) -> None:
    if num_frames >= 2**62:  # a FLAC file that was written into a pipe
        raise MediaError(f"The header of {str(path)!r} does not say how long the sound is. Write it to a file anew, without a "
                         f"pipe: ffmpeg -i FILE NEW.flac")
    if num_frames < 1:
        raise MediaError(f"{str(path)!r} holds no sound: 0 samples.")


def _parsed(note: str) -> dict[str, Any]:
    """The metadata in a comment; none in someone else's."""
    try:
        value = json.loads(note)
    except (ValueError, RecursionError):
        return {}
    meta = value.get(NOTE_KEY) if isinstance(value, dict) else None
    return meta if isinstance(meta, dict) else {}
