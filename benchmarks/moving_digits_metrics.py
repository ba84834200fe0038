"""The arithmetic of the moving-digits protocol: what a clip shows, where it moves, and whether it goes on.

A clip is an array (t, y, x) of levels, 0 for paper to 16 for ink, kept continuous; its canvas wraps around. No network judges:

* what a frame shows is read where a training scan fits best: of all scans at all places of the canvas, the one that leaves the
  smallest squared difference from the whole frame says where to look, and a classifier of scans reads the 8x8 pixels there;
* where a frame moves is the peak of the phase correlation with the next one, exact for a picture that is shifted whole;
* a frame counts as a clean digit by that smallest difference, against what held-out scans leave;
* what is left after undoing the motion says how much the digit changes while it moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from digits_metrics import Protocol
from djepa_video.moving_digits import DIRECTIONS, SCAN

SECTOR = math.radians(22.5)  # half of what each of the eight directions covers


def places(frame: Float[Array, "y x"]) -> Float[Array, "p 64"]:
    """What a scan-sized window shows at each place of the canvas, wrapped around; places in reading order."""
    height, width = frame.shape
    around = np.pad(frame, ((0, SCAN - 1), (0, SCAN - 1)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(around, (SCAN, SCAN))
    return windows.reshape(height * width, SCAN * SCAN)


def find_scan(frame: Float[Array, "y x"], scans: Float[Array, "n 64"]) -> tuple[Float[Array, "64"], float]:
    """The window of a frame in which a scan fits best, and the Euclidean distance of the whole frame to that scan there.

    Ink outside of the window counts too: the squared distance is |frame|^2 - 2 (window . scan - |scan|^2 / 2).
    """
    windows = places(frame)
    single = scans.astype(np.float32)  # a fourth of the time; a near tie may go either way
    agreement = windows.astype(np.float32) @ single.T - 0.5 * (single**2).sum(axis=1)
    place, number = np.unravel_index(int(agreement.argmax()), agreement.shape)
    window, scan = windows[place], scans[number]
    outside = (frame**2).sum() - (window**2).sum()
    return window, math.sqrt(max(float(((window - scan) ** 2).sum() + outside), 0.0))


def shift_between(first: Float[Array, "y x"], second: Float[Array, "y x"]) -> Int[Array, "2"]:
    """The (y, x) shift that turns one frame into the next, by phase correlation; each within half the canvas.

    (0, 0) also for frames without any contrast, which show no motion.
    """
    cross = np.conj(np.fft.fft2(first)) * np.fft.fft2(second)
    strength = np.abs(cross)
    if strength.flat[1:].max() < 1e-9:
        return np.zeros(2, dtype=int)
    # Frequencies that a frame hardly holds have a phase of nothing but noise: they count less, not as much as the others.
    surface = np.fft.ifft2(cross / (strength + 0.1 * strength.flat[1:].max())).real
    peak = np.array(np.unravel_index(int(surface.argmax()), surface.shape))
    half = np.array(first.shape) // 2
    return (peak + half) % first.shape - half


def shifts(clip: Float[Array, "t y x"]) -> Int[Array, "s 2"]:
    """The (y, x) shift from each frame to the next."""
    return np.array([shift_between(first, second) for first, second in pairwise(clip)]).reshape(-1, 2)


def points(moves: Int[Array, "s 2"], direction: str) -> Array:
    """True for the shifts that point in a direction: within 22.5 degrees, and not zero."""
    wanted = np.array(DIRECTIONS[direction], dtype=np.float64)
    lengths = np.linalg.norm(moves, axis=1) * np.linalg.norm(wanted)
    return (lengths > 0) & (moves @ wanted > math.cos(SECTOR) * lengths)


def changes(clip: Float[Array, "t y x"], moves: Int[Array, "s 2"]) -> Float[Array, "s"]:
    """Euclidean distance of each frame to the one before it, moved along."""
    moved = [np.roll(frame, tuple(move), axis=(0, 1)) for frame, move in zip(clip[:-1], moves, strict=True)]
    return np.linalg.norm((clip[1:] - np.array(moved)).reshape(len(moves), -1), axis=1)


@dataclass(frozen=True)
class ClipFigures:
    """What the judge says about one clip.

    Attributes:
        frames_right: share of frames read as the digit asked for, 0 to 1.
        moves_right: share of the shifts between frames that point in the direction asked for.
        fit: median distance of a frame to the training scan that fits best, in levels.
        change: median distance of a frame to the one before it, moved along, in levels.
    """

    frames_right: float
    moves_right: float
    fit: float
    change: float

    @property
    def right_digit(self) -> bool:
        """Most frames show the digit."""
        return self.frames_right > 0.5

    @property
    def right_direction(self) -> bool:
        """Most shifts point the right way."""
        return self.moves_right > 0.5


class Judge:
    """Reads clips.

    Args:
        protocol: of the scans: its training scans are what is looked for, its classifier reads what is found.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._scans, self._reader = protocol.training, protocol.reader

    def figures(self, clip: Float[Array, "t y x"], digit: int, direction: str) -> ClipFigures:
        """Of a clip that was asked to show `digit` moving in `direction`."""
        found = [find_scan(frame, self._scans) for frame in clip]
        read = self._reader.predict(np.array([window for window, _ in found]))
        moves = shifts(clip)
        return ClipFigures(
            frames_right=float((read == digit).mean()),
            moves_right=float(points(moves, direction).mean()),
            fit=float(np.median([distance for _, distance in found])),
            change=float(np.median(changes(clip, moves))),
        )


@dataclass(frozen=True)
class Continuation:
    """Whether new frames go on as the given ones.

    Attributes:
        moves_right: share of the shifts into new frames, that over the seam included, that point in the clip's direction.
        seam: mean absolute difference between the last given and the first new frame, in levels.
        usual: the 95th percentile of that difference between all other consecutive frames of the clip.
    """

    moves_right: float
    seam: float
    usual: float

    @property
    def right_direction(self) -> bool:
        """Most shifts point the right way."""
        return self.moves_right > 0.5

    @property
    def smooth(self) -> bool:
        """The seam is no larger than other steps of the clip; a hundredth of a level is rounding."""
        return self.seam <= self.usual + 0.01


def continuation(clip: Float[Array, "t y x"], num_given: int, direction: str) -> Continuation:
    """How a clip goes on after its first `num_given` frames, moving in `direction`."""
    steps = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2))
    others = np.delete(steps, num_given - 1)
    return Continuation(
        moves_right=float(points(shifts(clip[num_given - 1 :]), direction).mean()),
        seam=float(steps[num_given - 1]),
        usual=float(np.percentile(others, 95)),
    )
