"""The gaussian head: denoising diffusion with a learned variance, as in MAR and D-JEPA.

The network predicts the noise and, per channel, where the log variance of the reverse step lies between its two bounds:

    log var = f log beta_t + (1 - f) log beta~_t,   f = (v + 1) / 2                          [1, Eq. 15]

Loss: squared error of the noise + variational bound in bits, with the noise prediction detached in the bound  [1, Eq. 16]
(weight 1, not multiplied by the number of steps).

References:
    [1] A. Nichol, P. Dhariwal. Improved Denoising Diffusion Probabilistic Models. arXiv 2102.09672.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from djepa.heads.head import Bounds, DenoisingHead, Guidance, GuidedNetwork, Noise
from djepa.heads.mlp import DenoisingMLP
from djepa.heads.schedule import NUM_TIMES, cosine_schedule, respaced

_TABLES = ("signal", "noise", "coef1", "coef2", "log_beta", "log_variance")


class GaussianHead(DenoisingHead):
    """Diffusion of one token.

    Args:
        channels, context_width: as in `DenoisingHead`.
        depth, width: of the denoising MLP.
        num_noise_samples: noise levels drawn per token and training step.
    """

    tables: Tensor

    def __init__(
        self, channels: int, context_width: int, *, depth: int = 6, width: int = 1024, num_noise_samples: int = 4
    ) -> None:
        super().__init__(channels, context_width)
        self.num_noise_samples = num_noise_samples
        self.network = DenoisingMLP(channels, 2 * channels, context_width, width, depth)
        schedule = cosine_schedule()
        tables = torch.stack([getattr(schedule, name) for name in _TABLES], dim=1).float()
        self.register_buffer("tables", tables, persistent=False)

    def loss(self, x: Float[Tensor, "m c"], z: Float[Tensor, "m w"], noise: Noise) -> Mapping[str, Float[Tensor, "m"]]:
        repeats = self.num_noise_samples
        t = (noise.uniform("time", repeats, 1) * NUM_TIMES).long().flatten()
        epsilon = noise.normal("noise", repeats, self.channels).flatten(0, 1)
        mse, bound = self.loss_at(x.repeat(repeats, 1), self.network.project(z).repeat(repeats, 1), t, epsilon)
        return {"mse": mse.view(repeats, -1).mean(dim=0), "vb": bound.view(repeats, -1).mean(dim=0)}

    def loss_at(
        self, x: Float[Tensor, "m c"], context: Float[Tensor, "m d"], t: Int[Tensor, "m"], epsilon: Float[Tensor, "m c"]
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
        """Squared error and variational bound at given steps (0 .. 999) and noise, for projected contexts."""
        signal, sigma, coef1, coef2, log_beta, log_variance = self.tables[t].unbind(1)
        x = x.float()
        x_t = signal[:, None] * x + sigma[:, None] * epsilon
        predicted, v = self.network(x_t, t.float(), context).float().chunk(2, dim=1)
        mse = (epsilon - predicted).square().mean(dim=1)

        clean = (x_t - sigma[:, None] * predicted.detach()) / signal[:, None]
        mean = coef1[:, None] * clean + coef2[:, None] * x_t
        true_mean = coef1[:, None] * x + coef2[:, None] * x_t
        log_var = _interpolate(v, log_beta[:, None], log_variance[:, None])
        kl = _gaussian_kl(true_mean, log_variance[:, None], mean, log_var)
        nll = -_discretized_log_likelihood(x, mean, 0.5 * log_var)
        bound = torch.where(t[:, None] == 0, nll, kl).mean(dim=1) / math.log(2)
        return mse, bound

    @torch.no_grad()
    def sample(
        self, z: Tensor, z_null: Tensor | None, noise: Noise, *, num_steps: int, temperature: float, guidance: Guidance,
        bounds: Bounds | None,
    ) -> Tensor:
        network = GuidedNetwork(self.network, z, z_null, guidance)
        x_t = noise.normal("start", 1, self.channels)[0]
        draws = [*noise.normal("step", num_steps - 1, self.channels)[: num_steps - 1], None]
        for step, draw in zip(reversed(range(num_steps)), draws, strict=True):
            x_t = self.denoise(network, x_t, step, num_steps, draw, temperature, bounds)
        return x_t

    def denoise(
        self, network: GuidedNetwork, x_t: Float[Tensor, "m c"], step: int, num_steps: int, draw: Float[Tensor, "m c"] | None,
        temperature: float, bounds: Bounds | None,
    ) -> Float[Tensor, "m c"]:
        """One ancestral step, from respaced step `step` to the one before it; `draw` None adds no noise."""
        schedule = respaced(num_steps)
        signal, sigma = float(schedule.signal[step]), float(schedule.noise[step])
        time = float(schedule.times[step])
        predicted, v = network(x_t, time, 1 - (time + 1) / NUM_TIMES).chunk(2, dim=1)
        clean = (1 / signal) * x_t - (sigma / signal) * predicted  # as published: 1 / signal is 2e4 at first, rounding shows
        if bounds is not None:
            clean = torch.clamp(clean, *bounds)
        mean = float(schedule.coef1[step]) * clean + float(schedule.coef2[step]) * x_t
        if draw is None:
            return mean
        log_var = _interpolate(v, float(schedule.log_beta[step]), float(schedule.log_variance[step]))
        return mean + (0.5 * log_var).exp() * draw * temperature


def _interpolate(v: Tensor, upper: Tensor | float, lower: Tensor | float) -> Tensor:
    fraction = (v + 1) / 2
    return fraction * upper + (1 - fraction) * lower


def _gaussian_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, var1) || N(mean2, var2)) in nats, elementwise."""
    return 0.5 * (log_var2 - log_var1 - 1 + (log_var1 - log_var2).exp() + (mean1 - mean2).square() * (-log_var2).exp())


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's cumulative distribution."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability (nats) of the bin of half-width 1/255 around x; open tails beyond +-0.999."""
    centred, inverse = x - mean, (-log_std).exp()
    upper = _normal_cdf(inverse * (centred + 1 / 255))
    lower = _normal_cdf(inverse * (centred - 1 / 255))
    probability = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()
