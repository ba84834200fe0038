"""Randomness as a pure function: of a seed, of what the numbers are for, of the sample and the item they belong to.

A number drawn here depends on nothing else: not on the batch it is drawn in, the device, the process, or what was drawn
before. Hence a seed gives the same sample alone and among others, chunks and processes can be cut anywhere, and a resumed
run needs no generator state.

The generator is Philox4x32-10, a counter-based cipher of a 128-bit counter under a 64-bit key [1], written in integer
tensor operations so that it runs vectorized on any device. The key is a hash of (seed, purpose); the counter holds
(block, item, sample).

References:
    [1] J. Salmon, M. Moraes, R. Dror, D. Shaw. Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of int64 tensors that hold 32-bit words; broadcasts.

    A product of two 32-bit words overflows a signed 64-bit integer, but wraps modulo 2^64, so that its two halves come
    out right with a masked shift.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, ((p0 >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = p1 & _MASK, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def derive(seed: int, *purpose: str | int) -> int:
    """A 64-bit number that stands for (seed, purpose): different purposes never share draws."""
    text = "/".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for (seed, purpose): for work on the CPU, item by item, such as augmentation."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *purpose)))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Run torch operations that insist on its global generator (initialization, dropout) as a function of (seed, purpose).

    The generator's state is put back afterwards, so that nothing outside can tell.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *purpose) >> 1)
        yield


class Draws:
    """Random numbers for one seed and purpose, addressed by sample and item.

    Args:
        seed: any integer.
        purpose: what the numbers are for, e.g. ``Draws(seed, "noise", "image")``.
    """

    def __init__(self, seed: int, *purpose: str | int) -> None:
        self.seed, self.purpose = seed, purpose
        key = derive(seed, *purpose)
        self._key = (key & _MASK, key >> 32)

    def within(self, *purpose: str | int) -> Draws:
        """Draws for a part of this purpose."""
        return Draws(self.seed, *self.purpose, *purpose)

    def words(
        self, sample: Int[Tensor, "..."], item: Int[Tensor, "..."] | int, width: int, step: Int[Tensor, "..."] | int = 0
    ) -> Int[Tensor, "... width"]:
        """Uniform 32-bit words.

        Args:
            sample: 64-bit ids; `item` and `step` broadcast against it.
            item: which of the sample's draws, below 2^32.
            width: words for each (sample, item, step), at most 2^18.
            step: which of the item's draws, below 2^16.
        """
        samples, items, steps = (part[..., None] for part in torch.broadcast_tensors(
            sample, torch.as_tensor(item, device=sample.device), torch.as_tensor(step, device=sample.device)))
        block = (steps << 16) + torch.arange(-(-width // 4), device=sample.device)
        counter = (block, items & _MASK, samples & _MASK, (samples >> 32) & _MASK)
        return torch.stack(philox(counter, self._key), dim=-1).flatten(-2)[..., :width]

    def uniform(
        self, sample: Int[Tensor, "..."], item: Int[Tensor, "..."] | int, width: int, step: Int[Tensor, "..."] | int = 0
    ) -> Float[Tensor, "... width"]:
        """Uniform float32 in [0, 1): 24 random bits, all a float32 can hold."""
        return (self.words(sample, item, width, step) >> 8).to(torch.float32) * 2.0**-24

    def normal(
        self, sample: Int[Tensor, "..."], item: Int[Tensor, "..."] | int, width: int, step: Int[Tensor, "..."] | int = 0
    ) -> Float[Tensor, "... width"]:
        """Standard normal float32, by the Box-Muller transform of pairs of words; at most 6.7 in size."""
        words = self.words(sample, item, 2 * (-(-width // 2)), step).to(torch.float32).unflatten(-1, (-1, 2))
        radius = (-2.0 * ((words[..., 0] + 0.5) * 2.0**-32).log()).clamp(min=0.0).sqrt()
        angle = words[..., 1] * (2.0 * math.pi * 2.0**-32)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(-2)[..., :width]

    def at(self, sample: Int[Tensor, "m"], item: Int[Tensor, "m"]) -> TokenDraws:
        """These draws at given places: what a denoising head is handed."""
        return TokenDraws(self, sample, item)

    def permutations(self, sample: Int[Tensor, "b"], length: int) -> Int[Tensor, "b length"]:
        """One uniformly random permutation of range(length) per sample."""
        item = torch.arange(length, device=sample.device)
        first, second = self.words(sample[:, None], item, 2).unbind(-1)
        return ((first << 31) | (second >> 1)).argsort(dim=-1)  # 63 random bits: ties have probability ~ length^2 / 2^64


@dataclass(frozen=True)
class TokenDraws:
    """Random numbers for some tokens, each addressed by its sample and its position there.

    Attributes:
        draws: seed and purpose.
        sample, item: where the tokens are.
    """

    draws: Draws
    sample: Int[Tensor, "m"]
    item: Int[Tensor, "m"]

    def normal(self, purpose: str, num: int, width: int) -> Float[Tensor, "num m width"]:
        """Standard normal numbers, `num` times for every token."""
        steps = torch.arange(num, device=self.sample.device)[:, None]
        return self.draws.within(purpose).normal(self.sample, self.item, width, steps)

    def uniform(self, purpose: str, num: int, width: int) -> Float[Tensor, "num m width"]:
        """Uniform numbers in [0, 1), `num` times for every token."""
        steps = torch.arange(num, device=self.sample.device)[:, None]
        return self.draws.within(purpose).uniform(self.sample, self.item, width, steps)
