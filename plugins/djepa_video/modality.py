"""The video modality: clips of one (grey) or three (RGB) channels, without sound."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from djepa.covering import cover, with_channels
from djepa.errors import MediaError
from djepa.modality import Modality, shared_meta
from djepa.tokens import Axis, Sample
from djepa_video.clip import TIE
from djepa_video.reading import read
from djepa_video.sheet import side_by_side
from djepa_video.writing import check_fps, encode, write

FRAMES, SIDE, FPS = 8, 16, 8.0  # of an example


class Video(Modality):
    """Clips, (c, t, h, w) in [-1, 1], of meta["fps"] frames per second."""

    name = "video"
    axes = (Axis("t", "s", "fps"), Axis("y", "px"), Axis("x", "px"))
    extensions = ("mp4", "gif", "webp")
    required_meta = ("fps",)
    sheet_extension = "mp4"

    def load(self, path: Path) -> Sample:
        """Read a whole clip: one channel where the file is stored, or was saved, as grey, otherwise three.

        Raises:
            MediaError: the file is missing, empty, no video, damaged, cut short or too large.
        """
        data, meta = read(Path(path))
        return Sample(data, meta, self.name)

    def fit(self, sample: Sample, shape: Sequence[int], rates: Mapping[str, float], place: Sequence[float]) -> Sample:
        """A part of the clip at another frame rate, its frames scaled until they just cover the size, and cropped.

        Raises:
            MediaError: the clip is too short.
        """
        own = check_fps(sample.meta.get("fps"))
        fps = check_fps(rates.get("fps", own))
        room = sample.shape[1] / own - shape[1] / fps
        if room < -0.5 / own:  # of the last frame, half of it may be missing
            raise MediaError(f"The clip is too short: it lasts {sample.shape[1] / own:.2f} s, and {shape[1]} frames at {fps:g} "
                             f"per second are asked for.")
        first = round(max(room, 0.0) * place[0] * own)  # on a frame
        nearest = (first + torch.arange(shape[1]) * own / fps - 0.5 - TIE).ceil().long()
        frames = with_channels(sample.data[:, nearest.clamp(0, sample.shape[1] - 1)], shape[0])
        return Sample(cover(frames, (shape[2], shape[3]), place[1:]), {**sample.meta, "fps": fps}, self.name)

    def save(self, sample: Sample, path: Path) -> Path:
        """Write a clip, metadata included.

        WebP keeps all 8-bit levels. MP4 is H.264 of high quality with colours at half the resolution, GIF has 256 colours a
        frame; both keep grey (nearly) as it is.

        Raises:
            UsageError: another extension, a tensor that is no clip, no frame rate, or metadata that is not plain.
            StorageError: the disk refused.
        """
        return write(sample.data, Path(path), self.check_extension(Path(path)), sample.meta)

    def example(self, seed: int) -> Sample:
        """Smooth RGB waves that travel: 8 frames of 16x16 pixels at 8 a second, on the levels of an 8-bit file."""
        generator = torch.Generator().manual_seed(seed)
        grid = torch.linspace(0.0, math.pi, SIDE)
        # Per channel, a few low frequencies along each axis; each wave travels a quarter of its length at most.
        frequency = torch.arange(1, 4)
        phase, speed = 2 * math.pi * torch.rand(2, 2, 3, 1, 1, 3, generator=generator)
        moved = phase + speed / 4 * (torch.arange(FRAMES) / FRAMES)[:, None, None]
        rows, columns = torch.cos(grid[:, None] * frequency + moved)
        weights = torch.randn(3, 3, 3, generator=generator)
        waves = torch.einsum("ctyi,cij,ctxj->ctyx", rows, weights, columns)
        levels = ((torch.tanh(waves / 2) + 1.0) * 127.5).round()
        return Sample(levels / 127.5 - 1.0, {"fps": FPS}, self.name)

    def sheet(self, samples: Sequence[Sample], path: Path, columns: int | None = None) -> Path:
        """Write one clip with all samples in a grid, at the highest of their rates; its metadata is what they have in common.

        Raises:
            UsageError: there are no samples, or as `save`.
            StorageError: the disk refused.
        """
        extension = self.check_extension(Path(path), sheet=True)
        data, fps = _together(samples, columns)
        return write(data, Path(path), extension, {**shared_meta(samples), "fps": fps})

    def default_tokenizer(self) -> dict[str, Any]:
        """Patches of 2 frames of 4x4 pixels."""
        return {"kind": "patchify", "patch": {"t": 2, "y": 4, "x": 4}}

    def default_features(self) -> dict[str, Any]:
        """Statistics of the frames."""
        return {"kind": "frame-statistics"}

    def preview(self, sample: Sample) -> dict[str, Any]:
        """A player that runs in a loop, enlarged when the clip is small."""
        return self.preview_sheet([sample])

    def preview_sheet(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """One player with all samples in a grid."""
        data, fps = _together(samples, None)
        source = base64.b64encode(encode(data, "mp4", {"fps": fps})).decode("ascii")
        return {"text/html": f'<video controls loop autoplay muted playsinline src="data:video/mp4;base64,{source}"></video>'}


def _together(samples: Sequence[Sample], columns: int | None) -> tuple[Tensor, float]:
    """All samples as one clip, and its frame rate."""
    rates = [check_fps(sample.meta.get("fps")) for sample in samples]
    return side_by_side([sample.data for sample in samples], rates, columns), max(rates)
