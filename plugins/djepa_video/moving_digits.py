"""Handwritten digits that glide: a video dataset that needs no download, because it is made of scans that ship."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import UnknownNameError, UsageError
from djepa.plugins import host
from djepa.tokens import Sample

SCAN = 8         # height and width of a scan in pixels
PAPER = -1.0     # what the canvas is made of
STRIDE = 40507   # prime, near 2^16 / golden ratio: its multiples spread evenly over the places of a canvas

DIRECTIONS: Mapping[str, tuple[int, int]] = {  # (y, x) on a screen, where y grows downwards
    "right": (0, 1), "down-right": (1, 1), "down": (1, 0), "down-left": (1, -1),
    "left": (0, -1), "up-left": (-1, -1), "up": (-1, 0), "up-right": (-1, 1),
}


class MovingDigits(Dataset):
    """Clips of one digit that moves evenly over a canvas without borders: what leaves on one side comes back on the other.

    Stream "video", 1 x num_frames x size x size, with conditions "digit" ("0".."9") and "direction" (`DIRECTIONS`). An example
    is a scan and a direction; where the digit starts is drawn, or fixed by the example's number when nothing is drawn.

    Args:
        split: of the scans: "train", "heldout" or "all".
        num_frames: length of a clip.
        size: height and width of the canvas in pixels, at least the 8 of a scan.
        speed: pixels per frame along each axis that the digit moves on; below half the canvas, beyond which a step in one
            direction looks like one in the other.
        fps: frames per second that the clip claims.
        lattice: a digit starts at multiples of so many pixels along each axis. Where tokens are blocks of just that size, and
            the motion from one to the next is a multiple of it, a digit is always cut in the same way; with 1 it is cut in
            every way there is, which is far harder to learn.

    Raises:
        UsageError: the scans are not installed, or an option is out of its range.
    """

    def __init__(self, *, split: Literal["train", "heldout", "all"] = "train", num_frames: int = 8, size: int = 16,
                 speed: int = 1, fps: float = 8.0, lattice: int = 1) -> None:
        for name, value, least in (("num_frames", num_frames, 1), ("size", size, SCAN), ("speed", speed, 1),
                                   ("lattice", lattice, 1)):
            if value < least:
                raise UsageError(f"MovingDigits: {name}={value} is too small; it is a whole number, at least {least}.")
        if 2 * speed >= size:
            raise UsageError(f"MovingDigits: at speed={speed} a canvas of {size} pixels has no direction; the speed must be "
                             f"below {size / 2:g}.")
        if not (fps > 0 and math.isfinite(fps)):
            raise UsageError(f"MovingDigits: fps={fps} is not a number of frames per second above 0.")
        if size % lattice:
            raise UsageError(f"MovingDigits: lattice={lattice} does not divide the canvas of {size} pixels.")
        self._scans = _scans(split)
        self._num_frames, self._size, self._speed, self._fps, self._lattice = num_frames, size, speed, float(fps), lattice

    def __len__(self) -> int:
        return len(self._scans) * len(DIRECTIONS)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Scan `index // 8` moving in direction `index % 8`; only its start is drawn from `rng`."""
        return self.view(index, drawn_view(rng, self.num_views()))

    def num_views(self) -> int:
        """As many as there are places to start from."""
        return (self._size // self._lattice) ** 2

    def view(self, index: int, number: int) -> Example:
        """Example `index`, started so many places, in reading order, after the start that is its own."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no example {index}: MovingDigits has {len(self)}.")
        scan = self._scans.load(index // len(DIRECTIONS))
        direction = list(DIRECTIONS)[index % len(DIRECTIONS)]
        row, column = divmod((index * STRIDE + number) % self.num_views(), self._size // self._lattice)
        start = (row * self._lattice, column * self._lattice)
        clip = glide(scan.samples["image"].data[0], start, DIRECTIONS[direction], self._num_frames, self._size, self._speed)
        return Example({"video": Sample(clip, {"fps": self._fps}, "video")},
                       {"digit": scan.conditions["label"], "direction": direction})

    def classes(self) -> Mapping[str, list[str]]:
        """The ten digits and the eight directions."""
        return {"digit": self._scans.classes()["label"], "direction": list(DIRECTIONS)}

    def fingerprint(self) -> str:
        """Of the scans and the options: all that the clips are made of."""
        options = (self._num_frames, self._size, self._speed, self._fps, self._lattice)
        return hashlib.sha256(f"{self._scans.fingerprint()} {options}".encode()).hexdigest()


def glide(picture: torch.Tensor, start: tuple[int, int], step: tuple[int, int], num_frames: int, size: int, speed: int
          ) -> torch.Tensor:
    """A picture (h, w) moving over a square canvas that wraps around; (1, num_frames, size, size).

    Args:
        picture: what moves, at most `size` high and wide.
        start: (y, x) of its upper left corner in the first frame.
        step: (y, x) of the direction, each -1, 0 or 1.
        num_frames, size, speed: as in `MovingDigits`.
    """
    canvas = torch.full((size, size), PAPER)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    shifts = [(start[0] + speed * step[0] * frame, start[1] + speed * step[1] * frame) for frame in range(num_frames)]
    return torch.stack([canvas.roll(shift, dims=(0, 1)) for shift in shifts])[None]


def _scans(split: str) -> Dataset:
    """The scans of a split, from whoever offers them."""
    try:
        kind = host().get("dataset", "digits")
    except UnknownNameError as error:
        raise UsageError("MovingDigits is made of the scans of the dataset 'digits', which no loaded plugin offers; "
                         "`djepa plugins list` shows whether the plugin 'image' is switched off or broken.") from error
    return kind(split=split)
