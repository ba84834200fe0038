"""The image modality: pictures of one (grey) or three (RGB) channels."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from djepa.covering import cover, with_channels
from djepa.modality import Modality, shared_meta
from djepa.tokens import Axis, Sample
from djepa_image.files import encode, read, write
from djepa_image.sheet import contact_sheet


class Image(Modality):
    """Pictures, (c, h, w) in [-1, 1]."""

    name = "image"
    axes = (Axis("y", "px"), Axis("x", "px"))
    extensions = ("png", "jpg", "jpeg", "webp")

    def load(self, path: Path) -> Sample:
        """Read a picture: one channel where the file is stored as grey, otherwise three.

        Raises:
            MediaError: the file is missing, empty, no picture, damaged, cut short or too large.
        """
        data, meta = read(Path(path))
        return Sample(data, meta, self.name)

    def fit(self, sample: Sample, shape: Sequence[int], rates: Mapping[str, float], place: Sequence[float]) -> Sample:
        """The picture scaled, with antialiasing, until it just covers the size, and cropped; grey or RGB as asked."""
        return replace(sample, data=cover(with_channels(sample.data, shape[0]), (shape[1], shape[2]), place))

    def save(self, sample: Sample, path: Path) -> Path:
        """Write a picture, metadata included. PNG and WebP keep all 8-bit levels; JPEG is written at quality 95.

        Raises:
            UsageError: another extension, a tensor that is no picture, or metadata that is not plain.
            StorageError: the disk refused.
        """
        return write(sample.data, Path(path), self.check_extension(Path(path)), sample.meta)

    def example(self, seed: int) -> Sample:
        """A smooth RGB picture of 16x16 pixels, on the levels of an 8-bit file."""
        generator = torch.Generator().manual_seed(seed)
        grid = torch.linspace(0.0, math.pi, 16)
        # Per channel, a few low frequencies along each axis.
        frequency = torch.arange(1, 4)
        rows, columns = (torch.cos(grid[:, None] * frequency + 2 * math.pi * torch.rand(3, 1, 3, generator=generator))
                         for _ in range(2))
        weights = torch.randn(3, 3, 3, generator=generator)
        waves = torch.einsum("cyi,cij,cxj->cyx", rows, weights, columns)
        levels = ((torch.tanh(waves / 2) + 1.0) * 127.5).round()
        return Sample(levels / 127.5 - 1.0, {}, self.name)

    def sheet(self, samples: Sequence[Sample], path: Path, columns: int | None = None) -> Path:
        """Write one picture with all samples in a grid; its metadata is what they have in common.

        Raises:
            UsageError: there are no samples, or as `save`.
            StorageError: the disk refused.
        """
        extension = self.check_extension(Path(path))
        return write(contact_sheet([sample.data for sample in samples], columns), Path(path), extension, shared_meta(samples))

    def default_tokenizer(self) -> dict[str, Any]:
        """Patches of 4x4 pixels."""
        return {"kind": "patchify", "patch": {"y": 4, "x": 4}}

    def preview(self, sample: Sample) -> dict[str, Any]:
        """The picture as PNG, enlarged when it is small."""
        return self.preview_sheet([sample])

    def preview_sheet(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """All samples in a grid, as PNG."""
        content = encode(contact_sheet([sample.data for sample in samples]), "png", {})
        # Text, not bytes: a notebook's messages are JSON, in which a binary type is base64.
        return {"image/png": base64.b64encode(content).decode("ascii")}
