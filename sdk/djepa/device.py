"""Where to compute, in what precision, and how much at a time."""

from __future__ import annotations

import os
from math import prod
from typing import Literal

import torch

from djepa.canvas import Canvas
from djepa.errors import UsageError, suggest
from djepa.model import MaskedModel

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_device(device: str | torch.device) -> torch.device:
    """A device by name; "auto" is the GPU where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros((), device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Device {str(device)!r} cannot be used here: {reason} "
                         f"{suggest(device, ['auto', 'cpu', 'cuda', 'cuda:0', 'mps'])}") from None
    return resolved


def resolve_precision(dtype: Precision, device: torch.device) -> torch.dtype:
    """A precision by name; "auto" is bfloat16 on GPUs that have it.

    Raises:
        UsageError: there is no such precision.
    """
    if dtype == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"dtype={dtype!r}: {suggest(dtype, ['auto', 'float32', 'bfloat16'])}")
    return torch.float32 if dtype == "float32" else torch.bfloat16


def fitting_batch_size(model: MaskedModel, canvas: Canvas, device: torch.device) -> int:
    """How many samples to generate at a time: a cautious estimate of what fits half of the free memory, at most 256."""
    tokens = sum(prod(stream.tokens.values.shape[:2]) for stream in canvas.streams.values())
    width = max(model.predictor.input_proj.weight.shape)
    per_sample = 2 * (tokens + 64) * width * 4 * 24  # both halves of guidance; about 24 activations of the trunk alive
    return max(1, min(256, _free_memory(device) // 2 // per_sample))


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 2**31
