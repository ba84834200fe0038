"""Frames out of video containers (mp4, mov, mkv, webm, avi, ...): exactly those asked for, or an error.

A file is first read through without decoding anything: that tells how many frames there are and when each is shown, whatever
its header claims. Frames are then found by their presentation time, decoded from the key frame before them. Decoders conceal
damage by default: they repeat or smear what they have. Here every error they notice counts. Where frames do not come up, the
file is decoded once more from its beginning before it is refused, since some healthy ones (open groups of pictures, intra
refresh, streams without an index) can only be read that way.

Files that do not say when frames are shown (AVI with B-frames) are counted by decoding them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from djepa.errors import MediaError
from djepa_video.clip import Clip, Frames, check_size
from djepa_video.note import Note

# Demuxers that read the one file they are given. FFmpeg has others, which open what a playlist names.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
GREY = ("gray", "ya", "mono")  # how the names of pixel formats without colour begin
RATE_TOLERANCE = 0.02          # relative: a declared frame rate further than this from the measured one is not believed


@dataclass(frozen=True)
class Entry:
    """A frame as it lies in the file; times in units of the stream's time base.

    Attributes:
        pts: when it is shown.
        dts: when it is to be decoded.
        duration: how long it is shown; 0 where the file does not say.
        is_key: it can be decoded without others.
        is_shown: it is not only there for others to be decoded.
    """

    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_shown: bool


class ContainerClip(Clip):
    """A clip that FFmpeg reads.

    Attributes:
        format, codec: FFmpeg's names of what it is stored in and as.
        entries: its frames, in the order of decoding.
        crop: height and width of what is shown of a frame, from its upper left corner.
    """

    def __init__(self, path: Path, stream: VideoStream, entries: Sequence[Entry], note: Note) -> None:
        context, base = stream.codec_context, float(stream.time_base or Fraction(1, 90_000))
        size = context.height, context.width
        check_size(path, *size, num_frames=1)
        self.format, self.codec, self.entries = stream.container.format.name, context.name, entries
        self._pts = _presentation_times(self.format, context.has_b_frames, entries)  # sorted; empty: frames are counted
        declared = float(stream.average_rate or stream.guessed_rate or 25)
        times = (np.array(self._pts) - self._pts[0]) * base if self._pts else np.arange(_count(path)) / declared
        fps = _believed_rate(declared, times)
        last = entries[-1].duration * base if self._pts else 0.0
        grey = context.format is not None and context.format.name.startswith(GREY)
        super().__init__(path, times, float(times[-1]) + (last or 1.0 / fps), note.rate(fps), size,
                         note.channels or (1 if grey else 3), note.meta)
        self.crop = note.crop(*size)

    def _decode(self, numbers: Sequence[int], grey: bool) -> Frames:
        frames: Frames = {}
        if self._pts:
            try:
                frames = self._from_key_frames(numbers, grey)
            except (av.FFmpegError, ValueError):
                frames = {}  # a second try, from the beginning
        if len(frames) < len(numbers):
            frames = self._from_start(numbers, grey)
        return frames

    def _from_key_frames(self, numbers: Sequence[int], grey: bool) -> Frames:
        """As many of the frames as come up after the key frames before them."""
        number_of = self._numbers()
        found: Frames = {}
        with _opened(self.path) as (container, stream):
            for key, run in self._runs(numbers):
                for frame in _decoded_from(container, stream, key):
                    number = number_of.get(frame.pts, -1)
                    if number in run:
                        found[number] = self._pixels(frame, grey)
                    if number >= run[-1]:
                        break
        return found

    def _runs(self, numbers: Sequence[int]) -> list[tuple[Entry, list[int]]]:
        """Frames to decode in one go, each time with the key frame to begin at: a new one where that skips any frames."""
        keys = sorted((entry for entry in self.entries if entry.is_key), key=_pts)
        key_numbers = np.searchsorted(self._pts, [_pts(key) for key in keys])
        runs: list[tuple[Entry, list[int]]] = []
        for number in numbers:
            key = int(np.searchsorted(key_numbers, number, side="right")) - 1
            if not runs or key_numbers[key] > runs[-1][1][-1] + 1:
                runs.append((keys[key], []))
            runs[-1][1].append(number)
        return runs

    def _from_start(self, numbers: Sequence[int], grey: bool) -> Frames:
        """The frames, with all before them decoded too."""
        number_of, wanted, found = self._numbers(), set(numbers), Frames()
        with _damage(self.path), _opened(self.path) as (container, stream):
            for count, frame in enumerate(_decoded(container.demux(stream))):
                number = number_of.get(frame.pts, -1) if self._pts else count
                if number in wanted:
                    found[number] = self._pixels(frame, grey)
                    if len(found) == len(wanted):
                        return found
        missing = sorted(wanted - found.keys())
        raise MediaError(f"Cannot read {str(self.path)!r}: of its {self.num_frames} frames, number {missing[0]} cannot be "
                         f"decoded; it is damaged or cut short.")

    def _numbers(self) -> dict[int | None, int]:
        """The number of the frame that is shown at a time."""
        return {pts: number for number, pts in enumerate(self._pts)}

    def _pixels(self, frame: VideoFrame, grey: bool) -> np.ndarray:
        pixels = frame.to_ndarray(format="gray" if grey else "rgb24")[:self.crop[0], :self.crop[1]]
        return np.rot90(pixels, frame.rotation // 90) if frame.rotation else pixels


def probe(path: Path) -> ContainerClip:
    """Look into a video file without decoding it.

    Raises:
        MediaError: it is no video of a known kind, has no frames, or is damaged or cut short as far as can be told.
    """
    with _damage(path), _opened(path) as (container, stream):
        note = Note.parsed(container.metadata.get("comment", ""))
        return ContainerClip(path, stream, _entries(container, stream, path), note)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What FFmpeg raises, as an error that names the file."""
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"Cannot read {str(path)!r}: it is no video of a known kind, damaged or cut short "
                         f"({reason}).") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream."""
    # An absolute path: FFmpeg takes "name:" at the beginning for a protocol.
    with av.open(os.path.abspath(path), metadata_errors="replace", options={"format_whitelist": FORMATS}) as container:
        # The cover of a sound file is no video.
        streams = [stream for stream in container.streams.video
                   if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
            raise MediaError(f"{str(path)!r} holds no video that can be decoded; it has streams of: {kinds}.")
        stream = streams[0]
        stream.codec_context.thread_count = 1  # many clips are read at once, by workers
        stream.codec_context.options = {"err_detect": "explode"}  # raise where a decoder would conceal
        yield container, stream


def _entries(container: InputContainer, stream: VideoStream, path: Path) -> list[Entry]:
    """All frames that can be decoded: those from the first key frame on."""
    entries = []
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError(f"{str(path)!r} is cut short or damaged: frame {len(entries)} is not all there.")
        if packet.size:
            entries.append(Entry(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, not packet.is_discard))
    size = path.stat().st_size
    if beyond := sum(entry.pos + entry.size > size for entry in stream.index_entries):
        raise MediaError(f"{str(path)!r} is cut short: {beyond} of its frames lie beyond the end of the file.")
    first = next((index for index, entry in enumerate(entries) if entry.is_key), len(entries))
    entries = [entry for entry in entries[first:] if not _is_leading(entry, entries[first])]
    if not any(entry.is_shown for entry in entries):
        raise MediaError(f"{str(path)!r} holds a video without frames.")
    return entries


def _presentation_times(container: str, has_b_frames: bool, entries: Sequence[Entry]) -> list[int]:
    """When the frames are shown, sorted; nothing where the file does not say."""
    times = {entry.pts for entry in entries if entry.is_shown and entry.pts is not None}
    told = len(times) == sum(entry.is_shown for entry in entries) and None not in {entry.pts for entry in entries}
    return sorted(times) if told and not (container == "avi" and has_b_frames) else []


def _count(path: Path) -> int:
    """How many frames come out of a file."""
    with _opened(path) as (container, stream):
        count = sum(1 for _ in _decoded(container.demux(stream)))
    if not count:
        raise MediaError(f"Cannot read {str(path)!r}: none of its frames can be decoded.")
    return count


def _believed_rate(declared: float, times: np.ndarray) -> float:
    """The declared frame rate, unless the times of the frames say another."""
    if len(times) < 2:
        return declared
    measured = (len(times) - 1) / float(times[-1])
    return declared if abs(measured / declared - 1.0) < RATE_TOLERANCE else measured


def _decoded_from(container: InputContainer, stream: VideoStream, key: Entry) -> Iterator[VideoFrame]:
    """Frames from a key frame on; none where the file cannot be entered there."""
    for target in (key.pts, key.dts):  # some formats are searched by the one, some by the other
        if target is None:
            continue
        container.seek(target, stream=stream)
        packets = container.demux(stream)
        landed = next(packets)
        if landed.is_keyframe and landed.pts is not None and landed.pts <= _pts(key):
            yield from landed.decode()
            yield from _decoded(packets, landed)
            return


def _decoded(packets: Iterator[Packet[VideoStream]], key: Packet[VideoStream] | None = None) -> Iterator[VideoFrame]:
    """Frames from a key frame on, or from the first one that comes up."""
    for packet in packets:
        if key is None and packet.is_keyframe:
            key = packet
        # What is shown before the key frame but decoded after it needs frames that are not there.
        if not packet.size or (key is not None and not _is_leading(packet, key)):
            yield from packet.decode()


def _is_leading(frame: Entry | Packet[VideoStream], key: Entry | Packet[VideoStream]) -> bool:
    return frame.pts is not None and key.pts is not None and frame.pts < key.pts


def _pts(entry: Entry) -> int:
    assert entry.pts is not None  # else frames are counted
    return entry.pts
