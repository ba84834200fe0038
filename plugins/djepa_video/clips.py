"""Clips of video files as a dataset: which part of a file is shown, and how its frames come to the size asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from djepa.covering import covering_part, scaled
from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import MediaError, UsageError
from djepa.folder import Labelled, fingerprint
from djepa.tokens import Sample
from djepa_video.clip import Clip, to_floats
from djepa_video.reading import frames_of, probe
from djepa_video.writing import check_fps

CHOICES = {"channels": (1, 3), "crop": ("center", "random"), "clip": ("center", "random"), "short": ("error", "loop"),
           "decoder": ("pyav", "decord")}


@dataclass(frozen=True)
class ClipOptions:
    """What datasets of video files have in common.

    Attributes:
        size: (height, width) in pixels, or one number for both. Frames are scaled, with antialiasing, until they just cover
            this size, and what sticks out is cropped.
        num_frames: of a clip.
        fps: of a clip: the frames shown nearest to its times are taken. None for successive frames of the file, whatever its
            rate.
        channels: 1 for grey, 3 for RGB, whatever the files are.
        flip: mirror left and right, at random.
        crop: "center", or "random" for a random place along the side that sticks out.
        clip: the part of a longer file: "random", or always its "center".
        short: what happens to a file that is shorter than a clip: an "error", or it starts again at its end ("loop").
        decoder: "pyav" or "decord"; see `djepa_video.reading.frames_of`.

    Raises:
        UsageError: a setting that cannot be.
    """

    size: int | Sequence[int]
    num_frames: int
    fps: float | None
    channels: Literal[1, 3]
    flip: bool
    crop: Literal["center", "random"]
    clip: Literal["center", "random"]
    short: Literal["error", "loop"]
    decoder: Literal["pyav", "decord"]

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} must be {' or '.join(map(repr, choices))}; got {getattr(self, name)!r}.")
        if not _is_count(self.num_frames):
            raise UsageError(f"num_frames must be a whole number, at least 1; got {self.num_frames!r}.")
        if self.fps is not None:
            check_fps(self.fps)
        sides = list(self.size) if isinstance(self.size, Sequence) else [self.size, self.size]
        if len(sides) != 2 or not all(map(_is_count, sides)):
            raise UsageError(f"size must be a number of pixels, or (height, width), at least 1 each; got {self.size!r}.")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])


class Clips(Dataset):
    """Clips of files, all of one size and length; stream "video", condition "label" where there are classes.

    Args:
        root: the folder of the files.
        classes: their names, in the order of the numbers.
        files: each with the number of its class.
        options: which part of a file is shown, and how.
    """

    def __init__(self, root: Path, classes: Sequence[str], files: Sequence[Labelled], options: ClipOptions) -> None:
        self.root, self.options = root, options
        self._classes, self._files = list(classes), list(files)

    def __len__(self) -> int:
        return len(self._files)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """A clip of file `index`: the middle of it, unless `rng` is given; decodes no frames after it.

        Raises:
            MediaError: the file is gone, damaged, too large or too short; the message names it.
        """
        start = 0.5 if rng is None or self.options.clip == "center" else rng.random()
        place = 0.5 if rng is None or self.options.crop == "center" else rng.random()
        return self._shown(index, start, place, drawn_view(rng, 2 if self.options.flip else 1) == 1)

    def described(self, index: int) -> str:
        """Its file."""
        return repr(self._files[index][0])

    def num_views(self) -> int | None:
        """Plain and, where it flips, mirrored; random parts are too many to count."""
        return None if "random" in (self.options.clip, self.options.crop) else 2 if self.options.flip else 1

    def view(self, index: int, number: int) -> Example:
        """The middle of file `index`, as it is (0) or mirrored (1)."""
        return self._shown(index, 0.5, 0.5, mirrored=number == 1)

    def _shown(self, index: int, start: float, place: float, mirrored: bool) -> Example:
        file, label = self._files[index]
        options = self.options
        clip = probe(Path(file))
        frames = frames_of(clip, part(clip, options, start), options.channels, options.decoder)
        data = cover(frames, options.sides, place)
        sample = Sample(data.flip(-1) if mirrored else data, {"fps": float(options.fps or clip.fps)}, "video")
        return Example({"video": sample}, {} if label is None else {"label": self._classes[label]})

    def fingerprint(self) -> str:
        """Of the names of all files, their sizes and when they were changed last.

        Raises:
            MediaError: a file is gone.
        """
        return fingerprint(self.root, self._files)

    def classes(self) -> Mapping[str, list[str]]:
        """The names of the classes; nothing where there are none."""
        return {"label": list(self._classes)} if self._classes else {}


def part(clip: Clip, options: ClipOptions, start: float) -> list[int]:
    """The numbers of the frames that are shown; `start` in [0, 1] says where in the room there is.

    Raises:
        MediaError: the file is shorter than a clip, and that is an error.
    """
    fps = options.fps or clip.fps
    ticks = np.arange(options.num_frames)
    room = clip.num_frames - options.num_frames if options.fps is None else clip.duration - options.num_frames / fps
    if room < (0 if options.fps is None else -0.5 / clip.fps):  # of the last frame, half of it may be missing
        return _looped(clip, options, ticks)
    if options.fps is None:
        return (min(int(start * (room + 1)), int(room)) + ticks).tolist()
    first = clip.times[clip.nearest(np.array([start * max(room, 0.0)]))]  # on a frame, so that frames of the file's rate agree
    return clip.nearest(first + ticks / fps)


def _looped(clip: Clip, options: ClipOptions, ticks: np.ndarray) -> list[int]:
    if options.short == "error":
        asked = f"{options.num_frames} frames" + (f" at {options.fps:g} per second" if options.fps else "")
        raise MediaError(f"{str(clip.path)!r} is too short: it has {clip.num_frames} frames in {clip.duration:.2f} s, and a "
                         f"clip takes {asked}. Leave it out, ask for shorter clips, or set short=loop.")
    return (ticks % clip.num_frames).tolist() if options.fps is None else clip.nearest(ticks / options.fps % clip.duration)


def cover(frames: UInt8[Tensor, "t h w c"], size: tuple[int, int], place: float) -> Float[Tensor, "c t y x"]:
    """Frames cropped and scaled to `size`, in [-1, 1]; `place` in [0, 1] says where along the side that sticks out."""
    rows, columns = covering_part(frames.shape[1:3], size, (place, place))
    return scaled(to_floats(frames[:, rows, columns]), size)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
