"""The flow head: flow matching on straight paths, t = 0 noise, t = 1 data [1].

    x_t = t x + (1 - t) noise,    the network learns the velocity  x - noise,    sampling integrates dx/dt by Euler steps

References:
    [1] Y. Lipman et al. Flow Matching for Generative Modeling. arXiv 2210.02747; D-JEPA (arXiv 2410.03755), Eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError
from djepa.heads.head import Bounds, DenoisingHead, Guidance, GuidedNetwork, Noise
from djepa.heads.mlp import DenoisingMLP


class FlowHead(DenoisingHead):
    """Flow matching of one token.

    Args:
        channels, context_width: as in `DenoisingHead`.
        depth, width: of the denoising MLP.
        num_noise_samples: times drawn per token and training step.
        time_scale: what t is multiplied with before its sinusoid, which is made for 0 .. 1000. (Published D-JEPA flow
            weights were trained with 1.)
        shift: f of the time shift t / (t + f - f t) in sampling, above 0; above 1 spends more steps near the noise.

    Raises:
        UsageError: the shift is not above 0.
    """

    def __init__(
        self, channels: int, context_width: int, *, depth: int = 6, width: int = 1024, num_noise_samples: int = 4,
        time_scale: float = 1000.0, shift: float = 1.0,
    ) -> None:
        super().__init__(channels, context_width)
        if not shift > 0:
            raise UsageError(f"shift={shift}: expected a number above 0; 1 leaves the times evenly spread.")
        self.num_noise_samples, self.time_scale, self.shift = num_noise_samples, time_scale, shift
        self.network = DenoisingMLP(channels, channels, context_width, width, depth)

    def loss(self, x: Float[Tensor, "m c"], z: Float[Tensor, "m w"], noise: Noise) -> Mapping[str, Float[Tensor, "m"]]:
        repeats = self.num_noise_samples
        t = noise.uniform("time", repeats, 1).flatten()
        epsilon = noise.normal("noise", repeats, self.channels).flatten(0, 1)
        mse = self.loss_at(x.repeat(repeats, 1), self.network.project(z).repeat(repeats, 1), t, epsilon)
        return {"mse": mse.view(repeats, -1).mean(dim=0)}

    def loss_at(
        self, x: Float[Tensor, "m c"], context: Float[Tensor, "m d"], t: Float[Tensor, "m"], epsilon: Float[Tensor, "m c"]
    ) -> Float[Tensor, "m"]:
        """Squared error of the velocity at given times and noise, for projected contexts."""
        x_t = torch.lerp(epsilon, x.float(), t[:, None])
        velocity = self.network(x_t, t * self.time_scale, context).float()
        return (x.float() - epsilon - velocity).square().mean(dim=1)

    @torch.no_grad()
    def sample(
        self, z: Tensor, z_null: Tensor | None, noise: Noise, *, num_steps: int, temperature: float, guidance: Guidance,
        bounds: Bounds | None,
    ) -> Tensor:
        network = GuidedNetwork(self.network, z, z_null, guidance)
        x_t = noise.normal("start", 1, self.channels)[0] * temperature  # all the randomness of an ODE is in its start
        times = self.times(num_steps)
        for t, following in pairwise(times):
            velocity = network(x_t, t * self.time_scale, t)
            if bounds is None:
                x_t = x_t + (following - t) * velocity
            else:
                clean = torch.clamp(x_t + (1 - t) * velocity, *bounds)
                x_t = torch.lerp(x_t, clean, (following - t) / (1 - t))
        return x_t

    def times(self, num_steps: int) -> list[float]:
        """The num_steps + 1 ends of the Euler steps, from 0 to 1, shifted."""
        even = [step / num_steps for step in range(num_steps + 1)]
        return [t / (t + self.shift - self.shift * t) for t in even]
