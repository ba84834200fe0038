"""Many clips in one: a grid with thin gaps, small clips enlarged so that they can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError
from djepa_video.writing import check_clip, check_fps

MIN_CELL = 96     # pixels: the longer side of a cell, at least, after enlarging
GAP = 2           # pixels around every cell
BACKGROUND = 0.0  # mid-grey of [-1, 1]
TIE = 1e-6        # frames: rounding must not decide which of two is shown


def side_by_side(clips: Sequence[Float[Tensor, "_c _t _h _w"]], rates: Sequence[float], columns: int | None = None
                 ) -> Float[Tensor, "c t h w"]:
    """One clip that shows all `clips` in reading order, at the highest of their frame rates.

    A clip of a lower rate shows its frames for longer, one that is over holds its last frame. Every cell is as large as the
    largest clip, and each clip is centred in its cell. Pixels are repeated, never blended. A near-square grid unless `columns`
    is given.

    Raises:
        UsageError: there is no clip, a tensor has not the shape of one, a rate is none, or `columns` is below 1.
    """
    if not clips:
        raise UsageError("There are no clips to lay out.")
    if columns is not None and columns < 1:
        raise UsageError(f"A sheet needs at least one column; got columns={columns}.")
    for clip, rate in zip(clips, rates, strict=True):
        check_clip(clip)
        check_fps(rate)
    timed = _at_one_rate(clips, rates)
    across = min(columns or math.ceil(math.sqrt(len(clips))), len(clips))
    channels, num_frames, height, width = (max(clip.shape[axis] for clip in timed) for axis in range(4))
    factor = max(1, math.ceil(MIN_CELL / max(height, width)))
    step_y, step_x = height * factor + GAP, width * factor + GAP
    down = math.ceil(len(clips) / across)
    sheet = torch.full((channels, num_frames, down * step_y + GAP, across * step_x + GAP), BACKGROUND)
    for number, clip in enumerate(timed):
        large = clip.detach().to("cpu", torch.float32).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        top = GAP + number // across * step_y + (height * factor - large.shape[2]) // 2
        left = GAP + number % across * step_x + (width * factor - large.shape[3]) // 2
        sheet[:, :, top:top + large.shape[2], left:left + large.shape[3]] = large
    return sheet


def _at_one_rate(clips: Sequence[Tensor], rates: Sequence[float]) -> list[Tensor]:
    """All clips at the highest rate and as long as the longest."""
    fastest = max(rates)
    lengths = [clip.shape[1] * fastest / rate for clip, rate in zip(clips, rates, strict=True)]
    ticks = torch.arange(math.ceil(max(lengths) - TIE), dtype=torch.float64)
    return [clip[:, (ticks * (rate / fastest) + TIE).long().clamp(max=clip.shape[1] - 1)]
            for clip, rate in zip(clips, rates, strict=True)]
