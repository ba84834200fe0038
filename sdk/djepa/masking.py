"""Which tokens are hidden from the context encoder: mask ratios, and subsets of tokens as indices.

Masks are drawn on the host, one ratio a batch and one order a sample, as functions of (seed, step, sample). Everything about
their sizes is therefore known without asking the device.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.nn.attention import Packing
from djepa.random import Draws

MaskRatio = Callable[[float], float]  # from a uniform number in [0, 1) to a ratio in [0, 1]


def truncated_normal_ratio(mean: float = 1.0, std: float = 0.25, low: float = 0.7, high: float = 1.0) -> MaskRatio:
    """The paper's distribution: normal(mean, std) cut to [low, high], by inverting its cumulative distribution."""
    # Of the two tails the lower one: there the distribution function is small and has all its digits.
    sign = -1.0 if low > mean else 1.0
    start, end = sorted((sign * (low - mean) / std, sign * (high - mean) / std))
    cdf_start, cdf_end = (0.5 * math.erfc(-deviation / math.sqrt(2)) for deviation in (start, end))

    def ratio(u: float) -> float:
        share = u if sign > 0 else 1 - u
        cdf = max(cdf_start + share * (cdf_end - cdf_start), sys.float_info.min)
        deviation = float(torch.special.ndtri(torch.tensor(cdf, dtype=torch.float64)))
        return min(max(mean + sign * std * min(max(deviation, start), end), low), high)

    return ratio


def cosine_ratio(u: float) -> float:
    """cos(pi/2 * u): the distribution of the share still hidden along generation's own schedule."""
    return math.cos(math.pi / 2 * u)


def num_hidden(ratio: float, num_tokens: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """ceil(ratio * tokens) of each sample, at least one."""
    return torch.ceil(ratio * num_tokens.double()).long().clamp(min=1).minimum(num_tokens)


def draw_ratio(ratio: MaskRatio, draws: Draws, step: int) -> float:
    """The one mask ratio of a step."""
    return ratio(float(draws.uniform(torch.tensor(step), 0, 1)))


@dataclass(frozen=True)
class Subset:
    """Some of the tokens of a batch, each sample's in the order of their positions.

    Attributes:
        index: into the flattened (b n) tokens.
        lengths: tokens taken from each sample, known on the host.
    """

    index: Int[Tensor, "total"]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, selected: Bool[Tensor, "b n"], device: torch.device | str = "cpu") -> Subset:
        """The tokens where `selected` (on the CPU) is True."""
        index = selected.flatten().nonzero().squeeze(1)
        return cls(index.to(device, non_blocking=True), tuple(selected.sum(dim=1).tolist()))

    @property
    def packing(self) -> Packing | None:
        """None when every sample has as many tokens, so that they stay a plain batch."""
        return None if len(set(self.lengths)) == 1 else Packing(self.lengths)

    def __len__(self) -> int:
        return sum(self.lengths)

    def take(self, x: Float[Tensor, "b n *d"]) -> Float[Tensor, "total *d"]:
        """The selected tokens, end to end."""
        return x.flatten(0, 1).index_select(0, self.index)

    def sequences(self, x: Float[Tensor, "b n *d"]) -> Float[Tensor, "rows s *d"]:
        """The selected tokens as (b, s, ...) when all samples have s of them, else packed as (1, total, ...)."""
        rows = 1 if self.packing else len(self.lengths)
        return self.take(x).unflatten(0, (rows, -1))

    def put(self, x: Float[Tensor, "b n *d"], values: Float[Tensor, "total *d"]) -> Float[Tensor, "b n *d"]:
        """`x` with the selected tokens replaced (a new tensor)."""
        return x.flatten(0, 1).index_copy(0, self.index, values.to(x.dtype)).unflatten(0, x.shape[:2])
