"""Large samples in overlapping tiles with blended seams, over any number of axes, so that memory does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError, suggest
from djepa_tokenizers.cover import LatentAxis


def tile_sizes(names: Sequence[str], axes: Sequence[LatentAxis], tile: Mapping[str, int] | int | None) -> list[int | None]:
    """The size of a tile along each axis, in steps of the sample; None along those that are not cut.

    Args:
        names: of the axes.
        axes: what latents cover along them. Where that is causal every latent depends on all before it: no tiles there.
        tile: by name, or one size for all axes that can be cut.

    Raises:
        UsageError: an axis that there is not, or that cannot be cut, or a size that cannot be.
    """
    by_name = dict(zip(names, axes, strict=True))
    if not isinstance(tile, Mapping):
        tile = {name: tile for name, axis in by_name.items() if tile is not None and not axis.causal}
    for name, size in tile.items():
        if name not in by_name:
            raise UsageError(f"Autoencoder: there is no axis {name!r} to cut into tiles. {suggest(name, names)}")
        stride = by_name[name].stride
        if by_name[name].causal:
            raise UsageError(f"Autoencoder: this network is causal along {name!r}, where each latent depends on all before it; "
                             f"it cannot be cut into tiles there.")
        if not isinstance(size, int) or size % stride or size < 2 * stride:
            raise UsageError(f"Autoencoder: tile must be a multiple of the stride along {name!r}, {stride}, at least twice as "
                             f"large; got {size!r}.")
    return [tile.get(name) for name in names]


def tiled(
    function: Callable[[Tensor], Tensor], data: Float[Tensor, "b ..."], tile: Sequence[int], taken: Sequence[int],
    given: Sequence[int],
) -> Float[Tensor, "b ..."]:
    """`function(data)`, put together from overlapping tiles; where tiles overlap, one fades into the next.

    Tiles are all of one size; the last along an axis lies flush with the end. Neighbours overlap by a quarter of a tile at
    least. A function that looks no further than one cell gives the same as in one piece; others do so away from seams.

    Args:
        function: of tensors (b, channels, *sizes); may change the channels and the size of a cell.
        data: (b, channels, *sizes).
        tile: cells of a tile along each axis, at least 2; an axis with fewer is not cut.
        taken, given: size of a cell along each axis before and after the function.
    """
    grid = [size // step for size, step in zip(data.shape[2:], taken, strict=True)]
    tile = [min(cells, count) for cells, count in zip(tile, grid, strict=True)]
    if grid == tile:
        return function(data)
    fade = _outer([_fade(cells, step) for cells, step in zip(tile, given, strict=True)]).to(data.device)
    total, weight = None, torch.zeros([count * step for count, step in zip(grid, given, strict=True)], device=data.device)
    for corner in product(*(_starts(count, cells) for count, cells in zip(grid, tile, strict=True))):
        part = function(data[(..., *_window(corner, tile, taken))])
        total = part.new_zeros(*part.shape[:2], *weight.shape) if total is None else total
        place = (..., *_window(corner, tile, given))
        total[place] += part * fade
        weight[place] += fade
    assert total is not None
    return total / weight


def _starts(count: int, cells: int) -> list[int]:
    """Where tiles begin along an axis of `count` cells."""
    return [*range(0, count - cells, max(1, cells - _overlap(cells))), count - cells]


def _overlap(cells: int) -> int:
    return max(1, math.ceil(cells / 4))


def _window(corner: Sequence[int], tile: Sequence[int], steps: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start * step, (start + cells) * step) for start, cells, step in zip(corner, tile, steps, strict=True))


def _fade(cells: int, step: int) -> Float[Tensor, " s"]:
    """Weights along one axis of a tile: rising over the overlap, flat, falling; those of two neighbours add up to 1."""
    places = torch.arange(cells * step) + 0.5
    return (torch.minimum(places, places.flip(0)) / (_overlap(cells) * step)).clamp(max=1.0)


def _outer(lines: Sequence[Tensor]) -> Tensor:
    return reduce(lambda left, right: left[..., None] * right, lines)
