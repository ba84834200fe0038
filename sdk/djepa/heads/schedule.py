"""The Gaussian diffusion behind the gaussian head: a noise schedule and its posterior.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise,     abar_t = prod_{s<=t} (1 - beta_s)
    q(x_{t-1} | x_t, x_0) = N(coef1_t x_0 + coef2_t x_t, beta~_t)

The posterior variance beta~_0 is zero and is replaced by beta~_1 wherever its logarithm is needed.

References:
    [1] J. Ho, A. Jain, P. Abbeel. Denoising Diffusion Probabilistic Models. arXiv 2006.11239.
    [2] A. Nichol, P. Dhariwal. Improved Denoising Diffusion Probabilistic Models. arXiv 2102.09672.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate, repeat

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError

NUM_TIMES = 1000


class Schedule:
    """Everything that follows from a sequence of betas, in float64.

    Attributes:
        times: the step of the full schedule that each entry stands for: what the network is told.
    """

    def __init__(self, betas: Float[Tensor, "t"], times: Float[Tensor, "t"]) -> None:
        abar = torch.cumprod(1 - betas, 0)
        before = _shifted(abar)
        variance = betas * (1 - before) / (1 - abar)
        self.times = times
        self.betas = betas
        self.abar = abar
        self.signal = abar.sqrt()                                 # x_t = signal * x_0 + noise * epsilon
        self.noise = (1 - abar).sqrt()
        self.coef1 = betas * before.sqrt() / (1 - abar)           # [1] Eq. 7
        self.coef2 = (1 - before) * (1 - betas).sqrt() / (1 - abar)
        self.log_beta = betas.log()
        self.log_variance = torch.cat([variance[1:2] if len(betas) > 1 else betas[:1], variance[1:]]).log()

    def __len__(self) -> int:
        return len(self.betas)


def _shifted(abar: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """abar one step earlier; 1 before the first."""
    return torch.cat([abar.new_ones(1), abar[:-1]])


@lru_cache(maxsize=1)
def cosine_schedule() -> Schedule:
    """Squared cosine with offset 0.008, betas at most 0.999, 1000 steps ([2] Eq. 17)."""
    times = torch.arange(NUM_TIMES, dtype=torch.float64, device="cpu")  # it is kept: not on whatever is the default now
    steps = torch.cat([times, times.new_tensor([NUM_TIMES])]) / NUM_TIMES
    abar = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    return Schedule(betas, times)


@lru_cache(maxsize=16)
def respaced(num_steps: int) -> Schedule:
    """The cosine schedule on `num_steps` of its 1000 steps: i * 999 / (num_steps - 1), rounded; of one step, the last.

    Raises:
        UsageError: there are not 1 to 1000 steps.
    """
    if not 1 <= num_steps <= NUM_TIMES:
        raise UsageError(f"num_denoising_steps={num_steps}: the gaussian head denoises in 1 to {NUM_TIMES} steps.")
    full = cosine_schedule()
    last = NUM_TIMES - 1
    # Summed up rather than multiplied: of 21 steps, and some other numbers, one lies halfway between two of the thousand, and
    # the rounding of the sum decides which it is in every published sampler.
    times = accumulate(repeat(last / max(num_steps - 1, 1), num_steps - 1), initial=0.0)
    kept = [round(time) for time in times] if num_steps > 1 else [last]
    abar = full.abar[kept]
    return Schedule(1 - abar / _shifted(abar), full.times[kept])
