"""Samples whose last two axes are rows and columns of pixels, in another size or other channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from djepa.errors import MediaError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey: ITU-R BT.601, which Pillow and FFmpeg use too


def covering_part(sizes: Sequence[int], wanted: Sequence[int], place: Sequence[float]) -> tuple[slice, slice]:
    """The rows and columns that are left when a size is scaled until it just covers another, and what sticks out is cropped.

    Args:
        sizes: (rows, columns) that there are.
        wanted: (rows, columns) that shall be covered.
        place: for each, where in what sticks out the part lies: 0 at its start, 1 at its end.
    """
    scale = max(want / have for want, have in zip(wanted, sizes, strict=True))
    kept = [min(max(1, round(want / scale)), have) for want, have in zip(wanted, sizes, strict=True)]
    starts = [round((have - keep) * part) for have, keep, part in zip(sizes, kept, place, strict=True)]
    return slice(starts[0], starts[0] + kept[0]), slice(starts[1], starts[1] + kept[1])


def scaled(data: Float[Tensor, "c *t h w"], size: tuple[int, int]) -> Float[Tensor, "c *t y x"]:
    """Values in [-1, 1] at another size, with antialiasing."""
    if tuple(data.shape[-2:]) != size:
        batched = data if data.ndim == 4 else data[None]
        data = interpolate(batched, size, mode="bicubic", antialias=True).clamp_(-1.0, 1.0).view(*data.shape[:-2], *size)
    return data.contiguous()


def cover(data: Float[Tensor, "c *t h w"], size: tuple[int, int], place: Sequence[float]) -> Float[Tensor, "c *t y x"]:
    """Values in [-1, 1], scaled and cropped to a size; see `covering_part`."""
    rows, columns = covering_part(data.shape[-2:], size, place)
    return scaled(data[..., rows, columns], size)


def with_channels(data: Float[Tensor, "c *t h w"], channels: int) -> Float[Tensor, "_c *t h w"]:
    """In grey (1) or RGB (3).

    Raises:
        MediaError: other channels are asked for.
    """
    if len(data) == channels:
        return data
    if channels == 3 and len(data) == 1:
        return data.expand(3, *data.shape[1:])
    if channels == 1 and len(data) == 3:
        return torch.tensordot(torch.tensor([LUMA]), data, dims=1)
    raise MediaError(f"Samples of pixels have 1 channel (grey) or 3 (RGB), so that {len(data)} cannot become {channels}.")
