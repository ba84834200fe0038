"""In which order tokens are generated, and how many at a time.

An order is a permutation of the tokens per sample: the first are generated first. Training hides the last tokens of such an
order, so that a model is trained on what it will meet.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.errors import UsageError, suggest
from djepa.random import Draws


class GenerationOrder(ABC):
    """A distribution over permutations of the tokens."""

    @abstractmethod
    def permutations(
        self, draws: Draws, samples: Int[Tensor, "b"], coords: Float[Tensor, "b n a"], axes: tuple[str, ...]
    ) -> Int[Tensor, "b n"]:
        """One permutation per sample; entry j of a row is the position generated j-th.

        Args:
            draws: the only source of randomness.
            samples: ids of the samples, for the draws.
            coords: where the tokens are, in the units of `axes`.
            axes: names of the coordinates.
        """


class RandomOrder(GenerationOrder):
    """Uniformly random."""

    def permutations(self, draws: Draws, samples: Tensor, coords: Tensor, axes: tuple[str, ...]) -> Tensor:
        return draws.permutations(samples, coords.shape[1])


class RasterOrder(GenerationOrder):
    """As the tokens are laid out, row by row."""

    def permutations(self, draws: Draws, samples: Tensor, coords: Tensor, axes: tuple[str, ...]) -> Tensor:
        return torch.arange(coords.shape[1]).expand(len(samples), -1)


class CausalOrder(GenerationOrder):
    """Along one axis; random among tokens of equal coordinate.

    Args:
        axis: the axis generation follows, such as "t".
    """

    def __init__(self, *, axis: str) -> None:
        self.axis = axis

    def permutations(self, draws: Draws, samples: Tensor, coords: Tensor, axes: tuple[str, ...]) -> Tensor:
        if self.axis not in axes:
            raise UsageError(f"A causal order needs the axis {self.axis!r}, which these tokens lack. "
                             f"{suggest(self.axis, axes)}")
        shuffled = draws.permutations(samples, coords.shape[1])
        along = coords[..., axes.index(self.axis)].gather(1, shuffled)
        return shuffled.gather(1, along.argsort(dim=1, stable=True))


def ranks(order: Int[Tensor, "b n"], eligible: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """When each eligible token's turn comes (0 first) if the order is walked over eligible tokens only; -1 for the others."""
    turn = eligible.gather(1, order).cumsum(dim=1) - 1
    return torch.empty_like(order).scatter_(1, order, turn).masked_fill_(~eligible, -1)


def hide_last(order: Int[Tensor, "b n"], eligible: Bool[Tensor, "b n"], counts: Int[Tensor, "b"]) -> Bool[Tensor, "b n"]:
    """True for the eligible tokens, `counts` of them per sample, that the order reaches last."""
    first = eligible.sum(dim=1) - counts
    return eligible & (ranks(order, eligible) >= first[:, None])


def hidden_after(num_tokens: int, num_steps: int) -> list[int]:
    """How many tokens are still hidden after each generation step (the cosine schedule of MaskGIT and MAR).

    After step s of S: floor(n * cos(pi/2 * (s+1)/S)), at least 1 and at most one fewer than before; 0 after the last. With
    more steps than tokens, some steps reveal nothing.
    """
    hidden, counts = num_tokens, []
    for step in range(num_steps - 1):
        target = math.floor(num_tokens * math.cos(math.pi / 2 * (step + 1) / num_steps))
        hidden = max(min(hidden, 1), min(hidden - 1, target))
        counts.append(hidden)
    return [*counts, 0]
