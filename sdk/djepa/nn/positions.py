"""Where a token is: a learned vector per place, or rotary embedding of physical coordinates.

Rotary embedding [1] turns pairs of query and key channels by an angle proportional to the coordinate, so that attention
depends on differences of coordinates only. With several axes the pairs of a head are dealt out to them, one band of
frequencies each:

    angle_{axis, j} = coordinate_axis / scale_axis * theta^(-j / (pairs_axis - 1)),   j = 0 .. pairs_axis - 1

`scale` is in the axis's unit: the distance that turns the fastest pair by one radian. Tokens without a coordinate
(condition tokens, and tokens of a stream that lacks an axis) have coordinate 0 there and are not turned.

References:
    [1] J. Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. arXiv 2104.09864.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the angles of each token; shared by all heads and all layers."""

    cos: Float[Tensor, "b s p"]
    sin: Float[Tensor, "b s p"]

    def __call__(self, x: Float[Tensor, "b s h e"]) -> Float[Tensor, "b s h e"]:
        """Turn the channel pairs (i, i + e/2) of every head, in float32."""
        first, second = x.float().chunk(2, dim=-1)
        cos, sin = self.cos[..., None, :], self.sin[..., None, :]
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)


class RotaryPosition(nn.Module):
    """Angles for any number of axes.

    Args:
        axes: names of the trunk's axes; each gets its share of the channel pairs, the first ones one more if it does not
            come out even.
        head_width: channels of a head (even).
        scale: per axis, the distance that turns the fastest pair by one radian, in the axis's unit; 1 where not given.
        theta: the slowest pair turns theta times slower than the fastest.
    """

    frequencies: Tensor

    def __init__(self, axes: tuple[str, ...], head_width: int, scale: Mapping[str, float], theta: float) -> None:
        super().__init__()
        pairs = head_width // 2
        shares = [pairs // len(axes) + (index < pairs % len(axes)) for index in range(len(axes))]
        frequencies = torch.zeros(len(axes), pairs)
        start = 0
        for index, (axis, share) in enumerate(zip(axes, shares, strict=True)):
            exponents = torch.arange(share) / max(share - 1, 1)
            frequencies[index, start : start + share] = theta**-exponents / scale.get(axis, 1.0)
            start += share
        self.register_buffer("frequencies", frequencies, persistent=False)  # a function of the settings, not a weight

    def forward(self, coords: Float[Tensor, "b s a"]) -> Rotation:
        # Angles in float32 whatever autocast says: seconds times frequencies need the digits.
        with torch.autocast(coords.device.type, enabled=False):
            angles = coords.float() @ self.frequencies.float()
            return Rotation(angles.cos(), angles.sin())
