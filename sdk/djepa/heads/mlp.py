"""The denoising MLP of MAR and D-JEPA: residual blocks modulated by time and context.

    y = time_mlp(sinusoid(t)) + cond(z)
    x <- x + gate(y) * mlp(LN(x) * (1 + scale(y)) + shift(y))          (each block)
    output = Linear(LN(x) * (1 + scale(y)) + shift(y))                 (LN without affine)

(shift, scale, gate) = Linear(SiLU(y)). Modulations and the output layer start at zero, so that training starts from a head
that predicts zero.

References:
    T. Li et al. Autoregressive Image Generation without Vector Quantization. arXiv 2406.11838, appendix B.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from djepa.heads.head import DenoisingNetwork
from djepa.nn.transformer import EPS, layer_norm

NUM_FREQUENCIES = 128


def sinusoid(time: Float[Tensor, "m"]) -> Float[Tensor, "m 256"]:
    """[cos, sin] of time * exp(-ln(10000) * k / 128), k = 0 .. 127; made for times between 0 and 1000."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(NUM_FREQUENCIES, device=time.device) / NUM_FREQUENCIES)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    return torch.addcmul(x + shift, x, scale)


class ModulatedBlock(nn.Module):
    """One residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Float[Tensor, "m d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        shift, scale, gate = self.modulation(y).chunk(3, dim=-1)
        return torch.addcmul(x, gate, self.mlp(modulate(self.norm(x), shift, scale)))


class DenoisingMLP(DenoisingNetwork):
    """f(x_t, t, z) for tokens on their own.

    Args:
        channels: of x_t.
        out_channels: of the output (twice as many when a variance is learned).
        context_width: of z.
        width, depth: of the residual blocks.
    """

    def __init__(self, channels: int, out_channels: int, context_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.Linear(2 * NUM_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.context_proj = nn.Linear(context_width, width)
        self.input_proj = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(depth))
        self.output_modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, out_channels)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_mlp[0], self.time_mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # pyright: ignore[reportArgumentType]
        for name, parameter in self.named_parameters():
            if name.endswith("modulation.weight") or name == "output.weight":
                nn.init.zeros_(parameter)

    def project(self, z: Float[Tensor, "m w"]) -> Float[Tensor, "m d"]:
        return self.context_proj(z)

    def forward(
        self, x_t: Float[Tensor, "m c"], time: Float[Tensor, "#m"], context: Float[Tensor, "m d"]
    ) -> Float[Tensor, "m o"]:
        y = F.silu(self.time_mlp(sinusoid(time)) + context)
        x = self.input_proj(x_t)
        for block in self.blocks:
            x = block(x, y)
        shift, scale = self.output_modulation(y).chunk(2, dim=-1)
        return self.output(modulate(F.layer_norm(x, x.shape[-1:], eps=EPS), shift, scale))
