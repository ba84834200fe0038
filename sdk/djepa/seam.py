"""Where what is kept meets what is generated: no step there beyond those that the sample has anyway.

A tokenizer that loses something decodes also what is known with an error. Put back in its place, the original then stands out
from what is generated beside it, by that error. So its error is foretold beyond the seam, and made up for. What of it is
smooth (colours a little off, a level) goes on for a token and fades out. The rest, mostly lost detail, goes on by as much as
it did from step to step where it is known: still detail stays, and what moves or is noise leaves no ghost.

With correlation r from one step to the next, of an error of variance v, the step of the foretold rest over the seam has the
variance (1-r)^2 v; between known places it is 2(1-r) v, which is never less.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def joined(
    decoded: Float[Tensor, "c ..."], original: Float[Tensor, "c ..."], keep: Bool[Tensor, "..."], reach: Sequence[int]
) -> Float[Tensor, "c ..."]:
    """`original` where it is kept, and elsewhere what was decoded, corrected near to it.

    Args:
        decoded, original: of one shape, channels first.
        keep: True where the original is kept, in the shape of the axes.
        reach: steps along each axis within which the correction fades out, at least 1.
    """
    if not bool(keep.any()) or bool(keep.all()):
        return torch.where(keep, original, decoded)
    error = torch.where(keep, original - decoded, 0.0)
    smooth = _smoothed(error, keep, reach)
    rest = torch.where(keep, error - smooth, 0.0)
    nearest = _nearest(keep, reach)
    fading, kept_up = torch.zeros(keep.shape), torch.ones(keep.shape)
    for axis, away in enumerate(_steps_away(nearest)):
        fading += (away - 1).clamp(min=0) / reach[axis]  # the first step takes all
        kept_up *= _correlation(rest, keep, axis) ** away
    foretold = _taken(smooth, nearest) + kept_up * _taken(rest, nearest)
    return torch.where(keep, original, decoded + (1 - fading).clamp(min=0) * foretold)


def _taken(error: Float[Tensor, "c ..."], nearest: Int[Tensor, "..."]) -> Float[Tensor, "c ..."]:
    return error.flatten(1)[:, nearest.flatten()].view_as(error)


def _smoothed(
    error: Float[Tensor, "c ..."], keep: Bool[Tensor, "..."], reach: Sequence[int]
) -> Float[Tensor, "c ..."]:
    """Means over the known places within less than `reach` steps along each axis; `error` is 0 elsewhere."""
    total, count = error.double(), keep[None].double()
    for axis, steps in enumerate(reach):
        total, count = (_sums(values, axis + 1, steps) for values in (total, count))
    return (total / count.clamp(min=1)).to(error.dtype)


def _sums(values: Float[Tensor, "..."], dim: int, steps: int) -> Float[Tensor, "..."]:
    """Sums over all within less than `steps` steps along a dimension."""
    up_to = functional.pad(values.movedim(dim, -1).cumsum(-1), (1, 0))
    place = torch.arange(values.shape[dim])
    begin, end = (place - steps + 1).clamp(min=0), (place + steps).clamp(max=len(place))
    return (up_to[..., end] - up_to[..., begin]).movedim(-1, dim)


def _correlation(rest: Float[Tensor, "c ..."], keep: Bool[Tensor, "..."], axis: int) -> float:
    """Of the errors of neighbours along an axis that are both known, from 0; 0 where there are none."""
    size = keep.shape[axis] - 1
    pairs = keep.narrow(axis, 0, size) & keep.narrow(axis, 1, size)
    one, other = (rest.narrow(axis + 1, start, size)[:, pairs].double() for start in (0, 1))
    spread = float(one.square().sum() + other.square().sum()) / 2
    return max(0.0, float((one * other).sum()) / spread) if spread > 0 else 0.0


def _steps_away(nearest: Int[Tensor, "..."]) -> list[Int[Tensor, "..."]]:
    """How far each place is from its nearest known one, along each axis."""
    places = torch.meshgrid(*map(torch.arange, nearest.shape), indexing="ij")
    return [(here - there).abs() for here, there in zip(places, torch.unravel_index(nearest, nearest.shape), strict=True)]


def _nearest(keep: Bool[Tensor, "..."], reach: Sequence[int]) -> Int[Tensor, "..."]:
    """Which known place is nearest, in row-major order; `reach` steps along an axis count as 1.

    Distances along the axes add up, so that each axis can be gone through by itself, forwards and backwards.
    """
    distance = torch.where(keep, 0.0, torch.inf).double()
    nearest = torch.arange(keep.numel()).view(keep.shape)
    for axis, steps in enumerate(reach):
        distance, nearest = _swept(distance, nearest, axis, steps)
        distance, nearest = (found.flip(axis) for found in _swept(distance.flip(axis), nearest.flip(axis), axis, steps))
    return nearest


def _swept(
    distance: Float[Tensor, "..."], nearest: Int[Tensor, "..."], axis: int, steps: int
) -> tuple[Float[Tensor, "..."], Int[Tensor, "..."]]:
    """The same, where places before along an axis may be nearer."""
    shape = [-1 if index == axis else 1 for index in range(distance.ndim)]
    place = (torch.arange(distance.shape[axis]).double() / steps).view(shape)
    least, where = (distance - place).cummin(axis)
    return least + place, nearest.gather(axis, where)
