"""Many pictures on one sheet: a grid with thin gaps, small pictures enlarged so that they can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError
from djepa_image.files import check_picture

MIN_CELL = 64     # pixels: the longer side of a cell, at least, after enlarging
GAP = 2           # pixels around every cell
BACKGROUND = 0.0  # mid-grey of [-1, 1]


def contact_sheet(pictures: Sequence[Float[Tensor, "_c _h _w"]], columns: int | None = None) -> Float[Tensor, "c h w"]:
    """One picture that shows all `pictures` in reading order.

    Sizes may differ: every cell is as large as the largest picture, and each picture is centred in its cell. Pixels are
    repeated, never blended. A near-square grid unless `columns` is given.

    Raises:
        UsageError: there is no picture, a tensor has not the shape of one, or `columns` is below 1.
    """
    if not pictures:
        raise UsageError("There are no pictures to lay out.")
    if columns is not None and columns < 1:
        raise UsageError(f"A sheet needs at least one column; got columns={columns}.")
    for picture in pictures:
        check_picture(picture)
    across = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    factor = max(1, math.ceil(MIN_CELL / max(height, width)))
    step_y, step_x = height * factor + GAP, width * factor + GAP
    down = math.ceil(len(pictures) / across)
    channels = max(len(picture) for picture in pictures)
    sheet = torch.full((channels, down * step_y + GAP, across * step_x + GAP), BACKGROUND)
    for number, picture in enumerate(pictures):
        large = picture.detach().to("cpu", torch.float32).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        top = GAP + number // across * step_y + (height * factor - large.shape[1]) // 2
        left = GAP + number % across * step_x + (width * factor - large.shape[2]) // 2
        sheet[:, top:top + large.shape[1], left:left + large.shape[2]] = large
    return sheet
