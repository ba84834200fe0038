"""The denoising-head contract.

The predictor gives one context vector z per token; a head models p(x | z), the token given its context vector, as a small
diffusion or flow of its own. It is constructed as `Class(channels, context_width, **options)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

Guidance = Callable[[float], float | Tensor]  # scale at head time t (0 noise, 1 data), for all tokens or (m, 1); 1 is off
Bounds = tuple[Tensor, Tensor]       # smallest and largest clean value per channel


class Noise(Protocol):
    """Where a head takes its random numbers from; `djepa.random.TokenDraws` is the one in use."""

    def normal(self, purpose: str, num: int, width: int) -> Float[Tensor, "num m width"]:
        """Standard normal numbers, `num` times for every token."""
        ...

    def uniform(self, purpose: str, num: int, width: int) -> Float[Tensor, "num m width"]:
        """Uniform numbers in [0, 1), `num` times for every token."""
        ...


class DenoisingHead(nn.Module, ABC):
    """Models a token given its context vector.

    Args:
        channels: of a token (c).
        context_width: of a context vector (w).
    """

    def __init__(self, channels: int, context_width: int) -> None:
        super().__init__()
        self.channels, self.context_width = channels, context_width

    @abstractmethod
    def loss(self, x: Float[Tensor, "m c"], z: Float[Tensor, "m w"], noise: Noise) -> Mapping[str, Float[Tensor, "m"]]:
        """Parts of the loss of every token; their sum is what training minimizes."""

    @abstractmethod
    def sample(
        self,
        z: Float[Tensor, "m w"],
        z_null: Float[Tensor, "m w"] | None,
        noise: Noise,
        *,
        num_steps: int,
        temperature: float,
        guidance: Guidance,
        bounds: Bounds | None,
    ) -> Float[Tensor, "m c"]:
        """Draw a token for every context vector.

        Args:
            z: context vectors under the condition.
            z_null: under the null condition; None when guidance is off.
            noise: source of randomness.
            num_steps: evaluations of the network.
            temperature: how much noise, 1 as trained, 0 none.
            guidance: scale at each head time.
            bounds: keep the estimate of the clean token inside them; None to leave it free.
        """


class GuidedNetwork:
    """Classifier-free guidance around a denoising network: a network again [1].

        guided = null + scale * (conditional - null)

    on the first c output channels; further ones (a learned variance) are the conditional's. The projections of the context
    vectors are computed once here and reused at every denoising step.

    References:
        [1] J. Ho, T. Salimans. Classifier-Free Diffusion Guidance. arXiv 2207.12598.
    """

    def __init__(
        self, network: DenoisingNetwork, z: Float[Tensor, "m w"], z_null: Float[Tensor, "m w"] | None, guidance: Guidance
    ) -> None:
        self.network, self.guidance, self.guided = network, guidance, z_null is not None
        self.context = network.project(z if z_null is None else torch.cat([z, z_null]))

    def __call__(self, x_t: Float[Tensor, "m c"], network_time: float, head_time: float) -> Float[Tensor, "m o"]:
        scale = self.guidance(head_time) if self.guided else 1.0
        time = torch.full((1,), network_time, device=x_t.device)
        if isinstance(scale, float) and scale == 1.0:
            return self.network(x_t, time, self.context[: len(x_t)]).float()
        conditional, null = self.network(x_t.repeat(2, 1), time, self.context).float().chunk(2)
        channels = x_t.shape[1]
        guided = null[:, :channels] + scale * (conditional[:, :channels] - null[:, :channels])
        return torch.cat([guided, conditional[:, channels:]], dim=1)


class DenoisingNetwork(nn.Module, ABC):
    """A network f(x_t, t, z) that works on each token on its own."""

    @abstractmethod
    def project(self, z: Float[Tensor, "m w"]) -> Float[Tensor, "m d"]:
        """What the network needs of the context vectors, independent of x_t and t."""

    @abstractmethod
    def forward(
        self, x_t: Float[Tensor, "m c"], time: Float[Tensor, "#m"], context: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m o"]:
        """Its output at noise levels `time` (one for all or one a token) for projected contexts."""
