"""Attention: one interface, several kernels.

    Attention(q, k, v) = softmax(q k^T / sqrt(head width)) v

Tensors are laid out (b, s, h, e): batch, sequence, heads, channels of a head. Sequences of unequal length are *packed*: one
row of all of them end to end, with a `Packing` that says where each stops. Padding therefore never reaches a kernel, and
full attention needs no mask tensor. Attention that goes one way only, such as back in time, is said by `BlockCausal`.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from djepa.errors import UsageError

logger = logging.getLogger("djepa.attention")


@dataclass(frozen=True)
class Packing:
    """Lengths of the sequences packed into one row; made once a batch, not once a layer.

    Attributes:
        lengths: tokens of each sequence, in order; their sum is the length of the row.
    """

    lengths: tuple[int, ...]

    @cached_property
    def xformers_mask(self) -> Any:
        """xformers' mask of the same meaning."""
        from xformers.ops.fmha.attn_bias import BlockDiagonalMask  # pyright: ignore[reportMissingImports]

        return BlockDiagonalMask.from_seqlens(list(self.lengths))


@dataclass(frozen=True)
class BlockCausal:
    """Who may attend to whom: every token to the tokens of its own level and below; made once a batch, not once a layer.

    Attributes:
        levels: of a plain batch, one tensor (b, s); of packed sequences one (1, length) each. Only their order counts.
    """

    levels: tuple[Float[Tensor, "b s"], ...]

    @classmethod
    def of(cls, levels: Float[Tensor, "b s"], packing: Packing | None = None) -> BlockCausal:
        """From the levels of all tokens, laid out as the tokens are."""
        return cls(levels.split(list(packing.lengths), dim=1) if packing else (levels,))

    @cached_property
    def masks(self) -> tuple[Bool[Tensor, "b 1 s s"], ...]:
        """For every tensor of levels, True where a query (row) may attend to a key (column)."""
        return tuple(level[:, None, :, None] >= level[:, None, None, :] for level in self.levels)


class AttentionBackend(ABC):
    """A kernel that computes attention."""

    name: ClassVar[str]

    @abstractmethod
    def unsupported(
        self, *, device: torch.device, dtype: torch.dtype, head_width: int, packed: bool, causal: bool
    ) -> str | None:
        """Why this backend cannot serve such a call; None when it can."""

    @abstractmethod
    def __call__(
        self,
        q: Float[Tensor, "b s h e"],
        k: Float[Tensor, "b s h e"],
        v: Float[Tensor, "b s h e"],
        packing: Packing | None = None,
        dropout: float = 0.0,
        causal: BlockCausal | None = None,
    ) -> Float[Tensor, "b s h e"]:
        """Attention of every query to all keys of its own sequence, or those `causal` lets it see. With `packing`, b is 1."""


class SdpaBackend(AttentionBackend):
    """torch's scaled_dot_product_attention: any device, any dtype."""

    name = "sdpa"

    def unsupported(
        self, *, device: torch.device, dtype: torch.dtype, head_width: int, packed: bool, causal: bool
    ) -> str | None:
        return None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing | None = None, dropout: float = 0.0,
        causal: BlockCausal | None = None,
    ) -> Tensor:
        # A call per level, to the tokens up to it, would need no masks; but it is up to five times slower where levels are
        # small, gains from about 500 tokens on, and would have to ask the device how large the levels are.
        if packing is None:
            return self._attend(q, k, v, causal.masks[0] if causal else None, dropout)
        # A loop over sequences beats a dense block mask: the work stays linear in their number.
        lengths = list(packing.lengths)
        masks = causal.masks if causal else [None] * len(lengths)
        parts = zip(q.split(lengths, dim=1), k.split(lengths, dim=1), v.split(lengths, dim=1), masks, strict=True)
        return torch.cat([self._attend(*part, dropout) for part in parts], dim=1)

    @staticmethod
    def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2)


class XformersBackend(AttentionBackend):
    """xformers' memory-efficient attention: CUDA only, packed sequences in one kernel."""

    name = "xformers"

    def unsupported(
        self, *, device: torch.device, dtype: torch.dtype, head_width: int, packed: bool, causal: bool
    ) -> str | None:
        if device.type != "cuda":
            return f"xformers has kernels for CUDA only, and the tensors are on {device.type}"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"xformers has kernels for float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
        if head_width > 256 or head_width % 8:
            return f"xformers takes heads of 8, 16, ..., 256 channels, not {head_width}"
        if causal:
            return "xformers has no kernel for attention that is block-causal along an axis"
        return _xformers_problem()

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing | None = None, dropout: float = 0.0,
        causal: BlockCausal | None = None,
    ) -> Tensor:
        from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]

        return memory_efficient_attention(q, k, v, attn_bias=packing.xformers_mask if packing else None, p=dropout)


@lru_cache(maxsize=1)
def _xformers_problem() -> str | None:
    """Why xformers cannot be imported; None when it can."""
    # Its extensions are built for another CUDA than torch's wheel and it says so at length; the attention we use is
    # torch's own kernel and works all the same.
    logging.getLogger("xformers").setLevel(logging.ERROR)
    try:
        importlib.import_module("xformers.ops")
    except ImportError as error:
        return f"xformers cannot be imported ({error}); install it with: pip install 'djepa[gpu]'"
    return None


@lru_cache(maxsize=64)
def _choose(
    name: str | None, device: torch.device, dtype: torch.dtype, head_width: int, packed: bool, causal: bool
) -> AttentionBackend:
    from djepa.plugins import host

    names = [name] if name else (["xformers", "sdpa"] if device.type == "cuda" else ["sdpa"])
    for candidate in names:
        backend = host().get("attention", candidate)()
        reason = backend.unsupported(device=device, dtype=dtype, head_width=head_width, packed=packed, causal=causal)
        if reason is None:
            logger.info("attention on %s in %s: %s", device.type, dtype, candidate)
            return backend
        if name:
            raise UsageError(f"Attention backend {name!r} was asked for but cannot be used here: {reason}. "
                             f"Leave `attention` out to let djepa choose.")
        logger.info("attention backend %s is passed over: %s", candidate, reason)
    raise AssertionError("sdpa serves every call")


def attention(
    q: Float[Tensor, "b s h e"],
    k: Float[Tensor, "b s h e"],
    v: Float[Tensor, "b s h e"],
    *,
    packing: Packing | None = None,
    dropout: float = 0.0,
    causal: BlockCausal | None = None,
    backend: str | None = None,
) -> Float[Tensor, "b s h e"]:
    """Attention by the named backend, or by the best one for the tensors at hand.

    Args:
        packing: where the packed sequences stop; None for a plain batch.
        causal: which keys of its sequence a query may see, made with the same packing; None for all of them.

    Raises:
        UsageError: the named backend cannot serve this call; the message says why.
        UnknownNameError: no plugin registered the named backend.
    """
    kernel = _choose(backend, q.device, q.dtype, q.shape[-1], packing is not None, causal is not None)
    return kernel(q, k, v, packing, dropout, causal)
