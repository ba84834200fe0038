"""Which part of a sample latents and tokens cover: arithmetic along the axes of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from djepa.tokens import Axis


@dataclass(frozen=True)
class LatentAxis:
    """What latents cover along one axis.

    Attributes:
        stride: steps of the sample that a latent covers.
        first: steps that the first one covers: as many, or fewer (1) where the network is causal.
    """

    stride: int
    first: int

    @property
    def causal(self) -> bool:
        """Whether latents depend on what lies before them only."""
        return self.first < self.stride

    def count(self, size: int) -> int:
        """Latents that it takes to cover a sample of this size."""
        return 1 + max(0, math.ceil((size - self.first) / self.stride))

    def size(self, count: int) -> int:
        """Size of the sample that this many latents cover."""
        return self.first + self.stride * (count - 1)

    def edges(self, cells: int, patch: int) -> Int[Tensor, "edges"]:
        """Where cells of `patch` latents each begin, and where the last one ends, in steps of the sample."""
        return (self.stride * patch * torch.arange(cells + 1) - (self.stride - self.first)).clamp(min=0)


@dataclass(frozen=True)
class Cover:
    """What tokens cover of a sample.

    Attributes:
        media: the axes of the sample.
        latents: along each of them.
        patch: latents of a token along each of them.
    """

    media: tuple[Axis, ...]
    latents: tuple[LatentAxis, ...]
    patch: tuple[int, ...]

    def grid(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The token grid that covers a sample of these sizes; it may reach beyond."""
        return tuple(math.ceil(axis.count(size) / patch)
                     for axis, patch, size in zip(self.latents, self.patch, sizes, strict=True))

    def counts(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The latents along each axis of a token grid."""
        return tuple(cells * patch for cells, patch in zip(grid, self.patch, strict=True))

    def sizes(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The sizes of a sample that fills a token grid."""
        return tuple(axis.size(count) for axis, count in zip(self.latents, self.counts(grid), strict=True))

    def padded(self, data: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """Samples with their edges repeated until they fill their grid; themselves if they do."""
        sizes = data.shape[2:]
        missing = [full - size for full, size in zip(self.sizes(self.grid(sizes)), sizes, strict=True)]
        if not any(missing):
            return data
        return functional.pad(data, [side for size in reversed(missing) for side in (0, size)], mode="replicate")

    def cells(self, sizes: Sequence[int]) -> dict[str, Int[Tensor, "s"]]:
        """Which row of the token grid each step of a sample of these sizes belongs to, by axis."""
        rows = zip(self.media, self.latents, self.patch, sizes, self.grid(sizes), strict=True)
        return {media.name: torch.searchsorted(axis.edges(cells, patch)[1:], torch.arange(size), right=True)
                for media, axis, patch, size, cells in rows}

    def coords(self, grid: Sequence[int], meta: Mapping[str, Any]) -> Float[Tensor, "n a"]:
        """The middle of what each token covers, in the units of the axes."""
        centres = []
        for media, axis, patch, cells in zip(self.media, self.latents, self.patch, grid, strict=True):
            edges = axis.edges(cells, patch) / media.rate(meta)
            centres.append((edges[1:] + edges[:-1]) / 2)
        return torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).reshape(-1, len(grid))
