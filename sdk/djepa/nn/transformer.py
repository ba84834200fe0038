"""Pre-norm transformer blocks.

    x <- x + proj(attention(LN(x)))
    x <- x + mlp(LN(x)),            mlp = Linear, GELU (exact), Linear

Fused query-key-value projection with bias, its output ordered (q, k, v; head; channel); optional RMS normalization of queries
and keys per head [1], computed in float32; LayerNorm eps 1e-6 everywhere.

References:
    [1] A. Henry et al. Query-Key Normalization for Transformers. arXiv 2010.04245.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from djepa.nn.attention import BlockCausal, Packing, attention
from djepa.nn.positions import Rotation

EPS = 1e-6


class LayerNorm(nn.LayerNorm):
    """Whose weights may be of lower precision than what it normalizes, as those gathered from shards are."""

    def forward(self, input: Tensor) -> Tensor:
        dtype = torch.promote_types(input.dtype, self.weight.dtype)
        return F.layer_norm(input, self.normalized_shape, self.weight.to(dtype), self.bias.to(dtype), self.eps)


def layer_norm(width: int) -> nn.LayerNorm:
    """The LayerNorm used everywhere."""
    return LayerNorm(width, eps=EPS)


class HeadNorm(nn.Module):
    """RMS normalization over the channels of a head, in float32."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_width))

    def forward(self, x: Float[Tensor, "b s h e"]) -> Float[Tensor, "b s h e"]:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), EPS).to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention over each sequence."""

    def __init__(self, width: int, num_heads: int, qk_norm: bool, dropout: float, backend: str | None) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.backend = num_heads, dropout, backend
        self.attend: Callable[..., Tensor] = attention
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = HeadNorm(width // num_heads) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(width // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b s d"], packing: Packing | None, rotation: Rotation | None, causal: BlockCausal | None
    ) -> Float[Tensor, "b s d"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        dropout = self.dropout if self.training else 0.0
        out = self.attend(q, k, v, packing=packing, dropout=dropout, causal=causal, backend=self.backend)
        return F.dropout(self.proj(out.flatten(-2)), self.dropout, self.training)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        hidden = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(hidden), self.dropout, self.training)


class Block(nn.Module):
    """One pre-norm transformer block.

    Attributes:
        recompute: forget what happened inside until the backward pass, and compute it again then: less memory, more time.
    """

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float, qk_norm: bool, dropout: float, backend: str | None
    ) -> None:
        super().__init__()
        self.recompute = False
        self.norm1 = layer_norm(width)
        self.attention = SelfAttention(width, num_heads, qk_norm, dropout, backend)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), dropout)

    def forward(
        self, x: Float[Tensor, "b s d"], packing: Packing | None = None, rotation: Rotation | None = None,
        causal: BlockCausal | None = None,
    ) -> Float[Tensor, "b s d"]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.residual, x, packing, rotation, causal, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return self.residual(x, packing, rotation, causal)

    def residual(self, x: Tensor, packing: Packing | None, rotation: Rotation | None, causal: BlockCausal | None) -> Tensor:
        """What the block computes; `forward` decides how."""
        x = x + self.attention(self.norm1(x), packing, rotation, causal)
        return x + self.mlp(self.norm2(x))

    def compile_residual(self) -> None:
        """Have torch.compile take over what the block computes, but for attention, which has kernels of its own.

        Sequences of ever other lengths are theirs, too: compiled, every packing would be another program.
        """
        self.attention.attend = torch.compiler.disable(attention)  # pyright: ignore[reportAttributeAccessIssue]
        self.residual = torch.compile(self.residual, dynamic=True)


class Transformer(nn.Module):
    """Blocks and the LayerNorm after them."""

    def __init__(
        self, width: int, depth: int, num_heads: int, *, mlp_ratio: float, qk_norm: bool, dropout: float, backend: str | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio, qk_norm, dropout, backend) for _ in range(depth)
        )
        self.norm = layer_norm(width)
        self.apply(_initialize)

    def forward(
        self, x: Float[Tensor, "b s d"], packing: Packing | None = None, rotation: Rotation | None = None,
        causal: BlockCausal | None = None,
    ) -> Float[Tensor, "b s d"]:
        for block in self.blocks:
            x = block(x, packing, rotation, causal)
        return self.norm(x)


def _initialize(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
