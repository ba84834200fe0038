"""What is known of a clip before its frames are decoded, and which of them a time means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from djepa.errors import MediaError

Frames = dict[int, np.ndarray]   # decoded frames by their number: uint8, (h, w, 3) or (h, w)

MAX_FRAME_PIXELS = 89_478_485    # of one frame: a quarter of a gibibyte of RGB, as for pictures
MAX_CLIP_PIXELS = 2**29          # of all frames that are decoded at once: 10 s of 1080p, 1.5 GiB of RGB, 6 GiB as float32
TIE = 1e-6                       # seconds: where two frames are equally near, rounding must not decide


class Clip(ABC):
    """A video file that was looked into: no file stays open, so that clips can be handed to other processes.

    Attributes:
        path: the file.
        times: when each frame is shown, in seconds after the first one; increasing.
        duration: seconds, the last frame's own included.
        fps: frames per second, on average where the rate varies.
        height, width: of a frame as it is stored; of a file that says it is to be turned upright, frames come turned.
        channels: 1 where the file is stored as grey, or was written as grey by this library; else 3.
        meta: what the file was written with, if by this library, and "fps".
    """

    def __init__(self, path: Path, times: Float[np.ndarray, " n"], duration: float, fps: float, size: tuple[int, int],
                 channels: Literal[1, 3], meta: Mapping[str, Any]) -> None:
        self.path, self.times, self.duration, self.fps = path, times, duration, fps
        self.height, self.width = size
        self.channels: Literal[1, 3] = channels
        self.meta: dict[str, Any] = {**meta, "fps": fps}

    @property
    def num_frames(self) -> int:
        """How many frames there are to decode."""
        return len(self.times)

    def nearest(self, times: Float[np.ndarray, " m"]) -> list[int]:
        """The numbers of the frames shown nearest to these times (seconds); of two equally near, the earlier."""
        between = (self.times[1:] + self.times[:-1]) / 2
        return np.searchsorted(between, np.asarray(times) - TIE).tolist()

    def frames(self, numbers: Iterable[int] | None = None, channels: Literal[1, 3] | None = None) -> UInt8[Tensor, "t h w c"]:
        """Some frames, all of them by default, in the order they are asked for.

        Args:
            numbers: which; a number may come twice.
            channels: 1 for grey, 3 for RGB, None for what the file is.

        Raises:
            MediaError: one of them cannot be decoded, or they are too many for the memory of a usual machine.
        """
        wanted = list(range(self.num_frames) if numbers is None else numbers)
        assert wanted and min(wanted) >= 0 and max(wanted) < self.num_frames
        check_size(self.path, self.height, self.width, len(wanted))
        decoded = self._decode(sorted(set(wanted)), (channels or self.channels) == 1)
        shapes = {frame.shape for frame in decoded.values()}
        if len(shapes) > 1:
            raise MediaError(f"{str(self.path)!r} changes its size on the way: {sorted(shapes)}.")
        stacked = torch.from_numpy(np.stack([decoded[number] for number in wanted]))
        return stacked if stacked.ndim == 4 else stacked[..., None]

    @abstractmethod
    def _decode(self, numbers: Sequence[int], grey: bool) -> Frames:
        """The frames of these numbers, which are sorted.

        Raises:
            MediaError: one of them cannot be decoded.
        """


def check_size(path: Path, height: int, width: int, num_frames: int) -> None:
    """Raise MediaError where frames would not fit into memory; called before any is decoded."""
    pixels = height * width
    if pixels > MAX_FRAME_PIXELS:
        raise MediaError(f"{str(path)!r} is too large: frames of {width}x{height} = {pixels:,} pixels, and no more than "
                         f"{MAX_FRAME_PIXELS:,} are decoded. Make it smaller first.")
    if pixels * num_frames > MAX_CLIP_PIXELS:
        raise MediaError(f"{str(path)!r} is too long: {num_frames} frames of {width}x{height} = {pixels * num_frames:,} "
                         f"pixels, and no more than {MAX_CLIP_PIXELS:,} are decoded at once. Cut it, or make it smaller.")


def to_floats(frames: UInt8[Tensor, "t h w c"]) -> Float[Tensor, "c t h w"]:
    """8-bit frames as a sample's data: float32 in [-1, 1], channels first."""
    data = frames.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return data.div_(127.5).sub_(1.0)
